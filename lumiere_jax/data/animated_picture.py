"""Animated pictures that FFmpeg does not read as such, WebP and AVIF: their frames, by Pillow."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from lumiere_jax.data.pixels import RGBA
from lumiere_jax.data.video_timing import MAX_HOLD, Timestamps, VideoInfo, VideoReadError, usual

FORMATS = ("WEBP", "AVIF")
"""Pillow's names of the formats."""

_SHORTEST, _UNSTATED = 0.011, 0.1  # seconds: what is shorter is shown so long, as browsers do
_FLAGS, _HAS_ALPHA = 20, 0x10  # place of a byte, and a bit of it: WebP Container Specification
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError)


def probe_animation(path: str | os.PathLike) -> VideoInfo:
    """What an animated picture is; decodes all of it. A `VideoReadError` if it cannot be read."""
    try:
        with _opened(path) as image:
            return animation_info(image)
    except _DAMAGED as error:
        raise VideoReadError(path, str(error)) from error


def animation_info(image: Image.Image) -> VideoInfo:
    """As `probe_animation`, of a picture that is open; Pillow's errors if it cannot be read."""
    held = np.array([_held(frame) for frame in ImageSequence.Iterator(image)])
    return VideoInfo(
        duration=float(held.sum()), frame_period=usual(held), clock=Timestamps(0.0),
        size=image.size[::-1],
    )  # fmt: skip


def read_animation(path: str | os.PathLike, fps: float, info: VideoInfo) -> Iterator[RGBA]:
    """Its frames at a rate: those that `shown_frames` would give. `info` is from `probe_animation`.

    A `VideoReadError` if it cannot be read.
    """
    end, n = 0.0, 0
    try:
        with _opened(path) as image:
            for frame in ImageSequence.Iterator(image):
                end += _held(frame)
                pixels = np.asarray(frame.convert("RGBA"))
                while n < info.num_frames(fps) and n / fps + info.frame_period / 2 < end - 1e-9:
                    yield pixels
                    n += 1
            for _ in range(n, info.num_frames(fps)):  # within half a period of the end
                yield pixels
    except _DAMAGED as error:
        raise VideoReadError(path, str(error)) from error


def _opened(path: str | os.PathLike) -> Image.Image:
    content = bytearray(Path(path).read_bytes())
    if content[12:16] == b"VP8X" and len(content) > _FLAGS:
        # Encoders of lossless animations may leave the flag out though frames are transparent.
        content[_FLAGS] |= _HAS_ALPHA
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _held(frame: Image.Image) -> float:
    """For how long a frame is shown, in seconds; known once it is decoded."""
    frame.load()
    seconds = frame.info.get("duration", 0) / 1000
    return min(seconds, MAX_HOLD) if seconds >= _SHORTEST else _UNSTATED
