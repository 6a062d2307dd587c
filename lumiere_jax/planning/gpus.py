"""The GPUs that a step can be bounded for, by published figures; there is no compiler to ask."""

import dataclasses
import re

MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU of a server (SXM), by NVIDIA's data sheet; products without sparsity."""

    name: str  # as in "h100:8"
    kind: str  # what JAX's name of a device begins with
    peak: float  # bfloat16 FLOP/s
    memory: int  # bytes, as NVIDIA's driver tells them
    bandwidth: float  # of its memory, bytes/s


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="a100", kind="NVIDIA A100-SXM4-80GB", peak=312e12,
            memory=81920 * MIB, bandwidth=2039e9,
        ),
        Gpu(
            name="h100", kind="NVIDIA H100 80GB", peak=989e12,
            memory=81559 * MIB, bandwidth=3350e9,
        ),
        Gpu(
            name="h200", kind="NVIDIA H200", peak=989e12,
            memory=143771 * MIB, bandwidth=4800e9,
        ),
    )
}  # fmt: skip
"""Data sheets, as hmc-tech.com, glennklockwood.com and acecloud.ai quote them (2026-11-30)."""


def parse(name: str) -> tuple[Gpu, int] | None:
    """The GPU and the number of a name such as "h100:8"; None if it is none of those."""
    match = re.fullmatch(r"(\w+):([1-9]\d*)", name)
    return (GPUS[match[1]], int(match[2])) if match and match[1] in GPUS else None
