"""Trains the tiny cascade from nothing and shows videos: `python -m lumiere_jax.demo`."""

import ctypes
import os

# Before JAX is loaded: one device a core works better on small networks than one for all, and
# less optimisation compiles them in half the time at the same speed.
_CORES = max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
_DEVICES = 1 << (_CORES.bit_length() - 1)  # a power of two divides every batch
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={_DEVICES} --xla_backend_optimization_level=1 "
    + os.environ.get("XLA_FLAGS", "")
)
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
