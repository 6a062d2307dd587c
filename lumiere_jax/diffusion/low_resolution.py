"""The low-resolution clip that conditions a super-resolution network.

For training it is made from the clip itself, `downsample` then `upsample_low_resolution`; at
sampling it is the base model's video, up-sampled. Noise is added to it in `losses.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

FRAMES_AT_ONCE = 8
UPSAMPLINGS = ("bilinear", "bicubic", "bilinear_corners")


def upsample_low_resolution(
    video: Float[Array, "batch time height width channels"],
    size: tuple[int, int],
    method: str = "bilinear",
) -> Float[Array, "batch time {size[0]} {size[1]} channels"]:
    """Resizes every frame to float32; a few at a time, so that temporaries stay small.

    The method is "bilinear"; "bicubic", which may overshoot the range of the input; or
    "bilinear_corners", whose outermost pixels are those of the input (torch's `align_corners`), as
    DeepFloyd IF's stage II has it. Any other, or a size (height, width) that is smaller than the
    video's, is a `UserError`.
    """
    if method not in UPSAMPLINGS:
        raise UserError(
            f"up-sampling method {method!r} is unknown; choose from {', '.join(UPSAMPLINGS)}."
        )
    batch, time, height, width, channels = video.shape
    if size[0] < height or size[1] < width:
        raise UserError(
            f"cannot up-sample a video of {height}×{width} to {size[0]}×{size[1]}, "
            "which is smaller; choose a larger size for the super-resolution stage."
        )

    def resize(frame: Array) -> Array:
        frame = frame.astype(jnp.float32)
        if method != "bilinear_corners":
            return jax.image.resize(frame, (*size, channels), method)
        scale = jnp.array([(size[0] - 1) / max(height - 1, 1), (size[1] - 1) / max(width - 1, 1)])
        return jax.image.scale_and_translate(
            frame, (*size, channels), (0, 1), scale, 0.5 - 0.5 * scale, "linear", antialias=False
        )

    frames = video.reshape(batch * time, height, width, channels)
    frames = jax.lax.map(resize, frames, batch_size=min(FRAMES_AT_ONCE, batch * time))
    return frames.reshape(batch, time, *size, channels)


def downsample(
    video: Float[Array, "batch time height width channels"], factor: int
) -> Float[Array, "batch time height//{factor} width//{factor} channels"]:
    """Antialiased down-sampling to float32: the mean over squares of `factor` pixels a side.

    A height or width that is not divisible by the factor is a `UserError`.
    """
    batch, time, height, width, channels = video.shape
    if factor < 1 or height % factor or width % factor:
        raise UserError(
            f"cannot down-sample a video of {height}×{width} by {factor}: height and width must "
            "be multiples of the factor of the super-resolution stage."
        )
    squares = video.astype(jnp.float32).reshape(
        batch, time, height // factor, factor, width // factor, factor, channels
    )
    return jnp.mean(squares, axis=(3, 5))
