"""From uint8 frames to what I3D takes: crop and resize, as the published tools do it."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Num

from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

SIZE = 224
CROPS = ("squash", "center")
Frames = Num[Array, "*clips in_height in_width channels"]
Resized = Float32[Array, "*clips {height} {width} channels"]


def resize_tf1(frames: Frames, height: int, width: int) -> Resized:
    """TensorFlow 1's `resize_bilinear` without aligned corners, half-pixel centres, antialiasing.

    Output pixel i reads position i · in / out, so the picture moves up and left a little; FVD is
    defined with it. The result is not rounded.
    """
    frames = frames.astype(jnp.float32)
    for axis, size in ((-2, width), (-3, height)):
        old = frames.shape[axis]
        position = np.arange(size, dtype=np.float32) * np.float32(old / size)
        low = np.floor(position).astype(np.int32)
        shape = [1] * frames.ndim
        shape[axis] = size
        weight = (position - low).astype(np.float32).reshape(shape)
        first = jnp.take(frames, low, axis)
        frames = first + (jnp.take(frames, np.minimum(low + 1, old - 1), axis) - first) * weight
    return frames


def resize_torch(frames: Frames, height: int, width: int, *, antialias: bool) -> Resized:
    """PyTorch's bilinear resize, with half-pixel centres."""
    shape = (*frames.shape[:-3], height, width, frames.shape[-1])
    return jax.image.resize(frames.astype(jnp.float32), shape, "linear", antialias=antialias)


RESIZES: dict[str, Callable[[Array, int, int], Array]] = {
    "tf1": resize_tf1,
    "torch": functools.partial(resize_torch, antialias=False),
    "torch_aa": functools.partial(resize_torch, antialias=True),
}
"""Bilinear resizes: of the original FVD, of PyTorch, and of PyTorch with antialiasing."""


def prepare(
    frames: Num[Array, "*clips height width 3"], resize: str = "tf1", crop: str = "squash"
) -> Float32[Array, "*clips 224 224 3"]:
    """What I3D takes, in [-1, 1].

    Args:
      frames: uint8 or float, RGB, 0 to 255.
      resize: a name of `RESIZES`.
      crop: "squash" gives up the aspect ratio, as the original; "center" scales the short side and
        cuts the middle out.

    Raises:
      UserError: for an unknown name.
    """
    if resize not in RESIZES:
        raise UserError(f"resize {resize!r} is unknown; choose from {', '.join(RESIZES)}.")
    height, width = frames.shape[-3:-1]
    if crop == "squash":
        frames = RESIZES[resize](frames, SIZE, SIZE)
    elif crop == "center":
        scale = SIZE / min(height, width)
        height, width = (max(SIZE, round(side * scale)) for side in (height, width))
        frames = RESIZES[resize](frames, height, width)
        top, left = (height - SIZE) // 2, (width - SIZE) // 2
        frames = frames[..., top : top + SIZE, left : left + SIZE, :]
    else:
        raise UserError(f"crop {crop!r} is unknown; choose squash or center.")
    return 2 * frames / 255 - 1
