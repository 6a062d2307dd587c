"""Videos and files: the one door to `video_reading` and `video_writing`."""

from lumiere_jax.data.video_reading import (
    VideoInfo,
    VideoReadError,
    probe_video,
    read_comment,
    read_frames,
    read_video,
    resize_and_crop,
)
from lumiere_jax.data.video_writing import (
    to_float,
    to_uint8,
    write_contact_sheet,
    write_gif,
    write_image,
    write_lossless,
    write_mp4,
    write_video,
)

__all__ = [
    "VideoInfo",
    "VideoReadError",
    "probe_video",
    "read_comment",
    "read_frames",
    "read_video",
    "resize_and_crop",
    "to_float",
    "to_uint8",
    "write_contact_sheet",
    "write_gif",
    "write_image",
    "write_lossless",
    "write_mp4",
    "write_video",
]
