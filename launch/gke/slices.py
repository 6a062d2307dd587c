"""TPU slices as GKE knows them: which topologies there are, and how many hosts each has."""

import math
import re
from dataclasses import dataclass

from lumiere_jax.runtime.errors import UserError


@dataclass(frozen=True)
class _Generation:
    label: str  # of nodes, under cloud.google.com/gke-tpu-accelerator
    machine: str  # machine type, without the number of chips
    small: tuple[str, ...]  # all topologies, or those with a side that is not a multiple of 4
    most_chips: int  # of one slice


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_GENERATIONS = {
    "v4": _Generation("tpu-v4-podslice", "ct4p-hightpu", _SOLID, 4096),
    "v5e": _Generation("tpu-v5-lite-podslice", "ct5lp-hightpu", _FLAT, 256),
    "v5p": _Generation("tpu-v5p-slice", "ct5p-hightpu", _SOLID, 6144),
    "v6e": _Generation("tpu-v6e-slice", "ct6e-standard", _FLAT, 256),
}
ACCELERATORS = tuple(_GENERATIONS)


@dataclass(frozen=True)
class Slice:
    """One TPU slice."""

    accelerator_label: str  # value of the node label `cloud.google.com/gke-tpu-accelerator`
    topology: str  # value of the node label `cloud.google.com/gke-tpu-topology`
    machine_type: str  # of the slice's nodes
    chips_per_host: int  # of one node, which a pod takes whole
    hosts: int  # nodes of the slice


def describe_slice(accelerator: str, topology: str) -> Slice:
    """Looks a slice up by the rules of https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.

    Hosts have 4 chips, except that the topology 1x1 is a host with a single one; nodes with 8
    chips, which v5e and v6e offer for serving, are left aside.

    Args:
      accelerator: one of `ACCELERATORS`.
      topology: chips along each axis, such as "4x4x8".

    Raises:
      UserError: if there is no such slice.
    """
    generation = _GENERATIONS[accelerator]
    if topology not in generation.small and not _is_large(generation, topology):
        raise UserError(f"--topology={topology}: {accelerator} has {_choices(generation)}.")
    chips = math.prod(int(side) for side in topology.split("x"))
    chips_per_host = min(chips, 4)
    return Slice(
        accelerator_label=generation.label,
        topology=topology,
        machine_type=f"{generation.machine}-{chips_per_host}t",
        chips_per_host=chips_per_host,
        hosts=chips // chips_per_host,
    )


def _is_large(generation: _Generation, topology: str) -> bool:
    """Whether it is a 3-D topology of whole cubes of 4x4x4 chips."""
    if generation.small is _FLAT or not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){2}", topology):
        return False
    sides = [int(side) for side in topology.split("x")]
    cubes = all(side % 4 == 0 for side in sides) and sides == sorted(sides)
    return cubes and math.prod(sides) <= generation.most_chips


def _choices(generation: _Generation) -> str:
    choices = ", ".join(generation.small)
    if generation.small is _FLAT:
        return choices
    return (
        f"{choices}, and AxBxC with sides that are multiples of 4 in ascending order, "
        f"such as 4x4x8, up to {generation.most_chips} chips"
    )
