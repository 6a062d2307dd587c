"""Trains the tiny cascade from nothing and shows videos: `python -m lumiere_jax.demo`."""

import ctypes
import os

from lumiere_jax import cpu_devices

# Before JAX is loaded. Less optimisation compiles in half the time what runs at the same speed.
cpu_devices.one_a_core()
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ['XLA_FLAGS']}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# XLA frees its buffers after every step; fresh pages for the next one are up to a fifth of it.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
if hasattr(libc := ctypes.CDLL(None), "mallopt"):
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

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
