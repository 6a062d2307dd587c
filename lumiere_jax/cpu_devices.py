"""How many devices XLA makes of a CPU; to be called before JAX is used."""

import os

_MOST = 8


def one_a_core() -> None:
    """Makes one device a core, up to a power of two, which divides batches; 8 at most.

    They run small networks faster than one device for all cores does. Other platforms take no
    notice, and a number in the user's own XLA_FLAGS comes first.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = min(_MOST, len(affinity(0)) if affinity else os.cpu_count() or 1)
    number = 1 << (cores.bit_length() - 1)
    flag = f"--xla_force_host_platform_device_count={number}"
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"
