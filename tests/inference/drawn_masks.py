"""Files of masks as programs for pictures and videos write them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

PAINTS = ("white on clear", "red on clear", "black and white", "opaque alpha")
STILLS = ("png", "gif", "webp")
MOVING = ("apng", "animated gif", "animated webp", "webm", "vp8 webm", "mov")
LOSSY = ("webm", "vp8 webm")
_SUFFIXES = {"apng": "png", "animated gif": "gif", "animated webp": "webp", "vp8 webm": "webm"}
_CODECS = {
    "webm": ("libvpx-vp9", {"crf": "20", "b:v": "0"}, "yuva420p", "yuv420p"),
    "vp8 webm": ("libvpx", {"crf": "4", "b:v": "2M", "auto-alt-ref": "0"}, "yuva420p", "yuv420p"),
    "mov": ("prores_ks", {"profile": "4444"}, "yuva444p10le", "yuv444p10le"),
}


def write_mask(folder: Path, kind: str, paint: str, drawn: np.ndarray, fps: int) -> Path:
    """A file of a kind, painted where `drawn` is true, of [time, height, width]."""
    return write(folder, kind, painted(paint, drawn), fps)


def write(folder: Path, kind: str, pixels: np.ndarray, fps: int) -> Path:
    """A file of a kind, with frames of three or four channels."""
    path = folder / f"{kind.replace(' ', '_')}.{_SUFFIXES.get(kind, kind)}"
    if kind in _CODECS:
        write_video(path, pixels, fps, *_CODECS[kind])
    else:
        write_picture(path, pixels, fps)
    return path


def painted(paint: str, drawn: np.ndarray) -> np.ndarray:
    """Frames of three or four channels."""
    white = np.repeat(255 * drawn[..., None].astype(np.uint8), 3, axis=-1)
    alpha = 255 * drawn[..., None].astype(np.uint8)
    if paint == "white on clear":
        return np.concatenate([white, alpha], axis=-1)
    if paint == "red on clear":
        return np.concatenate([white * np.array([1, 0, 0], np.uint8), alpha], axis=-1)
    return white if paint == "black and white" else np.concatenate([white, 0 * alpha + 255], -1)


def write_picture(path: Path, pixels: np.ndarray, fps: float) -> None:
    """A picture by Pillow; animated if there is more than one frame."""
    first, *others = (Image.fromarray(frame) for frame in pixels)
    options = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    if others:
        options |= {"save_all": True, "append_images": others, "duration": 1000 / fps}
        options |= {"disposal": 2} if path.suffix == ".gif" else {}
    first.save(path, **options)


def write_video(
    path: Path, pixels: np.ndarray, fps: int, codec: str, options: dict[str, str],
    with_alpha: str, without: str,
) -> None:  # fmt: skip
    """A video by FFmpeg, in one of two pixel formats."""
    has_alpha = pixels.shape[-1] == 4
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = with_alpha if has_alpha else without
        if has_alpha:
            stream.metadata["alpha_mode"] = "1"
        for number, frame in enumerate(pixels):
            picture = av.VideoFrame.from_ndarray(frame, "rgba" if has_alpha else "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
