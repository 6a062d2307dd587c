"""How XLA uses the devices of this process, and where it keeps compiled programs."""

import ctypes
import importlib.metadata
import importlib.util
import math
import os
import sys
from pathlib import Path

CACHE = Path("~/.cache/lumiere_jax/compiled")
_MOST = 8
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def num_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def split_cpu(batch_size: int = _MOST) -> None:
    """Makes a device of every CPU core, up to a power of two that divides batches, and up to 8.

    They run small networks faster than one device for all cores. Call it before JAX is used; other
    platforms ignore it, and the user's own XLA_FLAGS take precedence.
    """
    number = 1 << (min(_MOST, num_cores()).bit_length() - 1)
    number = math.gcd(number, batch_size)
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


def leave_out_missing_tpu() -> None:
    """Keeps JAX from looking for a TPU that is not there, of which libtpu warns in six lines.

    Whoever sets JAX_PLATFORMS or anything of TPUs, or has other plug-ins of JAX, knows better. Call
    it before JAX is used.
    """
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    is_decided = any(name.startswith(("JAX_PLATFORMS", "TPU_")) for name in os.environ)
    if is_decided or plugins or importlib.util.find_spec("libtpu") is None:
        return
    if any(list(Path("/dev").glob(name)) for name in ("accel*", "vfio/[0-9]*")):
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if jax := sys.modules.get("jax"):
        jax.config.update("jax_platforms", "cpu")


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
