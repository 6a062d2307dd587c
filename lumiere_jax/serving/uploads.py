"""Pictures, videos and masks that clients send: judged by their content, never by their names.

Sizes are looked at before anything is decoded, and FFmpeg and Pillow may try only the listed
formats and codecs, none of which can name other files.
"""

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from lumiere_jax.data.animated_picture import animation_info
from lumiere_jax.data.video_timing import VideoInfo, picture_stream, timing
from lumiere_jax.inference import inputs
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving.settings import Limits

PICTURES = ("PNG", "JPEG", "WEBP")
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
# Of some three hundred that FFmpeg has, those that people send; each other one is more to attack.
_CODECS = (
    "h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video",
    "mpeg1video", "msmpeg4v3", "prores", "mjpeg", "gif", "png", "apng", "webp", "ffv1", "rawvideo",
    "qtrle", "h263",
)  # fmt: skip
_MAX_PACKETS = 100_000
_SCAN, _MAX_SCANS = b"\xff\xda", 100  # start of a scan; progressive JPEGs have about ten


class UploadError(UserError):
    """A file that cannot be used; `is_foreign` if its format is not supported."""

    def __init__(self, message: str, *, is_foreign: bool = False):
        super().__init__(message)
        self.is_foreign = is_foreign


def check(
    files: Mapping[str, bytes],
    fps: float,
    least_frames: int,
    limits: Limits,
    scratch: Path,
    tell: Callable[[str], None] = lambda note: None,
    side: int | None = None,
) -> dict[str, np.ndarray]:
    """Checks and reads the files "image", "video" and "mask", see `inputs.read`.

    A video must have `least_frames` frames at the model's frame rate `fps`. `tell` is called with
    what may not have been meant so; `side` is that of the model's videos. A server calls it by
    `decoding.decode`, in a process of its own.

    Raises:
      UploadError: naming the file and what is wrong with it.
    """
    for name, content in files.items():
        try:
            _check_file(name, content, fps, limits)
        except UserError:
            raise
        except MemoryError as error:
            raise UploadError(f"{name}: is too large to be decoded; make it smaller.") from error
        except Exception as error:  # decoders raise all kinds of errors for damaged files
            raise UploadError(f"{name}: is damaged, or not a picture or video.") from error
    arrays = _read(files, fps, scratch, tell, side)
    if "video" in arrays and len(arrays["video"]) < least_frames:
        raise UploadError(
            f"video: has {len(arrays['video'])} frames at {fps:g} fps; at least {least_frames} are "
            "needed."
        )
    return arrays


def _read(
    files: Mapping[str, bytes],
    fps: float,
    scratch: Path,
    tell: Callable[[str], None],
    side: int | None,
) -> dict[str, np.ndarray]:
    """Decodes files that were checked, see `inputs.read`."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        paths = {}
        for name, content in files.items():
            kind, _ = ("", 0) if name == "video" else _picture_kind(content)
            path = Path(folder) / f"{name}.{kind.lower() or 'mp4'}"
            path.write_bytes(content)
            paths[name] = str(path)

        def without_folder(text: str) -> str:
            return text.replace(f"{folder}/", "").replace(folder, "the server")

        try:
            return inputs.read(paths, fps, side, lambda note: tell(without_folder(note)))
        except UserError as error:
            raise UploadError(without_folder(str(error))) from error
        except Exception as error:
            raise UploadError("a file is damaged and cannot be decoded.") from error


def _picture_kind(content: bytes) -> tuple[str, int]:
    """Pillow's name of a picture's format, and its number of frames; "" and 0 if it is none."""
    try:
        with Image.open(io.BytesIO(content), formats=PICTURES) as picture:
            return picture.format or "", getattr(picture, "n_frames", 1)
    except Exception:
        return "", 0


def _check_file(name: str, content: bytes, fps: float, limits: Limits) -> None:
    kind, frames = _picture_kind(content)
    if name == "video" or (name == "mask" and not kind):
        _check_video(name, content, fps, limits, _DEMUXERS)
    elif name == "image" or frames < 2:
        _check_picture(name, content, limits)
    elif kind == "PNG":
        _check_video(name, content, fps, limits, "apng")
    else:
        _check_animation(name, content, fps, limits)


def _check_picture(name: str, content: bytes, limits: Limits) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=PICTURES) as picture:
            width, height = picture.size
            _check_pixels(name, width, height, limits)
            # Each scan decodes the whole picture again, and a file has room for thousands.
            if picture.format == "JPEG" and content.count(_SCAN) > _MAX_SCANS:
                raise UploadError(f"{name}: is a JPEG with too many scans; save it again.")
            picture.load()
    except Image.DecompressionBombError as error:
        raise UploadError(
            f"{name}: has more than {limits.pixels / 1e6:.3g} million pixels; send a smaller one."
        ) from error
    except UnidentifiedImageError as error:
        raise UploadError(
            f"{name}: is not a supported picture; send a PNG, JPEG or WebP file.", is_foreign=True
        ) from error


def _check_animation(name: str, content: bytes, fps: float, limits: Limits) -> None:
    """Decodes all frames of an animated WebP, within the limits."""
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as picture:
        width, height = picture.size
        _check_pixels(name, width, height, limits)
        _check_work(name, getattr(picture, "n_frames", 1), width * height, limits)
        _check_length(name, animation_info(picture), width * height, fps, limits)


def _check_work(name: str, frames: int, pixels: int, limits: Limits) -> None:
    if frames > _MAX_PACKETS or frames * pixels > limits.decoded_pixels:
        raise UploadError(
            f"{name}: has too many frames of this size to decode; make it shorter, smaller or "
            "slower."
        )


def _check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise UploadError(
            f"{name}: has {width}×{height} pixels; at most {limits.pixels / 1e6:.3g} million are "
            "allowed."
        )


def _check_video(name: str, content: bytes, fps: float, limits: Limits, demuxers: str) -> None:
    """Decodes all frames, one after another, within the limits."""
    # Playlists and other formats that make FFmpeg open files and addresses are not listed.
    options = {
        "format_whitelist": demuxers, "protocol_whitelist": "",
        "codec_whitelist": ",".join(_CODECS),
    }  # fmt: skip
    try:
        container = av.open(io.BytesIO(content), "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise UploadError(
            f"{name}: is not a supported video; send an MP4, MOV, WebM, MKV, AVI or GIF file.",
            is_foreign=True,
        ) from error
    with container:
        stream = picture_stream(container)
        if stream is None:
            raise UploadError(f"{name}: has no frames in it.")
        if stream.codec_context is None or stream.codec_context.name not in _CODECS:
            raise UploadError(
                f"{name}: is coded in a way that is not supported; send H.264, HEVC, VP8, VP9, "
                "AV1, MPEG-4, ProRes, MJPEG, FFV1 or GIF.",
                is_foreign=True,
            )
        # Pixels that are not square are stretched, which gives more of them.
        aspect = max(float(stream.sample_aspect_ratio or 1), 1.0)
        width, height = round(stream.width * aspect), stream.height
        _check_pixels(name, width, height, limits)
        info = _check_packets(name, content, options, width * height, limits)
        _check_length(name, info, width * height, fps, limits)
        # Against sizes that the header hides; twice the limit, since codecs round sizes up.
        stream.codec_context.options = {"max_pixels": str(2 * limits.pixels)}
        size = None
        for frame in container.decode(stream):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise UploadError(f"{name}: changes its size; all frames must have the same size.")
    if size is None:
        raise UploadError(f"{name}: has no frames that can be decoded.")
    _check_length(name, info, round(size[0] * aspect) * size[1], fps, limits)


def _check_packets(
    name: str, content: bytes, options: dict[str, str], pixels: int, limits: Limits
) -> VideoInfo:
    """Checks how much work decoding is, and returns the duration; headers may say anything."""

    def counted(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        scans = 0
        for packet in packets:
            if packet.size:
                scans += max(bytes(packet).count(_SCAN), 1) if is_jpeg else 1
                _check_work(name, scans, pixels, limits)
                yield packet

    with av.open(io.BytesIO(content), "r", options=options, metadata_errors="replace") as container:
        stream = picture_stream(container)
        assert stream is not None
        is_jpeg = stream.codec_context.name == "mjpeg"
        info = timing(stream, counted(container.demux(stream)))
    if info is None:
        raise UploadError(f"{name}: has no complete frames.")
    return info


def _check_length(name: str, info: VideoInfo, pixels: int, fps: float, limits: Limits) -> None:
    if round(info.duration, 1) > limits.seconds:
        raise UploadError(f"{name}: is {info.duration:.1f} s long; at most {limits.seconds:g} s.")
    frames = info.num_frames(fps)
    if frames > limits.frames:
        raise UploadError(
            f"{name}: has {frames} frames at the model's {fps:g} fps; at most {limits.frames} are "
            "allowed."
        )
    if frames * pixels > limits.video_pixels:
        raise UploadError(
            f"{name}: has {frames} frames of {pixels / 1e6:.2g} million pixels; send a smaller or "
            "shorter one."
        )
