"""Videos and pictures, from files and to files.

Which frames a file has and when each is shown is decided in `video_timing`, and how it looks in
`video_frames`. Files that are written appear only when they are complete.
"""

import contextlib
import itertools
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from etils import epath
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from lumiere_jax.data.pixels import Frames, Picture, Video, to_uint8
from lumiere_jax.data.video_frames import RGBConverter
from lumiere_jax.data.video_timing import (
    VideoInfo,
    VideoReadError,
    decoded,
    open_video,
    probe_video,
    shown_frames,
)
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

# --- Reading -----------------------------------------------------------------------------------


def read_comment(path: str | os.PathLike) -> str:
    """The text that a file was written with, or ""; a `VideoReadError` if it is no video."""
    with open_video(path) as (container, _):
        return container.metadata.get("comment", "")


def coding(path: str | os.PathLike) -> tuple[str, str | None]:
    """Names of a file's codec and pixel format, as ("h264", "yuv420p")."""
    with open_video(path) as (_, stream):
        return stream.codec_context.name, stream.codec_context.pix_fmt


def is_still(path: str | os.PathLike) -> bool:
    """Whether a video has one frame only, for however long it is shown."""
    with open_video(path) as (container, stream):
        return len(list(itertools.islice(decoded(container, stream), 2))) < 2


def read_video(
    path: str | os.PathLike,
    *,
    fps: float,
    start: int = 0,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    info: VideoInfo | None = None,
    num_threads: int = 0,
) -> Frames:
    """Decodes a video resampled to `fps`: frame n is the one nearest to the time n / fps.

    Works on times, so that variable rates are right. Frames are upright, as a phone notes, with
    square pixels, deinterlaced, on white where transparent, and SDR, see `video_frames`.

    Args:
      path: any file FFmpeg reads (MP4, WebM, MOV, AVI, GIF, MKV ...).
      fps: frames per second of the result.
      start: first frame of the result, counted at `fps`.
      num_frames: None for all to the end.
      size: (height, width) to just cover, and to crop to around the centre; None keeps the
        size of the first frame of the file.
      info: from `probe_video`, when the caller has it already.
      num_threads: of the decoder; 0 for one per core.

    Raises:
      VideoReadError: the file is missing, no video, damaged, or ends before the last frame asked.
    """
    info = info or probe_video(path)
    num_frames = info.num_frames(fps) - start if num_frames is None else num_frames
    frames = read_frames(
        path, fps=fps, start=start, num_frames=num_frames, size=size, info=info,
        num_threads=num_threads,
    )  # fmt: skip
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
    with_alpha: bool = False,
) -> Iterator[UInt8[np.ndarray, "height width channels"]]:
    """The frames of `read_video`, one after the other; a frame that is held comes more than once.

    `num_threads` are the decoder's; 0 for one per core. `with_alpha` gives RGBA, with straight
    alpha, in place of a white ground.
    """
    available = info.num_frames(fps)
    if start < 0 or num_frames < 1 or start + num_frames > available:
        wanted = f"frames {start} to {start + num_frames - 1}"
        raise VideoReadError(path, f"{wanted} asked, but it has {available} at {fps:g} fps")
    times = [n / fps for n in range(start, start + num_frames)]
    to_rgb = RGBConverter(size or info.size, turned=info.turned, with_alpha=with_alpha)
    shown = None
    for frame, stream in shown_frames(path, info, times, num_threads):
        if frame is not shown:
            shown, image = frame, to_rgb(frame, stream)
        yield image


# --- Writing -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when all went well."""
    folder = epath.Path(path).expanduser().parent
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
