"""Clips as files that people look at."""

from pathlib import Path

import numpy as np

from lumiere_jax.data.video_io import write_contact_sheet, write_video

VIEW_PIXELS = 128  # small clips are enlarged by a whole factor to about this size


def write_viewable(
    path: Path, video: np.ndarray, fps: float, caption: str, comment: str = ""
) -> None:
    """Writes a clip as its suffix says, enlarged by a whole factor where it is small.

    Args:
      path: ends with .mp4, .gif or .png (a contact sheet with the caption).
      video: `[time, height, width, 3]` in [-1, 1].
      fps: frames per second.
      caption: what it shows.
      comment: text that an .mp4 keeps.
    """
    if path.suffix == ".png":
        write_contact_sheet(path, [video], [caption])
    else:
        write_video(path, video, fps, upscale=view_scale(video), comment=comment)


def view_scale(video: np.ndarray) -> int:
    """The whole factor by which a clip `[time, height, width, 3]` is enlarged to be seen."""
    return max(1, VIEW_PIXELS // video.shape[1])
