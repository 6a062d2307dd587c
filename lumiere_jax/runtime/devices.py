"""How XLA uses the devices of this process, and where it keeps compiled programs."""

import ctypes
import os
from pathlib import Path

CACHE = Path("~/.cache/lumiere_jax/compiled")
_MOST = 8
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def split_cpu() -> None:
    """Makes a device of every CPU core, up to a power of two, which divides batches, and up to 8.

    They run small networks faster than one device for all cores. Call it before JAX is used; other
    platforms ignore it, and the user's own XLA_FLAGS take precedence.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = min(_MOST, len(affinity(0)) if affinity else os.cpu_count() or 1)
    number = 1 << (cores.bit_length() - 1)
    flag = f"--xla_force_host_platform_device_count={number}"
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"


def tune_for_small_networks() -> None:
    """Splits the CPU, and trains small networks on it faster; call it before JAX is imported.

    With less optimization, programs run as fast and compile in half the time. XLA frees its buffers
    after every step; fresh pages for the next one are up to a fifth of it, so they are kept.
    """
    split_cpu()
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ['XLA_FLAGS']}"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def keep_compiled_programs() -> str | None:
    """Keeps compiled programs on disk, so that a job that starts again does not compile again.

    Returns the folder, local or in a bucket: JAX_COMPILATION_CACHE_DIR or, on accelerators,
    `CACHE`; else None, since programs of CPUs belong to one processor type.
    """
    import jax

    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder and jax.default_backend() != "cpu":
        folder = str(CACHE.expanduser())
        jax.config.update("jax_compilation_cache_dir", folder)
    return folder
