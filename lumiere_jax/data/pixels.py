"""Pixels of pictures and clips: as bytes and as floats, and at another size."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Num, UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "height width 3"]
RGBA = UInt8[np.ndarray, "height width 4"]
"""A picture with its transparency, as straight alpha."""
Frames = UInt8[np.ndarray, "time height width 3"]
"""A clip as bytes."""
Video = Float32[np.ndarray, "time height width 3"]
"""A clip in [-1, 1]."""


def to_uint8(frames: Num[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Maps floats in [-1, 1], clipped, to bytes 0..255."""
    scaled = (np.clip(np.asarray(frames, np.float32), -1.0, 1.0) + 1.0) * 127.5
    return np.rint(scaled).astype(np.uint8)


def to_float(frames: Num[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Maps bytes 0..255 to [-1, 1]; the inverse of `to_uint8`."""
    return np.asarray(frames).astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def as_size(resolution: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a resolution: both at once, or the side of a square."""
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution
    return height, width


def bounded_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of a picture made so small that its shorter side is `side` at most.

    What goes into a square of that side loses nothing by it. The longer side is 64 times that at
    most, as a picture may be one pixel high.
    """
    shrink = min(1.0, side / min(size), 64 * side / max(size))
    return max(round(size[0] * shrink), 1), max(round(size[1] * shrink), 1)


def resize_and_crop(frame: Picture, size: tuple[int, int]) -> Picture:
    """Scales a frame until it just covers `size`, (height, width), and keeps the centre.

    Bicubic, with the filter widened when shrinking (antialiased). Scale and crop are one operation,
    so a crop may begin between two pixels and stays exactly central.
    """
    height, width = frame.shape[:2]
    if (height, width) == tuple(size):
        return frame
    scale = max(size[0] / height, size[1] / width)
    left, top = (width - size[1] / scale) / 2, (height - size[0] / scale) / 2
    # Rounding must not put the box outside the image by 1e-14: Pillow refuses that.
    box = (max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))
    image = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image)
