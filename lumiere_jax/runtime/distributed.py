"""Many processes as one program: how they meet, who speaks, and how they leave together."""

import contextlib
import hashlib
import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import multihost

from lumiere_jax.runtime.errors import EXIT_USER_ERROR, PeerError, Preempted, UserError
from lumiere_jax.runtime.sharding import batch_parts, check_batch
from lumiere_jax.runtime.watchdog import end_at_once, peer_errors

_GRACE_S = 30

_barriers = itertools.count()
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment describes several processes that belong together."""
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    names = ("JAX_COORDINATOR_ADDRESS", "MEGASCALE_COORDINATOR_ADDRESS")
    return "," in hosts or any(environment.get(name) for name in names)


def initialize(
    requested: bool,
    *,
    start_timeout_s: int = 300,
    heartbeat_timeout_s: int = 100,
    shutdown_timeout_s: int = 120,
) -> None:
    """Joins the other processes, where there are any; must come before any use of devices.

    Args:
      requested: whether to join even if the environment describes no cluster: on a Cloud TPU VM
        only the metadata server knows it.
      start_timeout_s: how long to wait until all processes are there.
      heartbeat_timeout_s: after how long a silent process counts as dead. JAX then aborts the
        others (SIGABRT, 134 in a shell), and at once if process 0 is gone.
      shutdown_timeout_s: how long processes that are done wait for each other.

    Raises:
      UserError: if the cluster is described incompletely, or the processes do not meet. If they
        do not meet in time, the process ends at once, with that message and exit code.
    """
    if not (requested or is_configured()):
        return
    settings = cluster_settings(os.environ)
    # JAX does not raise when its time is over: it aborts the process, with a C++ stack trace.
    text = f"error: {_not_met(settings, f'no answer within {start_timeout_s} s')}"
    timer = threading.Timer(start_timeout_s, end_at_once, [text, EXIT_USER_ERROR])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **settings,
            initialization_timeout=start_timeout_s + _GRACE_S,
            heartbeat_timeout_seconds=heartbeat_timeout_s,
            shutdown_timeout_seconds=shutdown_timeout_s,
        )
    except ValueError as error:
        raise UserError(
            f"no cluster was found ({_first_line(error)}): set {', '.join(_VARIABLES)}, or start "
            "on all workers of a TPU slice, or leave --distributed out to run as one process."
        ) from error
    except (RuntimeError, OSError) as error:
        raise UserError(_not_met(settings, _first_line(error))) from error
    finally:
        timer.cancel()


@contextlib.contextmanager
def joined(requested: bool, **timeouts: int) -> Iterator[None]:
    """Runs what is inside as one of the processes of a cluster, if there is one: see `initialize`.

    All leave together when they are done or preempted (`shutdown`). On any other error a process
    leaves alone; the others learn of it and end, too.
    """
    initialize(requested, **timeouts)
    with peer_errors():
        try:
            yield
        except Preempted:
            shutdown()
            raise
    shutdown()


def shutdown() -> None:
    """Leaves the cluster when all other processes do; a `PeerError` if they do not in time."""
    try:
        jax.distributed.shutdown()
    except RuntimeError as error:
        raise PeerError(
            f"this process is done, but not all of the others ended with it ({_first_line(error)});"
            " look at their logs. The same command continues what is left."
        ) from error


def cluster_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` that the JAX_ variables hold.

    None without a JAX_COORDINATOR_ADDRESS: JAX asks Cloud TPU, GKE, Slurm and Open MPI by itself.
    Variables that are incomplete or contradictory are a `UserError`.
    """
    address, *numbers = (environment.get(name, "") for name in _VARIABLES)
    if not address or not any(numbers):
        return {"coordinator_address": address} if address else {}
    text = " ".join(f"{name}={environment.get(name, '')}" for name in _VARIABLES)
    if not address.rpartition(":")[2].isdecimal():
        raise UserError(f"{text}: the address must be that of process 0 with a port, HOST:PORT.")
    if not all(number.isdecimal() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        raise UserError(
            f"{text}: set all three; the number of processes is the same for each of them, and "
            "they are counted from 0."
        )
    return {
        "coordinator_address": address,
        "num_processes": int(numbers[0]),
        "process_id": int(numbers[1]),
        "cluster_detection_method": "deactivate",  # else a TPU host asks the metadata server
    }


def _not_met(settings: Mapping[str, Any], reason: str) -> str:
    process, count = settings.get("process_id", "?"), settings.get("num_processes", "?")
    return (
        f"process {process} of {count} did not meet the others at "
        f"{settings.get('coordinator_address', 'the first worker')} ({reason}). Start all "
        "processes, with JAX_COORDINATOR_ADDRESS, where it is set, the address of process 0 and a "
        "port that is free there and open between the hosts."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_primary() -> bool:
    """Whether this is the process that prints and writes files for all."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints, on one process only."""
    if is_primary():
        print(text)


def agree(ok: bool) -> bool:
    """Whether `ok` is true on every process; all of them must call it."""
    if jax.process_count() == 1:
        return ok
    return bool(np.all(multihost_utils.process_allgather(np.array(ok))))


def seconds_of_primary(seconds: float) -> float:
    """The first process's number of seconds, on all of them; every process makes this call."""
    if jax.process_count() == 1:
        return seconds
    return float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))


def is_same_everywhere(text: str) -> bool:
    """Whether every process has the same text; all of them must ask."""
    if jax.process_count() == 1:
        return True
    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    return bool((multihost_utils.process_allgather(mine) == mine).all())


def wait_for_all(what: str, timeout_s: int = 3600) -> None:
    """Waits until every process has reached the point `what`, without a collective.

    Compilation takes one process longer than another, and on CPUs the first collective waits for
    half a minute only.
    """
    if jax.process_count() > 1:
        # Orbax's `sync_global_processes` would be a collective; a barrier's name serves once.
        barrier = multihost.get_barrier_sync_fn()
        barrier(key=f"{what} {next(_barriers)}", timeout_ms=1000 * timeout_s)


def start_report(mesh: Mesh, batch_size: int) -> str:
    """Says how a global batch is spread over a mesh.

    If processes have different numbers of devices, the mesh leaves some out, or the batch or the
    mesh cannot be split evenly, that is a `UserError`.
    """
    devices, processes = jax.devices(), jax.process_count()
    counts = np.bincount([device.process_index for device in devices], minlength=processes)
    axes = " × ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    if len(set(counts.tolist())) > 1:
        few, many = int(counts.argmin()), int(counts.argmax())
        raise UserError(
            f"process {few} has {counts[few]} devices and process {many} has {counts[many]}; start "
            "every process on an equal host with all of its devices visible."
        )
    if mesh.size != len(devices):
        raise UserError(
            f"the mesh ({axes}) has {mesh.size} of {len(devices)} devices; set one of its sizes "
            "to -1 to let it follow."
        )
    check_batch(batch_size, mesh)
    parts = batch_parts(mesh)
    if parts % processes:
        raise UserError(
            f"{parts} parts of the batch ({axes}) cannot be split over {processes} processes, "
            "each of which reads its own clips; use a smaller mesh.space."
        )
    return (
        f"{processes} process(es) with {counts[0]} device(s) each, {len(devices)} in all "
        f"({devices[0].device_kind}); mesh {axes}; global batch {batch_size}, "
        f"{batch_size // processes} clip(s) per process"
    )
