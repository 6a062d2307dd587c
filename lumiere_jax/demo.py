"""Trains the tiny cascade from nothing and shows videos: `python -m lumiere_jax.demo`."""

from lumiere_jax import cpu_devices

cpu_devices.for_small_networks()  # before JAX is loaded

from absl import flags  # noqa: E402

from lumiere_jax import errors  # noqa: E402

_OUTPUT = flags.DEFINE_string("output", "demo", "Folder for runs, videos and index.html.")
_CONFIGS = flags.DEFINE_string("configs", "configs", "Folder of the config files.")


def main(argv: list[str]) -> None:
    """Runs the demo, or what is left of it."""
    del argv
    from lumiere_jax.demo_run import run_demo

    run_demo(_OUTPUT.value, _CONFIGS.value)


if __name__ == "__main__":
    errors.run(main)
