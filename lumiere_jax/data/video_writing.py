"""Videos to files: MP4, GIF and contact sheets; frame by frame, and never half a file."""

import contextlib
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Maps floats in [-1, 1] (clipped) to bytes 0..255, any shape."""
    scaled = (np.clip(np.asarray(frames, np.float32), -1.0, 1.0) + 1.0) * 127.5
    return np.rint(scaled).astype(np.uint8)


def to_float(frames: np.ndarray) -> np.ndarray:
    """Maps bytes 0..255 to float32 in [-1, 1], any shape; the inverse of `to_uint8`."""
    return np.asarray(frames).astype(np.float32) / np.float32(127.5) - np.float32(1.0)


@contextlib.contextmanager
def _atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when all went well."""
    path = epath.Path(path)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    try:
        with written(path) as temporary:
            yield temporary
    except (OSError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error


def _byte_frames(video: np.ndarray, upscale: int) -> Iterator[np.ndarray]:
    """Frames as uint8 [height, width, 3], enlarged by whole pixels."""
    video = np.asarray(video)
    if video.ndim != 4 or video.shape[-1] != 3 or not video.size:
        raise ValueError(f"expected a video [time, height, width, 3], got {video.shape}")
    for frame in video:
        yield to_uint8(frame).repeat(upscale, axis=0).repeat(upscale, axis=1)


def write_mp4(
    path: str | os.PathLike, video: np.ndarray, fps: float, *,
    upscale: int = 1, crf: int = 16, comment: str = "",
) -> None:  # fmt: skip
    """Writes an MP4 that browsers play: H.264, yuv420p, BT.709, index at the front.

    Args:
      path: the file; it appears only when it is complete.
      video: float32 [time, height, width, 3] in [-1, 1]; odd sizes grow by one repeated line.
      fps: frames per second.
      upscale: enlarges by this whole factor without smoothing, so that 16x16 can be seen.
      crf: constant rate factor of the encoder, 0 (lossless) to 51.
      comment: text to keep in the file, which `video_reading.read_comment` gives back.

    Raises:
      UserError: the folder is missing or cannot be written.
    """

    def prepare(stream: av.VideoStream) -> None:
        context, stream.pix_fmt = stream.codec_context, "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = 1  # all BT.709
        context.color_range = 1  # limited ("TV") range, the one that every player expects

    def convert(image: np.ndarray) -> av.VideoFrame:
        odd = [(0, side % 2) for side in image.shape[:2]]
        image = np.pad(image, [*odd, (0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")

    options = {"movflags": "+faststart"}
    images = _byte_frames(video, upscale)
    codec = {"crf": str(crf)}
    _encode(path, images, fps, "libx264", codec, options, prepare, convert, comment)


def write_lossless(path: str | os.PathLike, video: np.ndarray, fps: float) -> None:
    """Writes an MKV whose pixels are exactly those of the video, as bytes: FFV1, RGB.

    For measuring, which compression would disturb; most browsers do not play it.

    Args:
      path: the file; it appears only when it is complete.
      video: float32 [time, height, width, 3] in [-1, 1].
      fps: frames per second.

    Raises:
      UserError: the folder is missing or cannot be written.
    """

    def prepare(stream: av.VideoStream) -> None:
        stream.pix_fmt = "bgr0"

    def convert(image: np.ndarray) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")

    # No random identifiers and no version strings: the same video is the same file.
    options = {"fflags": "+bitexact"}
    _encode(path, _byte_frames(video, 1), fps, "ffv1", {}, options, prepare, convert)


def _encode(
    path: str | os.PathLike,
    images: Iterator[np.ndarray],
    fps: float,
    codec: str,
    codec_options: dict[str, str],
    container_options: dict[str, str],
    prepare: Callable[[av.VideoStream], None],
    convert: Callable[[np.ndarray], av.VideoFrame],
    comment: str = "",
) -> None:
    """Encodes uint8 images; `prepare` sets the stream up, `convert` makes its frames."""
    rate = Fraction(float(fps)).limit_denominator(1001)
    with _atomic_write(path) as temporary:
        with av.open(str(temporary), "w", options=container_options) as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream(codec, rate=rate, options=codec_options)
            prepare(stream)
            for n, image in enumerate(images):
                frame = convert(image)
                if n == 0:
                    stream.height, stream.width = frame.height, frame.width
                frame.pts, frame.time_base = n, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def write_gif(path: str | os.PathLike, video: np.ndarray, fps: float, *, upscale: int = 1) -> None:
    """Writes a GIF that loops for ever, with one palette for all frames (no flicker).

    GIF counts time in 1/100 s, so single frames may be shown 1/100 s longer than others; the sum is
    right up to 50 fps, the most that browsers play.

    Args:
      path: the file; it appears only when it is complete.
      video: float32 [time, height, width, 3] in [-1, 1].
      fps: frames per second.
      upscale: enlarges by this whole factor without smoothing.

    Raises:
      UserError: the folder is missing or cannot be written.
    """
    video = np.asarray(video)
    palette = _shared_palette(video)
    frames = (
        Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for image in _byte_frames(video, upscale)
    )
    ends = [round(100 * (n + 1) / fps) for n in range(len(video))]
    durations = [max(2, int(step)) * 10 for step in np.diff([0, *ends])]
    with _atomic_write(path) as temporary:
        first = next(frames)
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames,
            duration=durations,
            loop=0,
        )


def _shared_palette(video: np.ndarray, max_pixels: int = 2**14) -> Image.Image:
    """A palette image of the 256 colours that serve an even sample of all pixels best."""
    num_pixels = math.prod(video.shape[:3])
    every = math.ceil(num_pixels / max_pixels)
    sample = video.reshape(num_pixels, 3)[::every]
    return Image.fromarray(to_uint8(sample)[None]).quantize(256, kmeans=1)


def write_image(path: str | os.PathLike, image: np.ndarray, *, upscale: int = 1) -> None:
    """Writes a PNG.

    Args:
      path: the file; it appears only when it is complete.
      image: float32 [height, width, 3] in [-1, 1].
      upscale: enlarges by this whole factor without smoothing.

    Raises:
      UserError: the folder is missing or cannot be written.
    """
    (pixels,) = _byte_frames(image[None], upscale)
    with _atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def write_contact_sheet(
    path: str | os.PathLike,
    videos: Iterable[np.ndarray],
    captions: Sequence[str] | None = None,
    *,
    max_columns: int = 8,
) -> None:
    """Writes a PNG: one row for each video, one column for each of its (evenly picked) frames.

    Frames under 64 pixels are enlarged by a whole factor, those over 256 made smaller.

    Args:
      path: the file; it appears only when it is complete.
      videos: each float32 [time, height, width, 3] in [-1, 1].
      captions: one for each video, drawn above its row.
      max_columns: the most frames to show of each video; the first and the last are among them.

    Raises:
      UserError: the folder is missing or cannot be written.
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
    if max(height, width) < 64:
        scale = math.ceil(64 / max(height, width))
    else:
        scale = min(1.0, 256 / max(height, width))
    size = (round(width * scale), round(height * scale))
    filtering = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BICUBIC
    strip = Image.new("RGB", ((size[0] + gap) * len(picked) + gap, size[1] + 2 * gap), "white")
    for column, image in enumerate(_byte_frames(video[picked], 1)):
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
    path: str | os.PathLike, video: np.ndarray, fps: float, *, upscale: int = 1, comment: str = ""
) -> None:
    """Writes a video in the format that the name ends in: .mp4, .gif or .png (a contact sheet).

    Args:
      path: the file; it appears only when it is complete.
      video: float32 [time, height, width, 3] in [-1, 1].
      fps: frames per second; a contact sheet has no use for it.
      upscale: enlarges .mp4 and .gif by this whole factor without smoothing.
      comment: text that an .mp4 keeps.

    Raises:
      UserError: another ending, or the folder is missing or cannot be written.
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
