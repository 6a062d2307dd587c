"""Shows videos by the shipped weights: `python -m lumiere_jax.demo --prompt=TEXT`.

With `--train` it trains the tiny cascade from nothing first, and shows videos by that.
"""

from lumiere_jax.runtime import devices

devices.tune_for_small_networks()  # before JAX is loaded

from absl import flags  # noqa: E402

from lumiere_jax.runtime import errors  # noqa: E402
from lumiere_jax.runtime.path_flags import define_path  # noqa: E402

_OUTPUT = define_path("output", "demo", "Folder for videos and index.html.")
_WEIGHTS = define_path("weights", "weights/small", "Bundle of the shipped weights.")
_PROMPT = flags.DEFINE_multi_string("prompt", [], "What to show; can be given several times.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the first video; the others follow.", lower_bound=0)
_TRAIN = flags.DEFINE_bool("train", False, "Train the tiny cascade from nothing instead.")
_CONFIGS = define_path("configs", "configs", "--train: folder of the config files.")


def main(argv: list[str]) -> None:
    """Shows what the flags ask for."""
    if _TRAIN.value:
        from lumiere_jax.demos.from_nothing import run_demo

        if _PROMPT.value:
            raise errors.UserError("--prompt does not go with --train, which shows held-out ones.")
        run_demo(_OUTPUT.value, _CONFIGS.value)
    else:
        from lumiere_jax.demos.shipped import show

        show(_OUTPUT.value, _WEIGHTS.value, [p for p in _PROMPT.value if p], _SEED.value)


if __name__ == "__main__":
    errors.run(main)
