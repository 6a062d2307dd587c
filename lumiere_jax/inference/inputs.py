"""Pictures, videos and masks that users give, as the arguments of methods."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lumiere_jax.data.image_folder import read_image
from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoInfo, probe_video
from lumiere_jax.inference.regions import read_region
from lumiere_jax.runtime.errors import UserError


def read(
    paths: Mapping[str, str], fps: float, tell: Callable[[str], None] = lambda note: None
) -> dict[str, np.ndarray]:
    """Reads the files "image", "video" and "mask" of a task as the arguments of its method.

    These are "image", "video" and "region", see `read_picture`, `read_clip` and `read_region`; the
    region of a picture has no axis of time. `fps` is the frame rate of the model; `tell` is called
    with what may not have been meant so.
    """
    given: dict[str, np.ndarray] = {}
    info = None
    if "image" in paths:
        given["image"] = read_picture(paths["image"])
    if "video" in paths:
        info = probe_video(Path(paths["video"]).expanduser())
        given["video"] = read_clip(paths["video"], fps, info)
    if "mask" in paths:
        ground = given["video"] if "video" in given else given["image"][None]
        region = read_region(paths["mask"], fps, ground.shape[:3], info, tell)
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


def read_clip(
    path: str, fps: float, info: VideoInfo | None = None
) -> Float[np.ndarray, "time height width 3"]:
    """A video file at a model's frame rate, in [-1, 1]; `VideoReadError` if it cannot be read.

    `info` is from `probe_video`, when the caller has it already.
    """
    return to_float(read_video(Path(path).expanduser(), fps=fps, info=info))
