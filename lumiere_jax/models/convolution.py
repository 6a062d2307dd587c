"""Convolutions whose kernels have a gradient that CPUs are quick at, too.

The gradient of a kernel is itself a convolution, whose window is as large as the feature map, with
a sum over all frames. XLA's code for CPUs makes the sum at once, which is slow where it is long:
3 × 3 taps on 64 frames of 16×16 with 64 channels took 32.7 ms on a core, and 11.0 ms as eight sums
one after the other (2026-11-30, Intel Xeon, jax 0.10.2). For other devices, and where the sum is
short, nothing is different.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.runtime.arrays import Array

_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
_POSITIONS = 4096  # in a sum, on all devices together


class _How(NamedTuple):
    """What a convolution is beside its arrays."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kernel_h kernel_w c features"],
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    **defaults: Any,
) -> Float[Array, "n new_h new_w features"]:
    """`jax.lax.conv_general_dilated` with channels last.

    `defaults` are its other arguments, which Flax gives and leaves at their defaults.
    """
    del defaults
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    how = _How((strides[0], strides[1]), ((top, bottom), (left, right)))
    positions = x.shape[0] * (x.shape[1] // strides[0]) * (x.shape[2] // strides[1])
    # The number of clips of a program that is exported is a symbol; it has no gradient.
    is_long = isinstance(positions, int) and positions >= 2 * _POSITIONS
    return (_by_parts if is_long and _is_on_cpu() else _at_once)(x, kernel, how)


def _is_on_cpu() -> bool:
    """Whether what is traced will run on CPUs; of devices that are elsewhere, the mesh knows."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (device.platform if device else jax.default_backend()) == "cpu"


def _at_once(x: Array, kernel: Array, how: _How) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, how.strides, how.padding, dimension_numbers=_CHANNELS_LAST
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_parts(x: Array, kernel: Array, how: _How) -> Array:
    return _at_once(x, kernel, how)


def _forward(x: Array, kernel: Array, how: _How) -> tuple[Array, tuple[Array, Array]]:
    return _at_once(x, kernel, how), (x, kernel)


def _backward(how: _How, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (of_x,) = jax.linear_transpose(lambda x: _at_once(x, kernel, how), x)(gradient)
    return of_x, _of_kernel(x, kernel, gradient, how)


_by_parts.defvjp(_forward, _backward)


def _of_kernel(x: Array, kernel: Array, gradient: Array, how: _How) -> Array:
    """The gradient of the kernel, of parts of the frames, and of columns that it does not mix."""
    if kernel.shape[:2] == (1, 1) and how == _How((1, 1), ((0, 0), (0, 0))):
        return jnp.einsum("nhwi,nhwo->io", x, gradient)[None, None]
    n, height, width, _ = gradient.shape
    wanted = n * height * width // _POSITIONS
    frames = _divisor(n // jax.device_count(), wanted)  # every device has a share of each part
    is_of_one_column = kernel.shape[1] == 1 and how.strides[1] == 1 and how.padding[1] == (0, 0)
    columns = _divisor(width, wanted // frames) if is_of_one_column else 1

    total = jnp.zeros(kernel.shape, jnp.promote_types(kernel.dtype, jnp.float32))
    for x_rows, gradient_rows in zip(
        _every(x, 0, frames), _every(gradient, 0, frames), strict=True
    ):
        parts = zip(_every(x_rows, 2, columns), _every(gradient_rows, 2, columns), strict=True)
        for x_part, gradient_part in parts:
            of_part = jax.linear_transpose(lambda k, x=x_part: _at_once(x, k, how), kernel)
            total += of_part(gradient_part)[0]
    return total.astype(kernel.dtype)


def _every(x: Array, axis: int, number: int) -> list[Array]:
    """Parts of an axis, each of every `number`-th place: each device holds its share of all."""
    shape = (*x.shape[:axis], x.shape[axis] // number, number, *x.shape[axis + 1 :])
    parts = x.reshape(shape)
    return [jax.lax.index_in_dim(parts, i, axis + 1, keepdims=False) for i in range(number)]


def _divisor(of: int, most: int) -> int:
    """The largest divisor that is at most that; at least 1."""
    return next((d for d in range(min(of, most), 1, -1) if of % d == 0), 1)
