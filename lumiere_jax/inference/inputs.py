"""Pictures, videos and masks that users give, as the arguments of methods."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from lumiere_jax.data.image_folder import read_image
from lumiere_jax.data.pixels import Picture, bounded_size, resize_and_crop, to_float
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoInfo, probe_video
from lumiere_jax.inference.regions import read_region
from lumiere_jax.runtime.errors import UserError


def read(
    paths: Mapping[str, str],
    fps: float,
    side: int | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> dict[str, np.ndarray]:
    """Reads the files "image", "video" and "mask" of a task as the arguments of its method.

    These are "image", "video" and "region", see `read_clip` and `read_region`; pictures are upright
    and on white, and the region of one has no axis of time. `fps` is the model's frame rate, and
    `side` the side of its results: what is larger is made as small, see `bounded_size`, before it
    takes memory. `tell` is called with what may not have been meant so.
    """
    given: dict[str, np.ndarray] = {}
    info = None
    shape = (1, 0, 0)
    if "image" in paths:
        picture = _picture(paths["image"])
        shape = (1, *picture.shape[:2])
        given["image"] = to_float(_bounded(picture, side))
    if "video" in paths:
        info = probe_video(Path(paths["video"]).expanduser())
        shape = (info.num_frames(fps), *info.size)
        given["video"] = read_clip(paths["video"], fps, info, side)
    if "mask" in paths:
        ground = given["video"] if "video" in given else given["image"][None]
        region = read_region(paths["mask"], fps, shape, info, tell)
        region = _bounded_region(region, ground.shape[1:3])
        given["region"] = region if "video" in given else region[0]
    return given


def _bounded(picture: Picture, side: int | None) -> Picture:
    size = picture.shape[:2]
    return resize_and_crop(picture, bounded_size(size, side)) if side else picture


def _bounded_region(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A region at the size of what it was drawn on; any part of a pixel makes all of it change."""
    if region.shape[1:] == size:
        return region
    frames = (Image.fromarray(255 * frame.astype(np.uint8)) for frame in region)
    box = Image.Resampling.BOX
    return np.stack([np.asarray(frame.resize(size[::-1], box)) > 0 for frame in frames])


def _picture(path: str) -> Picture:
    """An image file, upright and on white; `UserError` if it cannot be read."""
    try:
        return read_image(Path(path).expanduser())
    except (OSError, ValueError) as error:
        raise UserError(
            f"image {path} cannot be read ({error}); give a PNG, JPEG or WebP file."
        ) from error


def read_clip(
    path: str, fps: float, info: VideoInfo | None = None, side: int | None = None
) -> Float[np.ndarray, "time height width 3"]:
    """A video file at a model's frame rate, in [-1, 1]; `VideoReadError` if it cannot be read.

    `info` is from `probe_video`, when the caller has it already; `side` is as for `read`.
    """
    place = Path(path).expanduser()
    info = info or probe_video(place)
    size = bounded_size(info.size, side) if side else None
    return to_float(read_video(place, fps=fps, info=info, size=size))
