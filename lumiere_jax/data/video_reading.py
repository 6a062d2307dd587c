"""Videos from files: decoded, resampled to a frame rate and scaled by FFmpeg (PyAV)."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from lumiere_jax.runtime.errors import UserError

MAX_PIXELS = 2**26  # of a frame, as 8192×8192; decoding more takes gigabytes for a damaged header


def resize_and_crop(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales a frame until it just covers `size`, and keeps the centre.

    Bicubic, with the filter widened when shrinking (antialiased). Scale and crop are one operation,
    so a crop may begin between two pixels and stays exactly central.

    Args:
      frame: uint8 [height, width, 3].
      size: (height, width) of the result.

    Returns:
      uint8 [size[0], size[1], 3].
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


class VideoReadError(UserError):
    """A video file that cannot be decoded, with its `path` and the `reason` in words."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"cannot read video {path}: {reason}")
        self.path, self.reason = Path(path), reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What `probe_video` knows of a file.

    Attributes:
      duration: from the first frame's appearance to the last one's disappearance, in seconds.
      frame_period: the usual time between two frames, in seconds.
      start_time: timestamp of the first frame, in seconds; all other times count from it.
    """

    duration: float
    frame_period: float
    start_time: float

    def num_frames(self, fps: float) -> int:
        """How many frames the video has when resampled to `fps` frames per second."""
        # A tenth of a frame is forgiven: containers round their timestamps.
        return max(1, math.floor(self.duration * fps + 0.1))


@contextlib.contextmanager
def _open_video(path: str | os.PathLike) -> Iterator[av.video.stream.VideoStream]:
    """The first video stream of a file; whatever FFmpeg says meanwhile is a `VideoReadError`."""
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoReadError(path, "it has no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise VideoReadError(
                    path, f"frames of {stream.width}×{stream.height} are more than 8192×8192 pixels"
                )
            yield stream
    except (av.error.FFmpegError, OSError) as error:
        raise VideoReadError(path, getattr(error, "strerror", None) or str(error)) from error


def _timed_frames(
    stream: av.video.stream.VideoStream,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decoded frames with their timestamps in seconds; a missing one continues the last."""
    period = float(1 / stream.average_rate) if stream.average_rate else 0.04
    time = -period
    for packet in stream.container.demux(stream):
        # Half a packet, at the end of a truncated file, would take whole frames along with it.
        for frame in () if packet.is_corrupt else packet.decode():
            time = time + period if frame.time is None else frame.time
            yield time, frame


def probe_video(path: str | os.PathLike) -> VideoInfo:
    """Reads the timestamps of all frames of a file, and decodes the first frame only.

    The header is not trusted: a truncated file often promises more than it holds.

    Raises:
      VideoReadError: the file is missing, no video, or its first frame cannot be decoded.
    """
    with _open_video(path) as stream:
        start_time, _ = next(_timed_frames(stream), (None, None))
        if start_time is None:
            raise VideoReadError(path, "it has no frames")
    with _open_video(path) as stream:
        info = timing(stream, stream.container.demux(stream), start_time)
    if info is None:
        raise VideoReadError(path, "it has no complete frames")
    return info


def timing(
    stream: av.video.stream.VideoStream, packets: Iterable[av.Packet], start_time: float = 0.0
) -> VideoInfo | None:
    """What the timestamps of a stream say, without decoding it.

    Args:
      stream: of a video.
      packets: all of its packets.
      start_time: timestamp of the first frame, in seconds.

    Returns:
      None if there is no complete packet.
    """
    unit, found = float(stream.time_base), []
    for packet in packets:
        if packet.size and not packet.is_corrupt and not packet.is_discard:
            time = packet.dts if packet.pts is None else packet.pts
            found.append((len(found) if time is None else time, packet.duration or 0))
    if not found:
        return None
    found.sort()
    times = np.array([time for time, _ in found], np.float64) * unit
    gaps = np.diff(times)
    fallback = float(1 / stream.average_rate) if stream.average_rate else 0.04
    # The short gaps: in a variable rate, the long ones are frames that were held.
    period = float(np.percentile(gaps[gaps > 0], 10)) if (gaps > 0).any() else fallback
    duration = times[-1] - times[0] + (found[-1][1] * unit or period)
    return VideoInfo(duration=float(duration), frame_period=period, start_time=start_time)


def _shown_frames(
    path: str | os.PathLike,
    stream: av.video.stream.VideoStream,
    info: VideoInfo,
    times: Sequence[float],
) -> Iterator[av.VideoFrame]:
    """The frame nearest to each of the ascending `times` (seconds from the first frame).

    Precisely: the frame on the screen half a frame period later. At a constant rate that is the
    nearest frame; at a variable rate a frame that is held for long is not left too early.
    """
    targets = [info.start_time + time + info.frame_period / 2 for time in times]
    frames = _seek(stream, targets[0])
    time, frame = next(frames, (math.inf, None))
    if time > targets[0] and times[0] > 0:  # the container could not seek: from the beginning
        stream.container.seek(0)
        frames = _timed_frames(stream)
        time, frame = next(frames, (math.inf, None))
    next_time, next_frame = next(frames, (math.inf, None))
    for target in targets:
        while next_time <= target:
            time, frame = next_time, next_frame
            next_time, next_frame = next(frames, (math.inf, None))
        held = float((frame.duration or 0) * frame.time_base) if frame is not None else 0.0
        if next_frame is None and target > time + max(held, info.frame_period) * 1.5 + 1e-3:
            frame = None
        if frame is None:
            raise VideoReadError(path, f"no frame at {target - info.start_time:.2f} s; damaged?")
        yield frame


def _seek(
    stream: av.video.stream.VideoStream, time: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decodes from the last key frame before `time`; under one second it is not worth it."""
    if time > 1.0:
        with contextlib.suppress(av.error.FFmpegError):
            stream.container.seek(math.floor(time / stream.time_base), stream=stream)
    return _timed_frames(stream)


class _RGBConverter:
    """From decoded frames to RGB, upright, with square pixels and of one size.

    FFmpeg converts and scales in one pass, and straight to the small size: converting a whole frame
    to RGB first takes longer than decoding it. Shrinking averages over areas, enlarging is bicubic.
    """

    def __init__(self, pixel_aspect: Fraction | None, size: tuple[int, int] | None):
        """Takes the stream's pixel aspect, and the (height, width) to cover; None: as it is."""
        self._pixel_aspect, self._size = float(pixel_aspect or 1), size
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [height, width, 3]."""
        turns = round(frame.rotation / 90)
        height, width = frame.height, max(round(frame.width * self._pixel_aspect), 1)
        size = (height, width) if self._size is None else self._size[:: -1 if turns % 2 else 1]
        scale = max(size[0] / height, size[1] / width)
        scaled = [max(round(height * scale), size[0]), max(round(width * scale), size[1])]
        method = Interpolation.AREA if scale < 1 else Interpolation.BICUBIC
        image = self._reformatter.reformat(
            frame, scaled[1], scaled[0], "rgb24", interpolation=method
        ).to_ndarray()
        top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
        return np.rot90(image[top : top + size[0], left : left + size[1]], turns)


def read_comment(path: str | os.PathLike) -> str:
    """The text that a video file was given when it was written; "" if there is none.

    Raises:
      VideoReadError: the file is missing or no video.
    """
    with _open_video(path) as stream:
        return stream.container.metadata.get("comment", "")


def read_video(
    path: str | os.PathLike,
    *,
    fps: float,
    start: int = 0,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    info: VideoInfo | None = None,
) -> np.ndarray:
    """Decodes a video resampled to `fps`: frame n is the one nearest to the time n / fps.

    Works on timestamps, so that variable rates are right; a rotation noted by a phone is applied.

    Args:
      path: any file FFmpeg reads (MP4, WebM, MOV, AVI, GIF, MKV ...).
      fps: frames per second of the result.
      start: first frame of the result, counted at `fps`.
      num_frames: how many frames; all to the end when None.
      size: (height, width) to scale to, so that a frame just covers it, and to crop to around the
        centre; None keeps the size.
      info: from `probe_video`, when the caller has it already.

    Returns:
      uint8 [num_frames, height, width, 3].

    Raises:
      VideoReadError: the file is missing, no video, damaged, or ends before the last frame asked.
    """
    info = info or probe_video(path)
    num_frames = info.num_frames(fps) - start if num_frames is None else num_frames
    frames = read_frames(
        path, fps=fps, start=start, num_frames=num_frames, size=size, info=info, num_threads=0
    )
    video = None
    for n, image in enumerate(frames):
        if video is None:
            video = np.empty((num_frames, *image.shape), np.uint8)
        video[n] = image
    return video


def read_frames(
    path: str | os.PathLike,
    *,
    fps: float,
    start: int,
    num_frames: int,
    size: tuple[int, int] | None,
    info: VideoInfo,
    num_threads: int,
) -> Iterator[np.ndarray]:
    """The frames of `read_video`, one after the other; a frame that is held comes more than once.

    Args:
      path: as for `read_video`, like all other arguments.
      fps: of the result.
      start: first frame.
      num_frames: how many frames.
      size: (height, width); None keeps that of the first frame.
      info: from `probe_video`.
      num_threads: of the decoder; 0 for one a core.

    Returns:
      Iterator of uint8 [height, width, 3].

    Raises:
      VideoReadError: as `read_video`, while iterating.
    """
    available = info.num_frames(fps)
    if start < 0 or num_frames < 1 or start + num_frames > available:
        wanted = f"frames {start} to {start + num_frames - 1}"
        raise VideoReadError(path, f"{wanted} asked, but it has {available} at {fps:g} fps")
    times = [n / fps for n in range(start, start + num_frames)]
    shown = None
    with _open_video(path) as stream:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        to_rgb = _RGBConverter(stream.sample_aspect_ratio, size)
        for frame in _shown_frames(path, stream, info, times):
            if frame is not shown:
                shown, image = frame, to_rgb(frame)
            yield image
