"""Kernels as int8 with a scale for each output channel, by qwix: needs the extra `.[int8]`.

Weights alone are rounded: they travel as int8, and the network computes as it does without.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lumiere_jax.runtime.errors import UserError

SCALE = "_scale"
"""After the name of a kernel, the name of its scales."""


def is_kernel(name: str, array: np.ndarray) -> bool:
    """Whether an array is one that `quantize` is for: a kernel of a convolution or matrix."""
    return name.endswith("kernel") and array.ndim >= 2


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of a kernel: those of each output channel, and of each layer if stacked.

    Kernels are `[height, width, in, out]` or `[in, out]`, with one more axis in front of layers.
    """
    layers = shape[:1] if len(shape) in (3, 5) else ()
    return (*layers, *[1] * (len(shape) - len(layers) - 1), shape[-1])


def quantize(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a kernel, symmetrically about 0, to int8; returns it and its float32 scales.

    Without qwix that is a `UserError`.
    """
    try:
        import qwix
    except ImportError as error:
        raise UserError("int8 needs the package qwix: pip install 'lumiere_jax[int8]'.") from error
    kept = (axis for axis, size in enumerate(scale_shape(kernel.shape)) if size > 1)
    rounded = qwix.quantize(np.asarray(kernel, np.float32), np.int8, channelwise_axes=tuple(kept))
    return np.asarray(rounded.qvalue), np.asarray(rounded.scale, np.float32)


def dequantize(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of a file as they were before, but for rounding; others stay as they are."""
    scales = {name: array for name, array in arrays.items() if name.endswith(f"kernel{SCALE}")}
    return {
        name: array * scales[name + SCALE] if name + SCALE in scales else array
        for name, array in arrays.items()
        if name not in scales
    }
