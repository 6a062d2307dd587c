"""Videos and pictures, from files and to files; whatever FFmpeg does for this project is here.

What a file's frames are, when each is shown and which way up, is decided in the first half alone:
by `VideoInfo`, `_shown_frames` and `_RGBConverter`. Files that are written appear only when they
are complete.
"""

import contextlib
import dataclasses
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from etils import epath
from jaxtyping import Float32, Num, UInt8
from PIL import Image, ImageDraw, ImageFont

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

Picture = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "time height width 3"]
"""A clip as bytes."""
Video = Float32[np.ndarray, "time height width 3"]
"""A clip in [-1, 1]."""

MAX_PIXELS = 2**26  # of a frame, as 8192×8192; decoding more takes gigabytes for a damaged header

# --- Pixels ------------------------------------------------------------------------------------


def to_uint8(frames: Num[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Maps floats in [-1, 1], clipped, to bytes 0..255."""
    scaled = (np.clip(np.asarray(frames, np.float32), -1.0, 1.0) + 1.0) * 127.5
    return np.rint(scaled).astype(np.uint8)


def to_float(frames: Num[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Maps bytes 0..255 to [-1, 1]; the inverse of `to_uint8`."""
    return np.asarray(frames).astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def as_size(resolution: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a resolution: both at once, or the side of a square."""
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution
    return height, width


def resize_and_crop(frame: Picture, size: tuple[int, int]) -> Picture:
    """Scales a frame until it just covers `size`, (height, width), and keeps the centre.

    Bicubic, with the filter widened when shrinking (antialiased). Scale and crop are one operation,
    so a crop may begin between two pixels and stays exactly central.
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


# --- Reading -----------------------------------------------------------------------------------


class VideoReadError(UserError):
    """A video file that cannot be decoded, with its `path` and the `reason` in words."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"cannot read video {path}: {reason}")
        self.path, self.reason = Path(path), reason


def frames_in(seconds: float, fps: float) -> int:
    """How many frames a duration has; a tenth of a frame is forgiven, as containers round times."""
    return math.floor(seconds * fps + 0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The times of a video, in seconds."""

    duration: float  # from the first frame's appearance to the last one's disappearance
    frame_period: float  # the usual time between two frames
    start_time: float  # timestamp of the first frame; all other times count from it

    @property
    def fps(self) -> float:
        """The file's own rate in frames per second."""
        return 1 / self.frame_period

    def num_frames(self, fps: float) -> int:
        """How many frames the video has when resampled to `fps` frames per second."""
        return max(1, frames_in(self.duration, fps))


@contextlib.contextmanager
def _open_video(path: str | os.PathLike) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video stream; any error of FFmpeg's becomes a `VideoReadError`."""
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoReadError(path, "it has no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise VideoReadError(
                    path, f"frames of {stream.width}×{stream.height} are more than 8192×8192 pixels"
                )
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise VideoReadError(path, getattr(error, "strerror", None) or str(error)) from error


def _timed_frames(
    container: InputContainer, stream: VideoStream
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decoded frames with their timestamps in seconds; a missing one continues the last."""
    period = float(1 / stream.average_rate) if stream.average_rate else 0.04
    time = -period
    for packet in container.demux(stream):
        # Half a packet, at the end of a truncated file, would take whole frames along with it.
        for frame in () if packet.is_corrupt else packet.decode():
            time = time + period if frame.time is None else frame.time
            yield time, frame


def probe_video(path: str | os.PathLike) -> VideoInfo:
    """Reads the timestamps of all frames of a file, and decodes the first frame only.

    The header is not trusted: a truncated file often promises more than it holds. A file without a
    frame that can be decoded is a `VideoReadError`.
    """
    with _open_video(path) as opened:
        start_time, _ = next(_timed_frames(*opened), (None, None))
        if start_time is None:
            raise VideoReadError(path, "it has no frames")
    with _open_video(path) as (container, stream):
        info = timing(stream, container.demux(stream), start_time)
    if info is None:
        raise VideoReadError(path, "it has no complete frames")
    return info


def timing(
    stream: VideoStream, packets: Iterable[av.Packet], start_time: float = 0.0
) -> VideoInfo | None:
    """What the timestamps of all packets of a stream say, without decoding; None without packets.

    `start_time` is the timestamp of the first frame, in seconds.
    """
    found: list[tuple[int, int]] = []
    for packet in packets:
        if packet.size and not packet.is_corrupt and not packet.is_discard:
            time = packet.dts if packet.pts is None else packet.pts
            found.append((len(found) if time is None else time, packet.duration or 0))
    if not found:
        return None
    found.sort()
    unit = _time_unit(stream)
    times = np.array([time for time, _ in found], np.float64) * unit
    gaps = np.diff(times)
    fallback = float(1 / stream.average_rate) if stream.average_rate else 0.04
    # The short gaps: in a variable rate, the long ones are frames that were held.
    period = float(np.percentile(gaps[gaps > 0], 10)) if (gaps > 0).any() else fallback
    duration = times[-1] - times[0] + (found[-1][1] * unit or period)
    return VideoInfo(duration=float(duration), frame_period=period, start_time=start_time)


def _time_unit(thing: VideoStream | av.VideoFrame) -> float:
    """Seconds of a unit of its timestamps, which everything that was read from a file has."""
    assert thing.time_base is not None
    return float(thing.time_base)


def _shown_frames(
    path: str | os.PathLike,
    container: InputContainer,
    stream: VideoStream,
    info: VideoInfo,
    times: Sequence[float],
) -> Iterator[av.VideoFrame]:
    """The frame nearest to each of the ascending `times` (seconds from the first frame).

    Precisely: the frame on the screen half a frame period later. At a constant rate that is the
    nearest frame; at a variable rate a frame that is held for long is not left too early.
    """
    none: tuple[float, av.VideoFrame | None] = (math.inf, None)
    targets = [info.start_time + time + info.frame_period / 2 for time in times]
    if targets[0] > 1.0 and stream.time_base:  # less is not worth looking for a key frame
        with contextlib.suppress(av.error.FFmpegError):
            container.seek(math.floor(targets[0] / stream.time_base), stream=stream)
    frames = _timed_frames(container, stream)
    time, frame = next(frames, none)
    if time > targets[0] and times[0] > 0:  # the container could not seek: from the beginning
        container.seek(0)
        frames = _timed_frames(container, stream)
        time, frame = next(frames, none)
    next_time, next_frame = next(frames, none)
    for target in targets:
        while next_time <= target:
            time, frame = next_time, next_frame
            next_time, next_frame = next(frames, none)
        held = (frame.duration or 0) * _time_unit(frame) if frame is not None else 0.0
        if next_frame is None and target > time + max(held, info.frame_period) * 1.5 + 1e-3:
            frame = None
        if frame is None:
            raise VideoReadError(path, f"no frame at {target - info.start_time:.2f} s; damaged?")
        yield frame


class _RGBConverter:
    """From decoded frames to RGB, upright, with square pixels and of one size.

    FFmpeg converts and scales in one pass, and straight to the small size: converting a whole frame
    to RGB first takes longer than decoding it. Shrinking averages over areas, enlarging is bicubic.
    """

    def __init__(self, pixel_aspect: Fraction | None, size: tuple[int, int] | None):
        """Takes the stream's pixel aspect, and the (height, width) to cover; None: as it is."""
        self._pixel_aspect, self._size = float(pixel_aspect or 1), size
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(self, frame: av.VideoFrame) -> Picture:
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
    """The text that a file was written with, or ""; a `VideoReadError` if it is no video."""
    with _open_video(path) as (container, _):
        return container.metadata.get("comment", "")


def coding(path: str | os.PathLike) -> tuple[str, str | None]:
    """Names of a file's codec and pixel format, as ("h264", "yuv420p")."""
    with _open_video(path) as (_, stream):
        return stream.codec_context.name, stream.codec_context.pix_fmt


def read_video(
    path: str | os.PathLike,
    *,
    fps: float,
    start: int = 0,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    info: VideoInfo | None = None,
) -> Frames:
    """Decodes a video resampled to `fps`: frame n is the one nearest to the time n / fps.

    Works on timestamps, so that variable rates are right; a rotation noted by a phone is applied.

    Args:
      path: any file FFmpeg reads (MP4, WebM, MOV, AVI, GIF, MKV ...).
      fps: frames per second of the result.
      start: first frame of the result, counted at `fps`.
      num_frames: None for all to the end.
      size: (height, width) to just cover, and to crop to around the centre; None keeps the size.
      info: from `probe_video`, when the caller has it already.

    Raises:
      VideoReadError: the file is missing, no video, damaged, or ends before the last frame asked.
    """
    info = info or probe_video(path)
    num_frames = info.num_frames(fps) - start if num_frames is None else num_frames
    frames = read_frames(
        path, fps=fps, start=start, num_frames=num_frames, size=size, info=info, num_threads=0
    )
    first = next(frames)
    video = np.empty((num_frames, *first.shape), np.uint8)
    video[0] = first
    for n, image in enumerate(frames, start=1):
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
) -> Iterator[Picture]:
    """The frames of `read_video`, one after the other; a frame that is held comes more than once.

    `num_threads` are the decoder's; 0 for one per core.
    """
    available = info.num_frames(fps)
    if start < 0 or num_frames < 1 or start + num_frames > available:
        wanted = f"frames {start} to {start + num_frames - 1}"
        raise VideoReadError(path, f"{wanted} asked, but it has {available} at {fps:g} fps")
    times = [n / fps for n in range(start, start + num_frames)]
    shown = None
    with _open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        to_rgb = _RGBConverter(stream.sample_aspect_ratio, size)
        for frame in _shown_frames(path, container, stream, info, times):
            if frame is not shown:
                shown, image = frame, to_rgb(frame)
            yield image


# --- Writing -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when all went well."""
    folder = epath.Path(path).parent
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {folder}; create it first")
    try:
        with written(path) as temporary:
            yield temporary
    except (OSError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error


def _byte_frames(video: np.ndarray, upscale: int = 1) -> Iterator[Picture]:
    """Frames as bytes, enlarged by whole pixels."""
    video = np.asarray(video)
    if video.ndim != 4 or video.shape[-1] != 3 or not video.size:
        raise ValueError(f"expected a video [time, height, width, 3], got {video.shape}")
    for frame in video:
        yield to_uint8(frame).repeat(upscale, axis=0).repeat(upscale, axis=1)


def write_mp4(
    path: str | os.PathLike, video: Video, fps: float, *,
    upscale: int = 1, crf: int = 16, comment: str = "",
) -> None:  # fmt: skip
    """Writes an MP4 that browsers play: H.264, yuv420p, BT.709, index at the front.

    Args:
      path: the file; its folder must exist, or it is a `UserError`.
      video: in [-1, 1]; odd sizes grow by one repeated line.
      fps: frames per second.
      upscale: enlarges by this whole factor without smoothing, so that 16x16 can be seen.
      crf: constant rate factor of the encoder, 0 (lossless) to 51.
      comment: text to keep in the file, which `read_comment` gives back.
    """

    def convert(image: Picture) -> av.VideoFrame:
        odd = [(0, side % 2) for side in image.shape[:2]]
        image = np.ascontiguousarray(np.pad(image, [*odd, (0, 0)], mode="edge"))
        return av.VideoFrame.from_ndarray(image, "rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )

    # The range is the limited one ("tv"), which every player expects.
    colours = dict.fromkeys(("colorspace", "color_primaries", "color_trc"), "bt709")
    options = {"crf": str(crf), "color_range": "tv"} | colours
    frames = map(convert, _byte_frames(video, upscale))
    _encode(path, frames, fps, "libx264", options, {"movflags": "+faststart"}, comment)


def write_lossless(path: str | os.PathLike, video: Video, fps: float) -> None:
    """Writes an MKV whose pixels are exactly those of the video, as bytes: FFV1, RGB.

    For measuring, which compression would disturb; most browsers do not play it.
    """
    frames = (
        av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")
        for image in _byte_frames(video)
    )
    # No random identifiers and no version strings: the same video is the same file.
    _encode(path, frames, fps, "ffv1", {}, {"fflags": "+bitexact"})


def _encode(
    path: str | os.PathLike,
    frames: Iterable[av.VideoFrame],
    fps: float,
    codec: str,
    options: dict[str, str],
    container_options: dict[str, str],
    comment: str = "",
) -> None:
    """Writes frames as one video stream, of the size and pixel format of the first of them."""
    rate = Fraction(float(fps)).limit_denominator(1001)
    with _atomic_write(path) as temporary:
        with av.open(str(temporary), "w", options=container_options) as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream(codec, rate=rate, options=options)
            assert isinstance(stream, VideoStream)
            for n, frame in enumerate(frames):
                if n == 0:
                    stream.height, stream.width = frame.height, frame.width
                    stream.pix_fmt = frame.format.name
                frame.pts, frame.time_base = n, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def write_gif(path: str | os.PathLike, video: Video, fps: float, *, upscale: int = 1) -> None:
    """Writes a GIF that loops for ever, with one palette for all frames (no flicker).

    GIF counts time in 1/100 s, so single frames may be shown 1/100 s longer than others; the sum is
    right up to 50 fps, the most that browsers play. `upscale` is as for `write_mp4`.
    """
    video = np.asarray(video)
    palette = _shared_palette(video)
    frames = (
        Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for image in _byte_frames(video, upscale)
    )
    ends = [round(100 * (n + 1) / fps) for n in range(len(video))]
    durations = [max(2, int(step)) * 10 for step in np.diff([0, *ends])]
    options = {"save_all": True, "append_images": frames, "duration": durations, "loop": 0}
    with _atomic_write(path) as temporary:
        next(frames).save(temporary, format="GIF", **options)


def _shared_palette(video: np.ndarray, max_pixels: int = 2**14) -> Image.Image:
    """A palette image of the 256 colours that serve an even sample of all pixels best."""
    pixels = video.reshape(-1, 3)
    sample = pixels[:: math.ceil(len(pixels) / max_pixels)]
    return Image.fromarray(to_uint8(sample)[None]).quantize(256, kmeans=1)


def write_image(
    path: str | os.PathLike, image: Float32[np.ndarray, "height width 3"], *, upscale: int = 1
) -> None:
    """Writes a picture, in [-1, 1], as PNG; `upscale` is as for `write_mp4`."""
    (pixels,) = _byte_frames(image[None], upscale)
    with _atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def write_contact_sheet(
    path: str | os.PathLike,
    videos: Iterable[Video],
    captions: Sequence[str] | None = None,
    *,
    max_columns: int = 8,
) -> None:
    """Writes a PNG: one row for each video, one column for each of its (evenly picked) frames.

    Frames under 64 pixels are enlarged by a whole factor, those over 256 made smaller. Captions are
    drawn above the rows. Of at most `max_columns` frames, the first and the last are always shown.
    """
    videos = list(videos)
    captions = [""] * len(videos) if captions is None else captions
    strips = [_strip(video, max_columns) for video in videos]
    width = max(strip.width for strip in strips)
    rows = [_captioned(*pair, width) for pair in zip(strips, captions, strict=True)]
    sheet = Image.new("RGB", (width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    with _atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")


def _strip(video: np.ndarray, max_columns: int, gap: int = 4) -> Image.Image:
    """Evenly picked frames of one video side by side."""
    video = np.asarray(video)
    picked = np.linspace(0, len(video) - 1, min(max_columns, len(video))).round().astype(int)
    height, width = video.shape[1:3]
    longest = max(height, width)
    scale = math.ceil(64 / longest) if longest < 64 else min(1.0, 256 / longest)
    size = (round(width * scale), round(height * scale))
    filtering = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BICUBIC
    strip = Image.new("RGB", ((size[0] + gap) * len(picked) + gap, size[1] + 2 * gap), "white")
    for column, image in enumerate(_byte_frames(video[picked])):
        cell = Image.fromarray(image).resize(size, filtering)
        strip.paste(cell, (gap + column * (size[0] + gap), gap))
    return strip


def _captioned(strip: Image.Image, caption: str, width: int) -> Image.Image:
    """The strip on white, `width` wide, below its caption broken to as many lines as it needs."""
    if not caption:
        return strip
    font = ImageFont.load_default(14)
    characters = max(8, int(width / font.getlength("n")))
    text, margin = textwrap.fill(caption, characters), 4
    box = ImageDraw.Draw(strip).multiline_textbbox((margin, margin), text, font=font)
    row = Image.new("RGB", (width, int(box[3]) + margin + strip.height), "white")
    ImageDraw.Draw(row).multiline_text((margin, margin), text, fill="black", font=font)
    row.paste(strip, (0, row.height - strip.height))
    return row


def write_video(
    path: str | os.PathLike, video: Video, fps: float, *, upscale: int = 1, comment: str = ""
) -> None:
    """Writes a video in the format that the name ends in: .mp4, .gif or .png (a contact sheet).

    Arguments are as for `write_mp4`; .gif and .png keep no comment, and .png is not enlarged.
    Another ending, or a folder that is missing, is a `UserError`.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".mp4":
        write_mp4(path, video, fps, upscale=upscale, comment=comment)
    elif suffix == ".gif":
        write_gif(path, video, fps, upscale=upscale)
    elif suffix == ".png":
        write_contact_sheet(path, [video])
    else:
        raise UserError(f"cannot write {path}: its name must end in .mp4, .gif or .png")
