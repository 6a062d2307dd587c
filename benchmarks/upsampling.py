"""What it is worth to convolve before doubling: `UpsampleConv` beside the convolution of doubled.

    python benchmarks/upsampling.py                      (timed on the devices at hand)
    python benchmarks/upsampling.py --topology=v5p:2x2x1 (the TPU compiler's estimate, minutes)

Prints a table of forward passes and of gradients. The shapes are those of the levels of `small`
networks, or of the full STUNet in bfloat16.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from lumiere_jax.models.layers import Conv, UpsampleConv
from lumiere_jax.planning import hlo, topology
from lumiere_jax.runtime import errors

_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "A slice, to ask the compiler instead of a clock."
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Times that each is run; the fastest counts.", 1)


class Case(NamedTuple):
    """A kernel, and the frames (or clips, for time) that it is applied to."""

    name: str
    kernel: tuple[int, int]
    shape: tuple[int, int, int, int]
    features: int


SMALL = [
    Case("space, 16×16 to 32×32", (3, 3), (128, 16, 16, 64), 32),
    Case("space, 8×8 to 16×16", (3, 3), (128, 8, 8, 64), 64),
    Case("time, 8 to 16 frames of 32×32", (3, 1), (8, 8, 1024, 32), 32),
]
FULL = [
    Case("space, 64×64 to 128×128", (3, 3), (40, 64, 64, 512), 512),
    Case("space, 32×32 to 64×64", (3, 3), (40, 32, 32, 1024), 1024),
    Case("time, 40 to 80 frames of 64×64", (3, 1), (1, 40, 4096, 512), 512),
]


def of_doubled(case: Case, dtype: jnp.dtype) -> Callable[..., jax.Array]:
    """The convolution of the doubled array, `f(params, x)`."""
    padding = [(taps // 2, taps // 2) for taps in case.kernel]
    module = Conv(case.features, case.kernel, padding=padding, dtype=dtype)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        rows, columns = (1 if taps == 1 else 2 for taps in case.kernel)
        x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, rows, w, columns, c))
        return module.apply({"params": params}, x.reshape(n, rows * h, columns * w, c))

    return apply


def by_phases(case: Case, dtype: jnp.dtype) -> Callable[..., jax.Array]:
    """The same by `UpsampleConv`."""
    module: nn.Module = UpsampleConv(case.features, dtype, case.kernel)
    return lambda params, x: module.apply({"params": params}, x)


def gradient(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Of the sum of squares, by parameters and input."""
    return jax.grad(lambda p, x: jnp.square(function(p, x).astype(jnp.float32)).sum(), (0, 1))


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    dtype = jnp.dtype("bfloat16" if _TOPOLOGY.value else "float32")
    if _TOPOLOGY.value:
        topology.prepare_environment()
        target = topology.describe_slice(_TOPOLOGY.value)
        place = jax.sharding.SingleDeviceSharding(target.devices[0])

    def milliseconds(function: Callable[..., jax.Array], *shapes: jax.ShapeDtypeStruct) -> float:
        if _TOPOLOGY.value:
            placed = jax.jit(function, in_shardings=place, out_shardings=place)
            program = hlo.Program(placed.lower(*shapes).compile().as_text() or "")
            assert target.chip is not None
            return 1e3 * program.cycles(program.entry) / target.chip.clock
        rng, compiled, times = np.random.default_rng(0), jax.jit(function), []
        values = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
        jax.block_until_ready(compiled(*values))
        for _ in range(_REPEATS.value):
            begin = time.perf_counter()
            jax.block_until_ready(compiled(*values))
            times.append(time.perf_counter() - begin)
        return 1e3 * min(times)

    print("| convolution | channels | forward | by phases | gradient | by phases |")
    print("|---|---|---|---|---|---|")
    for case in FULL if _TOPOLOGY.value else SMALL:
        x = jax.ShapeDtypeStruct(case.shape, dtype)
        params = {
            "kernel": jax.ShapeDtypeStruct(
                (*case.kernel, case.shape[-1], case.features), jnp.float32
            ),
            "bias": jax.ShapeDtypeStruct((case.features,), jnp.float32),
        }
        ways = of_doubled(case, dtype), by_phases(case, dtype)
        cells = [
            f"{milliseconds(kind(way), params, x):.3g} ms"
            for kind in (lambda function: function, gradient)
            for way in ways
        ]
        print(f"| {case.name} | {case.shape[-1]} to {case.features} | {' | '.join(cells)} |")


if __name__ == "__main__":
    errors.run(main)
