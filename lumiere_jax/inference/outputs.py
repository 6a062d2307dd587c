"""Clips as files for people to look at."""

from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Float

from lumiere_jax.data.video_io import write_contact_sheet, write_video

VIEW_PIXELS = 128  # small clips are enlarged by a whole factor to about this size


def write_viewable(
    path: Path | epath.Path,
    video: Float[np.ndarray, "time height width 3"],
    fps: float,
    caption: str,
    comment: str = "",
) -> None:
    """Writes a clip in [-1, 1], enlarged by a whole factor if it is small.

    The path ends with .mp4, which keeps the comment, .gif, or .png for a contact sheet with the
    caption.
    """
    if path.suffix == ".png":
        write_contact_sheet(path, [video], [caption])
    else:
        write_video(path, video, fps, upscale=view_scale(video.shape[1]), comment=comment)


def view_scale(height: int) -> int:
    """The whole factor by which a clip of this height in pixels is enlarged for viewing."""
    return max(1, VIEW_PIXELS // height)
