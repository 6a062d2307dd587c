"""What it is worth on a CPU to sum the gradient of a kernel in parts: `models/convolution.py`.

    python benchmarks/kernel_gradients.py

Prints a table of the convolutions of the finest levels of `stunet.py:small`, 8 clips at once:
forward, and the gradients of the input and of the kernel, at once and in parts. All devices and
threads are those of JAX's defaults; the fastest of some runs counts.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from lumiere_jax.models.convolution import convolve
from lumiere_jax.runtime import errors

_REPEATS = flags.DEFINE_integer("repeats", 7, "Times that each is run.", 1)


class Case(NamedTuple):
    """A kernel, and the frames (or clips, for time) that it is applied to."""

    name: str
    kernel: tuple[int, int]
    shape: tuple[int, int, int, int]
    features: int


CASES = [
    Case("3×3, 128 frames of 16×16", (3, 3), (128, 16, 16, 64), 64),
    Case("3×3, 128 frames of 16×16", (3, 3), (128, 16, 16, 128), 64),
    Case("3×3, 128 frames of 8×8", (3, 3), (128, 8, 8, 128), 128),
    Case("3 frames, 8 clips of 16×16×16", (3, 1), (8, 16, 256, 64), 64),
    Case("1×1, 128 frames of 16×16", (1, 1), (128, 16, 16, 128), 64),
]


def milliseconds(function: Callable[..., jax.Array], *arrays: jax.Array) -> float:
    """The fastest of some runs, after one that does not count."""
    compiled, times = jax.jit(function).lower(*arrays).compile(), []
    jax.block_until_ready(compiled(*arrays))
    for _ in range(_REPEATS.value):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    print("| convolution | channels | forward | gradient of the input | of the kernel | in parts |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        padding = tuple((taps // 2, taps // 2) for taps in case.kernel)
        rng = np.random.default_rng(0)
        x, kernel, gradient = (
            jnp.asarray(rng.normal(size=shape), jnp.float32)
            for shape in (
                case.shape,
                (*case.kernel, case.shape[-1], case.features),
                (*case.shape[:-1], case.features),
            )
        )

        at_once = functools.partial(
            jax.lax.conv_general_dilated, window_strides=(1, 1), padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        in_parts = functools.partial(convolve, padding=padding)
        times = [milliseconds(at_once, x, kernel)]
        for convolution, which in ((at_once, 0), (at_once, 1), (in_parts, 1)):

            def back(x: Any, kernel: Any, g: Any, of: Any = convolution, which: int = which) -> Any:
                return jax.vjp(of, x, kernel)[1](g)[which]

            times.append(milliseconds(back, x, kernel, gradient))
        cells = [f"{ms:.3g} ms" for ms in times]
        print(f"| {case.name} | {case.shape[-1]} to {case.features} | {' | '.join(cells)} |")


if __name__ == "__main__":
    errors.run(main)
