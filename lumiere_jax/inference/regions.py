"""Regions that users draw on pictures and videos: where these are to change."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image, UnidentifiedImageError

from lumiere_jax.data import animated_picture
from lumiere_jax.data.image_folder import read_image_with_alpha
from lumiere_jax.data.pixels import RGBA
from lumiere_jax.data.video_io import is_still, read_frames
from lumiere_jax.data.video_timing import VideoInfo, VideoReadError, probe_video
from lumiere_jax.runtime.errors import UserError

_BOX = re.compile(r"(?:(\d+):)?(\d+),(\d+),(\d+),(\d+)")
_MIDDLE = 128
_OPAQUE = 250  # alpha from here on hides the ground; lossy codecs are off by a few levels
_GREY, _GREY_IN_VIDEO = 24, 64  # levels by which the channels of black and white differ at most
_STRAY = 0.001  # share of a frame that a codec may tint, and that is left out of what is full
# What Pillow is let try: formats that it tells by their first bytes, and that run no programs.
_PICTURES = ("PNG", "GIF", "WEBP", "AVIF", "JPEG", "BMP", "TIFF", "PPM")
_MOVING_PICTURES = ("PNG", "GIF", "WEBP", "AVIF")


def read_region(
    spec: str,
    fps: float,
    shape: tuple[int, int, int],
    video: VideoInfo | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> Bool[np.ndarray, "time height width"]:
    """Reads where a picture or video is to change; one frame if it is the same in all.

    Where any pixel of a file is transparent, what is painted (at least half opaque), in whatever
    colour, is to change; elsewhere what is white.

    Args:
      spec: a path of a picture, still or animated, or of a video; or a box "X,Y,WIDTH,HEIGHT" in
        pixels from the upper left corner, or several as "FRAME:X,Y,WIDTH,HEIGHT;FRAME:…", between
        which the box moves and grows evenly.
      fps: rate at which the frames are counted.
      shape: frames, height and width of the video; one frame for a picture.
      video: what the file of the video is. A mask with as many frames belongs to it frame by frame,
        though its pace may differ: GIF rounds times to hundredths of a second.
      tell: is called with what may not have been meant so.

    Raises:
      UserError: if there is no such region, or it is empty or everything.
    """
    name = f"mask {spec}"
    if "," in spec and not Path(spec).exists():
        region = _boxes(spec, shape)
    else:
        region = _drawn(spec, fps, shape, video, tell)
    check_region(region, shape, name)
    if region.mean() > 1 - _STRAY:
        raise UserError(
            f"{name} covers all of the frame, so that nothing would stay as it is; draw only what "
            "is to change, in white on black, or in any colour on a transparent background. "
            "video_to_video and animate change all of a video or picture."
        )
    return region


def in_words(region: Bool[np.ndarray, "time height width"]) -> str:
    """How much of a frame a region covers, as "6.6% of the frame"."""
    shares = region.mean(axis=(1, 2))
    least, mean, most = (_percent(share) for share in (shares.min(), shares.mean(), shares.max()))
    is_even = np.ptp(region.mean(axis=(1, 2))) <= 0.25 * region.mean()
    return (
        f"{mean} of the frame" if is_even else f"{mean} of the frame on average, {least} to {most}"
    )


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


def check_region(
    region: Bool[np.ndarray, "time height width"], shape: tuple[int, ...], name: str = "the region"
) -> None:
    """Checks that a region, called `name`, belongs to a video of a shape, and is not empty."""
    _check_shape(region.shape, shape, name)
    if not region.any():
        height, width = shape[1:3]
        raise UserError(
            f"{name} is empty within the picture of {width}×{height} pixels, so nothing would "
            "change; draw where it should."
        )


def _check_shape(drawn: tuple[int, ...], shape: tuple[int, ...], name: str) -> None:
    frames, height, width = shape[:3]
    if drawn[1:] != (height, width):
        raise UserError(
            f"{name} is {drawn[2]}×{drawn[1]} pixels and the picture {width}×{height}; draw it on "
            "a frame of the same size."
        )
    if 1 < drawn[0] < frames:
        raise UserError(
            f"{name} has {drawn[0]} frames and the video {frames}; give one frame for all, or one "
            "for each."
        )


# --- Files -------------------------------------------------------------------------------------


class _Mask(NamedTuple):
    """The frames of a file, and their number, height and width, which are known before."""

    frames: Iterator[RGBA]
    shape: tuple[int, int, int]
    grey: int  # levels by which the channels of a grey pixel differ at most


def _drawn(
    path: str,
    fps: float,
    shape: tuple[int, int, int],
    video: VideoInfo | None,
    tell: Callable[[str], None],
) -> Bool[np.ndarray, "time height width"]:
    """The region that a file shows."""
    try:
        mask = _opened(Path(path).expanduser(), fps, video)
        _check_not_longer(mask.shape[0], shape[0], fps, f"mask {path}")
        _check_shape(mask.shape, shape, f"mask {path}")
        return _understood(mask, f"mask {path}", tell)
    except (OSError, ValueError, VideoReadError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"mask {path} cannot be read ({reason}); give a PNG, a video, or a box "
            "X,Y,WIDTH,HEIGHT."
        ) from error


def _check_not_longer(drawn: int, frames: int, fps: float, name: str) -> None:
    if drawn > frames == 1:
        raise UserError(f"{name} moves ({drawn} frames at {fps:g} fps); a picture needs a still.")
    if drawn > frames:
        raise UserError(
            f"{name} has {drawn} frames at {fps:g} fps and the video {frames}; cut it to the "
            "length of the video."
        )


def _opened(path: Path, fps: float, video: VideoInfo | None) -> _Mask:
    """What a file holds, by its content: a suffix may say anything."""
    kind, is_moving = _picture_kind(path)
    if kind and not is_moving:
        image = read_image_with_alpha(path, _PICTURES)
        return _Mask(iter([image]), (1, *image.shape[:2]), _GREY)
    if kind in animated_picture.FORMATS:
        info = animated_picture.probe_animation(path)
        fps = _rate(info, fps, video)
        count, frames = info.num_frames(fps), animated_picture.read_animation(path, fps, info)
    else:
        info = probe_video(path)
        fps = _rate(info, fps, video)
        count = 1 if is_still(path) else info.num_frames(fps)
        frames = read_frames(
            path, fps=fps, start=0, num_frames=count, size=None, info=info, num_threads=0,
            with_alpha=True,
        )  # fmt: skip
    return _Mask(frames, (count, *info.size), _GREY_IN_VIDEO)


def _rate(mask: VideoInfo, fps: float, video: VideoInfo | None) -> float:
    """At which a mask's frames are read, for those that go with a video's at `fps`."""
    if video is None or video.own_frames != mask.own_frames:
        return fps
    return fps * video.duration / mask.duration


def _picture_kind(path: Path) -> tuple[str, bool]:
    """Pillow's name of a picture's format, and whether the picture moves; "" if it is none."""
    try:
        with Image.open(path, formats=_PICTURES) as image:
            kind = image.format or ""
            return kind, kind in _MOVING_PICTURES and getattr(image, "n_frames", 1) > 1
    except UnidentifiedImageError:
        return "", False
    except (SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _understood(mask: _Mask, name: str, tell: Callable[[str], None]) -> np.ndarray:
    """The region of frames, by their transparency if they have any, or else by white."""
    painted, white, is_clear, coloured, black = [], [], False, 0.0, 0
    for frame in mask.frames:
        colours, alpha = frame[..., :3].astype(np.int16), frame[..., 3]
        painted.append(alpha >= _MIDDLE)
        white.append(colours.mean(axis=-1) >= _MIDDLE)
        is_clear |= bool((alpha < _OPAQUE).any())
        spread = colours.max(axis=-1) - colours.min(axis=-1)
        coloured = max(coloured, float((spread > mask.grey).mean()))
        black += int((painted[-1] & (colours.max(axis=-1) < _MIDDLE // 2)).sum())
    if is_clear:
        return _by_transparency(np.stack(painted), black, name, tell)
    if coloured > (0 if mask.grey == _GREY else _STRAY):
        raise UserError(
            f"{name} is a coloured picture without an alpha channel, or with one that is opaque "
            "everywhere; paint what is to change in white and everything else in black, or paint "
            "it on a transparent background."
        )
    return np.stack(white)


def _by_transparency(
    painted: np.ndarray, black: int, name: str, tell: Callable[[str], None]
) -> np.ndarray:
    if not painted.any():
        raise UserError(
            f"{name} is empty: where a mask has transparency, what is painted on it is to change, "
            "and nothing in this one is at least half opaque; paint where it should."
        )
    if black > 0.01 * painted.sum():
        tell(
            f"{name}: its black parts are to change too, since the mask has transparency, where "
            "only that counts; for black to stay, make the mask opaque."
        )
    return painted


# --- Boxes -------------------------------------------------------------------------------------


def _boxes(spec: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The region of boxes, evenly moved between key frames."""
    keys: dict[int, list[int]] = {}
    for part in spec.split(";"):
        match = _BOX.fullmatch(part.strip().replace(" ", ""))
        if not match:
            raise UserError(
                f"mask {spec!r}: {part!r} is not a box; write X,Y,WIDTH,HEIGHT in whole pixels, or "
                "FRAME:X,Y,WIDTH,HEIGHT;FRAME:X,Y,WIDTH,HEIGHT for one that moves."
            )
        frame, *box = (int(value or 0) for value in match.groups())
        if frame >= shape[0]:
            raise UserError(f"mask {spec!r}: frame {frame} is not among the {shape[0]} frames.")
        keys[frame] = box
    frames, moments = np.arange(shape[0]), sorted(keys)
    sides = np.array([keys[moment] for moment in moments]).T
    left, top, width, height = (np.rint(np.interp(frames, moments, side)) for side in sides)
    y, x = np.arange(shape[1])[:, None], np.arange(shape[2])
    columns = (x >= left[:, None, None]) & (x < (left + width)[:, None, None])
    rows = (y >= top[:, None, None]) & (y < (top + height)[:, None, None])
    return rows & columns
