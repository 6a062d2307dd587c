"""The slices that a step can be compiled for on any machine, and what their chips can do."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from lumiere_jax.planning.gpus import GPUS
from lumiere_jax.runtime.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, by the figures that Google publishes.

    Peak, memory, `hbm_bandwidth`, `link` and `dcn` are of docs.cloud.google.com/tpu/docs (pages
    v4, v5e, v5p, v6e and tpu7x, read in November 2026): `link` is the bidirectional bandwidth of a
    chip by its links and by the two directions. What those pages leave out is of "How to Scale Your
    Model" (jax-ml.github.io/scaling-book, part 2): the links and the network of v4, and `pcie`.
    """

    name: str  # as in the name of a topology
    kind: str  # what JAX calls it
    peak: float  # bfloat16 FLOP/s
    hbm: int  # bytes
    hbm_bandwidth: float  # bytes/s
    clock: float  # Hz, for the compiler's cycles
    clock_note: str = ""  # how it is known, where Google does not say
    sides: int  # of a slice: neighbours lie along 2 or 3 axes, one link in each direction
    link: float  # bytes/s, of one link to a neighbour, each way
    dcn: float  # bytes/s to other slices
    pcie: float | None  # bytes/s from the host; None where it is not known


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4", kind="TPU v4", peak=275e12, hbm=32 * GIB, hbm_bandwidth=1200e9,
            clock=1.05e9, sides=3, link=45e9, dcn=6.25e9, pcie=16e9,
        ),
        Chip(
            name="v5e", kind="TPU v5 lite", peak=197e12, hbm=16 * GIB, hbm_bandwidth=819e9,
            clock=1.5e9, sides=2, link=50e9, dcn=3.125e9, pcie=15e9,
        ),
        Chip(
            name="v5p", kind="TPU v5", peak=459e12, hbm=95 * GIB, hbm_bandwidth=2765e9,
            clock=1.75e9, sides=3, link=100e9, dcn=6.25e9, pcie=15e9,
        ),
        Chip(
            name="v6e", kind="TPU v6 lite", peak=918e12, hbm=32 * GIB, hbm_bandwidth=1638e9,
            clock=1.75e9, sides=2, link=100e9, dcn=12.5e9, pcie=32e9,
        ),
        Chip(
            name="tpu7x", kind="TPU7x", peak=2307e12, hbm=192 * GIB, hbm_bandwidth=7380e9,
            clock=2.2e9, sides=3, link=100e9, dcn=12.5e9, pcie=None,
            clock_note="the clock of TPU7x is not published: 2.2 GHz is its peak by the 524,288 "
            "operations that a core does in a cycle, as on v6e; with 1.9 GHz, which the compiler's "
            "own peak of 996 TFLOP/s a core means, times are 16% longer and MFU 14% lower",
        ),
    )
}  # fmt: skip
"""The clock of tpu7x is a conclusion. On all others the published peak is the clock times what the
matrix units of a chip do in a cycle, to 0.3%. On v6e that is 524,288 operations, by two units of
256×256 as JAX's own `TpuInfo` counts them; a core of tpu7x has the same. The compiler's estimates
agree: a 3×3 convolution of 16×64×64 with 1024 channels runs at 92% of that rate on v6e, at 95% on
tpu7x (2026-11-30, libtpu 0.0.42.1)."""
HERE = "here"
EXAMPLES = "v4:2x2x1, v5e:4x4, v5p:4x4x4, v6e:16x16 or tpu7x:2x2x1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Devices to plan for; they need not exist."""

    name: str  # such as "v5p:4x4x4"
    num_slices: int  # slices of that shape
    chip: Chip | None  # None for anything but a TPU
    chips: int
    devices: Sequence[Any]  # what JAX sees of them; a chip may be two devices

    @property
    def devices_per_chip(self) -> float:
        """1, or 2 where each core of a chip is a device."""
        return len(self.devices) / self.chips


def prepare_environment() -> None:
    """Lets the TPU's compiler load where there is no TPU; call it before JAX is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Else it looks for the TPU that is not there, and warns; the topology is named all the same.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    # JAX adds this where there is a TPU; what is compiled here is to be what is compiled there.
    barrier, given = "--xla_tpu_use_enhanced_launch_barrier", os.environ.get("LIBTPU_INIT_ARGS", "")
    if barrier not in given:
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {barrier}=true"


def check_compiler() -> None:
    """Raises a `UserError` if the TPU's compiler is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "the TPU's compiler (package libtpu) is not installed; it runs on any Linux machine "
            "with an x86-64 CPU: pip install -e '.[tpu]'."
        )


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and the sides of a topology; a `UserError` if there is none of that name."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if not match or match[1] not in CHIPS:
        raise UserError(
            f"--topology={name} is not a chip ({', '.join(CHIPS)}), a colon and the numbers of "
            f"chips along each side, nor a number of GPUs ({', '.join(GPUS)}), nor {HERE}; use for "
            f"example {EXAMPLES}, or h100:8."
        )
    sides = tuple(int(side) for side in match[2].split("x"))
    expected = CHIPS[match[1]].sides
    if len(sides) != expected or min(sides) < 1:
        raise UserError(
            f"--topology={name}: a slice of {match[1]} has {expected} sides of 1 or more chips; "
            f"use for example {EXAMPLES}."
        )
    return CHIPS[match[1]], sides


def describe_slice(name: str, num_slices: int = 1) -> Target:
    """The devices of slices "v5p:4x4x4" that need not exist, joined by the data-centre network.

    `HERE` is the devices of this process.
    If the compiler is missing, or knows no such topology, that is a `UserError`.
    """
    if name == HERE:
        return present()
    chip, sides = parse(name)
    if num_slices < 1:
        raise UserError(f"--num_slices={num_slices} must be 1 or more.")
    check_compiler()
    from jax.experimental import topologies

    more = {"num_slices": num_slices} if num_slices > 1 else {}
    try:
        devices = topologies.get_topology_desc(name, "tpu", **more).devices
    except Exception as error:  # whatever the compiler's plug-in raises
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the TPU's compiler knows no topology {name} with {num_slices} slice(s) "
            f"({first_line}); use for example {EXAMPLES}."
        ) from error
    chips = math.prod(sides) * num_slices
    return Target(name=name, num_slices=num_slices, chip=chip, chips=chips, devices=devices)


def present() -> Target:
    """The devices that this process has."""
    import jax

    devices = jax.devices()
    chip = next((chip for chip in CHIPS.values() if chip.kind == devices[0].device_kind), None)
    chips, slices = len(devices), {getattr(device, "slice_index", 0) for device in devices}
    if chip is not None:
        chips = len({(getattr(d, "slice_index", 0), *d.coords) for d in devices})
    return Target(
        name=f"{len(devices)} × {devices[0].device_kind}",
        num_slices=len(slices),
        chip=chip,
        chips=chips,
        devices=devices,
    )
