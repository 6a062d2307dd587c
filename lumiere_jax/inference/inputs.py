"""Pictures and videos that users give, and the regions that they draw on them."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageOps

from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES
from lumiere_jax.data.image_folder import read_image
from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.video_io import read_video
from lumiere_jax.runtime.errors import UserError

_BOX = re.compile(r"(?:(\d+):)?(\d+),(\d+),(\d+),(\d+)")
_MIDDLE = 128
_GREY = 24  # levels by which the channels of a black-and-white picture differ at most


def read(paths: Mapping[str, str], fps: float) -> dict[str, np.ndarray]:
    """Reads the files "image", "video" and "mask" of a task as the arguments of its method.

    These are "image", "video" and "region", see `read_picture`, `read_clip` and `read_region`; the
    region of a picture has no axis of time. `fps` is the frame rate of the model.
    """
    given = {}
    if "image" in paths:
        given["image"] = read_picture(paths["image"])
    if "video" in paths:
        given["video"] = read_clip(paths["video"], fps)
    if "mask" in paths:
        ground = given["video"] if "video" in given else given["image"][None]
        region = read_region(paths["mask"], fps, ground.shape[:3])
        given["region"] = region if "video" in given else region[0]
    return given


def read_picture(path: str) -> Float[np.ndarray, "height width 3"]:
    """An image file, upright and on white, in [-1, 1]; `UserError` if it cannot be read."""
    try:
        return to_float(read_image(Path(path).expanduser()))
    except (OSError, ValueError) as error:
        raise UserError(
            f"image {path} cannot be read ({error}); give a PNG, JPEG or WebP file."
        ) from error


def read_clip(path: str, fps: float) -> Float[np.ndarray, "time height width 3"]:
    """A video file at a model's frame rate, in [-1, 1]; `VideoReadError` if it cannot be read."""
    return to_float(read_video(Path(path).expanduser(), fps=fps))


def read_region(
    spec: str, fps: float, shape: tuple[int, int, int]
) -> Bool[np.ndarray, "time height width"]:
    """Reads where a picture or video is to change; one frame if it is the same in all.

    Args:
      spec: a path of an image, white where something is to change, or painted there on a
        transparent ground; a path of a video of such frames; or a box "X,Y,WIDTH,HEIGHT" in pixels
        from the upper left corner, or several as "FRAME:X,Y,WIDTH,HEIGHT;FRAME:…", between which
        the box moves and grows evenly.
      fps: rate at which the frames are counted.
      shape: frames, height and width of the video; one frame for a picture.

    Raises:
      UserError: if there is no such region.
    """
    if "," in spec and not Path(spec).exists():
        region = _boxes(spec, shape)
    elif Path(spec).suffix.lower() in VIDEO_SUFFIXES:
        region = read_video(spec, fps=fps).mean(axis=-1) >= _MIDDLE
        if len(region) > shape[0]:
            raise UserError(
                f"mask {spec} has {len(region)} frames at {fps:g} fps and the video {shape[0]}; "
                "cut it to the length of the video."
            )
    else:
        region = _image(Path(spec))[None]
    check_region(region, shape, f"mask {spec}")
    return region


def check_region(
    region: Bool[np.ndarray, "time height width"], shape: tuple[int, ...], name: str = "the region"
) -> None:
    """Checks that a region, called `name`, belongs to a video of a shape, and is not empty."""
    frames, height, width = shape[:3]
    if region.shape[1:] != (height, width):
        raise UserError(
            f"{name} is {region.shape[2]}×{region.shape[1]} pixels and the picture "
            f"{width}×{height}; draw it on a frame of the same size."
        )
    if 1 < len(region) < frames:
        raise UserError(
            f"{name} has {len(region)} frames and the video {frames}; give one frame for all, or "
            "one for each."
        )
    if not region.any():
        raise UserError(
            f"{name} is empty within the picture of {width}×{height} pixels, so nothing would "
            "change; draw where it should."
        )


def _image(path: Path) -> np.ndarray:
    """The region of an image file, bool [height, width]."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                return np.asarray(image.convert("RGBA"))[..., 3] >= _MIDDLE
            levels = np.asarray(image.convert("RGB")).astype(int)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"mask {path} cannot be read ({error}); give a PNG, a video, or a box X,Y,WIDTH,HEIGHT."
        ) from error
    if (levels.max(axis=-1) - levels.min(axis=-1)).max() > _GREY:
        raise UserError(
            f"mask {path} is a coloured picture without an alpha channel; paint what is to change "
            "in white and everything else in black, or paint it on a transparent background."
        )
    return levels.mean(axis=-1) >= _MIDDLE


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
