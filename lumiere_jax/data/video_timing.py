"""Which frames a video file has, and when each of them is shown; decided here for all uses.

A file's timestamps may be missing (AVI has none), rounded (Matroska keeps milliseconds), repeated,
or jump by hours, and its header may say anything. What is read is decided by what its packets and
frames show; `VideoInfo.clock` keeps that, so that a part of a video is read as the whole would be.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import numpy as np
from av.container import Container, InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from jaxtyping import Float64

from lumiere_jax.data.finding import ENDLESS, is_endless
from lumiere_jax.data.video_frames import (
    ShownFrame,
    deinterlaced,
    name_colours,
    orientation,
    shown_size,
    treatments,
)
from lumiere_jax.runtime.errors import UserError

MAX_PIXELS = 2**26  # of a frame, as 8192×8192; decoding more takes gigabytes for a damaged header
MAX_HOLD = 10.0
"""Seconds that a frame is shown at most: a longer gap between timestamps is a cut, not a pause."""

_SHORTEST = 1e-3  # seconds that a frame is shown at least; less is no time that can be believed
_ROUNDING = 0.00105  # seconds by which timestamps in milliseconds are off, and a little more
_FALLBACK_RATE = 25.0
_FEW = 8  # frames that tell whether packets are frames
_MARGINS = (0.0, 2.0, 20.0)  # seconds before a frame at which a key frame is looked for
_RATES = [Fraction(n * 1000, d) for n in (24, 25, 30, 48, 50, 60, 120) for d in (1000, 1001)]
# Containers that say when each frame is shown. Of others FFmpeg may guess it, wrongly where frames
# are reordered; of AVI, and of what is stored in AVI's way within Matroska, it always does.
_TIMED_FORMATS = {"mov", "mpegts", "flv", "gif", "apng", "mxf", "ogg"}
# Containers that say it for some frames only; FFmpeg's guesses depend on where reading began.
_BARE_FORMATS = {"mpegvideo", "h264", "hevc", "m4v", "vc1", "obu"}  # for none at all
_SPARSE_FORMATS = _BARE_FORMATS | {"mpeg"}
_PLAYLISTS = {"concat", "hls", "dash", "sdp", "imf"}  # which would read files beside them
_REORDERING_CODECS = {"h264", "hevc"}  # whose headers do not always say that they reorder
_B_VOP = re.compile(rb"\x00\x00\x01\xb6[\x80-\xbf]")  # ISO/IEC 14496-2: start code, coding type 2
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave transparency out


class VideoReadError(UserError):
    """A video file that cannot be decoded, with its `path` and the `reason` in words."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"cannot read video {path}: {reason}")
        self.path, self.reason = Path(path), reason


def frames_in(seconds: float, fps: float) -> int:
    """How many frames a duration has; a tenth of a frame is forgiven, as containers round times."""
    return math.floor(seconds * fps + 0.1)


class Clock(Protocol):
    """How the times of a file's frames are found."""

    def timed(
        self, frames: Iterator[av.VideoFrame], unit: float, is_start: bool
    ) -> Iterator[ShownFrame]:
        """Frames with their times; `is_start` if the first one is the file's first.

        `unit` is that of the timestamps, in seconds.
        """

    def timestamp(self, time: float) -> float:
        """What the file calls a time, in seconds: where to look for the frame that is shown."""


@dataclasses.dataclass(frozen=True)
class Timestamps:
    """The clock of a file whose frames carry the times at which they are shown."""

    start: float  # timestamp of the first frame, in seconds
    grid: float | None = None  # seconds of which all times are multiples, but for rounding
    gaps: tuple[tuple[float, float], ...] = ()  # seconds from the start, and how many are taken out

    def time(self, timestamp: float) -> float:
        """When the frame with a timestamp (in seconds) appears, in seconds from the first one."""
        since = timestamp - self.start
        since -= sum(seconds for begin, seconds in self.gaps if since > begin + 1e-6)
        return since if self.grid is None else round(since / self.grid) * self.grid

    def timestamp(self, time: float) -> float:
        """The inverse of `time`."""
        for begin, seconds in self.gaps:
            time += seconds if time > begin + 1e-6 else 0.0
        return self.start + time

    def timed(
        self, frames: Iterator[av.VideoFrame], unit: float, is_start: bool
    ) -> Iterator[ShownFrame]:
        """See `Clock`."""
        last = -math.inf
        for frame in frames:
            if frame.pts is None:
                continue
            time = self.time(frame.pts * unit)
            if time > last:
                last = time
                yield ShownFrame(time, min((frame.duration or 0) * unit, MAX_HOLD), frame)


@dataclasses.dataclass(frozen=True)
class DecodedOrder:
    """The clock of a file whose timestamps cannot be trusted: frames were counted by decoding all.

    A part of it is read from a key frame on whose mark, its timestamp, no other frame has.
    """

    times: Float64[np.ndarray, " frame"]  # seconds from the first one
    last_held: float  # seconds that the last frame is shown
    entries: dict[int, int]  # number of a key frame by its mark
    timestamps: tuple[tuple[float, float], ...]  # time and timestamp of each entry, in seconds

    def timestamp(self, time: float) -> float:
        """The timestamp of the last entry at or before a time."""
        before = [timestamp for begin, timestamp in self.timestamps if begin <= time]
        return before[-1] if before else -math.inf

    def timed(
        self, frames: Iterator[av.VideoFrame], unit: float, is_start: bool
    ) -> Iterator[ShownFrame]:
        """See `Clock`."""
        number = 0 if is_start else None
        last = len(self.times) - 1
        for frame in frames:
            if number is None and frame.key_frame and frame.pts is not None:
                number = self.entries.get(frame.pts)
            if number is None:
                continue
            if number > last:
                return
            time = float(self.times[number])
            held = self.last_held if number == last else float(self.times[number + 1]) - time
            yield ShownFrame(time, held, frame)
            number += 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video is: times in seconds, and the size of its pictures."""

    duration: float  # from the first frame's appearance to the last one's disappearance
    frame_period: float  # the usual time between two frames
    clock: Clock
    size: tuple[int, int] = (0, 0)  # (height, width) of the first frame, as it is shown
    turned: tuple[int, bool] = (0, False)  # `orientation` of frames that have none of their own
    treated: tuple[str, ...] = ()  # what else than decoding is done to its frames, in words

    @property
    def fps(self) -> float:
        """The file's own rate in frames per second."""
        return 1 / self.frame_period

    @property
    def own_frames(self) -> int:
        """How many frames the file has, if its rate is constant."""
        return round(self.duration / self.frame_period)

    def num_frames(self, fps: float) -> int:
        """How many frames the video has when resampled to `fps` frames per second."""
        return max(1, frames_in(self.duration, fps))


# --- Opening and decoding ----------------------------------------------------------------------


@contextlib.contextmanager
def open_video(path: str | os.PathLike) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video stream; any error of FFmpeg's becomes a `VideoReadError`."""
    path = os.path.expanduser(path)
    if is_endless(path):
        raise VideoReadError(path, ENDLESS)
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if _formats_of(container) & _PLAYLISTS:
                raise VideoReadError(path, "it is a list of other files, not a video")
            stream = picture_stream(container)
            if stream is None:
                raise VideoReadError(path, "it has no video stream")
            if stream.codec_context is None:
                raise VideoReadError(path, "FFmpeg does not know its codec")
            _check_pixels(path, stream.height, stream.width)
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise VideoReadError(path, _in_words(path, error)) from error


def _check_pixels(path: str | os.PathLike, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise VideoReadError(path, f"frames of {width}×{height} are more than 8192×8192 pixels")


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is no cover picture, or else the first; None without any."""
    streams = container.streams.video
    covers = av.stream.Disposition.attached_pic
    moving = [stream for stream in streams if not stream.disposition & covers]
    return next(iter([*moving, *streams]), None)


def _in_words(path: str | os.PathLike, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    try:
        with open(path, "rb") as file:
            begin = file.read(12)
    except OSError:
        return reason
    if not begin:
        return "it is empty (0 bytes)"
    if begin[4:8] in (b"ftyp", b"mdat", b"wide", b"free") and not _has_index(path):
        return (
            "it is truncated: its index (moov), which such a file ends with, is missing, so that "
            f"none of its {os.path.getsize(path):,} bytes can be read; copy or download it again"
        )
    return reason


def _has_index(path: str | os.PathLike) -> bool:
    """Whether an MP4 or MOV file has the box that says where its frames are."""
    with open(path, "rb") as file:
        size = os.path.getsize(path)
        place = 0
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:16])
            if head[4:8] in (b"moov", b"moof"):
                return place + length <= size
            if length < 8:  # 0: to the end of the file
                return False
            place += length
    return False


def decoded(
    container: InputContainer, stream: VideoStream, *, is_start: bool = True
) -> Iterator[av.VideoFrame]:
    """The frames of a stream in the order in which they are shown.

    Where it was entered in the middle, frames before the first key frame are left out: they may
    need others that were not decoded.
    """
    decoder, context = _decoder(stream), stream.codec_context
    # Those that the container names; decoding replaces them.
    colours = context.color_primaries, context.color_trc, context.colorspace
    for packet in _packets(container, stream):
        for frame in _decoded_from(decoder, packet):
            is_start = is_start or frame.key_frame
            if is_start:
                name_colours(frame, *colours)
                yield frame


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Those of a stream, as far as its file makes sense; the last one is empty."""
    try:
        yield from container.demux(stream)
    except (av.error.InvalidDataError, av.error.PatchWelcomeError):
        yield av.Packet()


def _decoded_from(decoder: VideoCodecContext, packet: av.Packet) -> Sequence[av.VideoFrame]:
    """The frames that are ready after a packet; one that makes no sense is passed over."""
    try:
        return () if _is_half(packet) else decoder.decode(packet if packet.size else None)
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return ()


def _is_half(packet: av.Packet) -> bool:
    """Whether it is the end of a truncated file, which would take whole frames along with it.

    In a stream (MPEG-TS, MPEG-PS, or bare) all that follow a loss may be, and are decoded.
    """
    return packet.is_corrupt and not _formats(packet.stream) & (_SPARSE_FORMATS | {"mpegts"})


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """What decodes a stream: with its transparency, if it has any."""
    context = stream.codec_context
    notes = {name.lower(): value for name, value in stream.metadata.items()}  # a tag is in capitals
    if notes.get("alpha_mode") != "1" or context.name not in _ALPHA_DECODERS:
        return context
    with_alpha = av.CodecContext.create(_ALPHA_DECODERS[context.name], "r")
    assert isinstance(with_alpha, VideoCodecContext)
    with_alpha.extradata = context.extradata
    return with_alpha


def time_unit(stream: VideoStream) -> float:
    """Seconds of a unit of a stream's timestamps, which every stream that is read has."""
    assert stream.time_base is not None
    return float(stream.time_base)


# --- What a file shows -------------------------------------------------------------------------


class _Packets(NamedTuple):
    """What the packets of a stream say, in the order in which they are stored."""

    shown: list[int | None]  # timestamps of being shown
    decoded: list[int | None]  # timestamps of being decoded
    durations: list[int]
    has_b_vops: bool = False  # frames of MPEG-4 (part 2, as Xvid) that need a later one

    @classmethod
    def of(cls, stream: VideoStream, packets: Iterable[av.Packet]) -> "_Packets":
        """Of those that hold a frame which is shown."""
        codec, has_b_vops = stream.codec_context.name, False
        values: tuple[list, list, list] = [], [], []
        for packet in packets:
            if not packet.size or _is_half(packet) or packet.is_discard:
                continue
            if codec == "vp8" and not bytes(packet)[0] & 0x10:  # only for others to refer to
                continue
            if codec == "mpeg4" and not has_b_vops:
                has_b_vops = bool(_B_VOP.search(bytes(packet)))
            for found, value in zip(
                values, (packet.pts, packet.dts, packet.duration or 0), strict=True
            ):
                found.append(value)
        return cls(*values, has_b_vops)

    def are_ordered(self, stream: VideoStream) -> bool:
        """Whether the timestamps of being shown can be trusted."""
        if None in self.shown or len(set(self.shown)) < len(self.shown):
            return False
        known = np.array([time for time in self.decoded if time is not None], np.int64)
        if (np.diff(known) < 0).any():
            return False
        steps = np.diff(np.sort(np.array(self.shown, np.int64))) * time_unit(stream)
        if len(steps) and np.median(steps) < _SHORTEST:
            return False
        context, formats = stream.codec_context, _formats(stream)
        if formats & _SPARSE_FORMATS or self.has_b_vops:  # the latter are copied from AVI often
            return False
        is_timed = bool(formats & _TIMED_FORMATS) or "matroska" in formats and not _is_avi(stream)
        if not context.has_b_frames and (is_timed or context.name not in _REORDERING_CODECS):
            return True
        if _is_avi(stream):
            return False
        # Reordering would show in their order, if they were true; AVI's are not.
        return bool((np.diff(np.array(self.shown, np.int64)) < 0).any())

    def places(self, num_frames: int) -> Float64[np.ndarray, " frame"] | None:
        """Ascending timestamps, of whichever kind has one for each of the decoded frames."""
        for times in (self.decoded, self.shown):
            known = np.array([time for time in times if time is not None], np.float64)
            if len(known) == num_frames and (np.diff(known) > 0).all():
                return known
        return None


def _formats(stream: VideoStream) -> set[str]:
    """FFmpeg's names of a file's container."""
    return _formats_of(stream.container)


def _formats_of(container: Container) -> set[str]:
    return set(container.format.name.split(","))


def _is_avi(stream: VideoStream) -> bool:
    """Whether frames are stored as in AVI, which knows no times; Matroska has a way to."""
    has_fourcc = bool(stream.codec_context.codec_tag.strip("\0"))
    formats = _formats(stream)
    return "avi" in formats or ("matroska" in formats and has_fourcc)


def timing(
    stream: VideoStream, packets: Iterable[av.Packet], first: float | None = None
) -> VideoInfo | None:
    """What the timestamps of all packets of a stream say, without decoding; None without packets.

    `first` is the timestamp of the first frame that can be decoded, in seconds.
    """
    found = _Packets.of(stream, packets)
    return _timing(stream, found, first) if found.shown else None


def _timing(stream: VideoStream, found: _Packets, first: float | None) -> VideoInfo:
    unit = time_unit(stream)
    places = [place for place in map(_either, found.shown, found.decoded) if place is not None]
    stamps = np.unique(np.array(places or [0], np.float64)) * unit
    if first is not None:
        stamps = stamps[stamps >= first - 1e-6] if (stamps >= first - 1e-6).any() else stamps
    start = float(stamps[0])
    nominal = nominal_period(stream)
    steps, gaps = _without_jumps(np.diff(stamps), nominal)
    times, period, grid = _paced(steps, unit, _stated_rates(stream), nominal)
    held = min(max(found.durations[-1], 0) * unit, MAX_HOLD)
    held = held if held > 1.5 * period or not len(steps) and held else period
    clock = Timestamps(start, grid, gaps)
    return VideoInfo(duration=float(times[-1]) + held, frame_period=period, clock=clock)


def _either(shown: int | None, decoded: int | None) -> int | None:
    return decoded if shown is None else shown


def nominal_period(stream: VideoStream) -> float:
    """Seconds of a frame as the file states it, if that is credible."""
    for rate in _stated_rates(stream):
        if 1 / MAX_HOLD <= rate <= 1 / _SHORTEST:
            return 1 / rate
    return 1 / _FALLBACK_RATE


def _stated_rates(stream: VideoStream) -> list[float]:
    rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    return [float(rate) for rate in rates if rate]


def _without_jumps(
    steps: Float64[np.ndarray, " step"], nominal: float
) -> tuple[Float64[np.ndarray, " step"], tuple[tuple[float, float], ...]]:
    """Steps of which none is longer than `MAX_HOLD`, and where how many seconds were taken out."""
    short = steps[steps <= MAX_HOLD]
    usually = usual(short) if len(short) else min(nominal, MAX_HOLD)
    if not (steps > MAX_HOLD).any():
        return steps, ()
    if len(short) < len(steps) / 2:  # slides, each of which is shown for long
        usually = MAX_HOLD
    since = np.concatenate([[0.0], np.cumsum(steps)])
    jumps = np.flatnonzero(steps > MAX_HOLD)
    gaps = tuple((float(since[jump]), float(steps[jump] - usually)) for jump in jumps)
    return np.where(steps > MAX_HOLD, usually, steps), gaps


def usual(steps: Float64[np.ndarray, " step"]) -> float:
    """The usual one of many time steps: the mean of those around the quantile that most are near.

    One quantile would take the jitter of a phone's clock, or a few frames in quick succession, for
    the rate; the mean of all would take pauses along.
    """
    steps = steps[steps > 0]
    near = [steps[abs(steps / at - 1) <= 0.45] for at in np.quantile(steps, (0.5, 0.25, 0.1, 0.75))]
    return float(np.mean(max(near, key=len)))


def _paced(
    steps: Float64[np.ndarray, " step"], unit: float, stated: Sequence[float], nominal: float
) -> tuple[Float64[np.ndarray, " frame"], float, float | None]:
    """Times of frames, the usual step between them, and the grid that both are put on, if any."""
    times = np.concatenate([[0.0], np.cumsum(steps)])
    if not len(steps):
        return times, nominal, None
    period, grid = usual(steps), _grid(times, steps, unit, stated)
    if grid is not None:
        times, period = np.rint(times / grid) * grid, round(period / grid) * grid
    return times, period, grid


def _grid(
    times: Float64[np.ndarray, " frame"],
    steps: Float64[np.ndarray, " step"],
    unit: float,
    stated: Sequence[float],
) -> float | None:
    """Seconds of which all times are multiples, up to rounding; None if there are none.

    The stated rates, and those in use, are preferred to one that is fitted.
    """
    period = usual(steps)
    counts = np.concatenate([[0], np.cumsum(np.rint(steps / period))])
    if (np.diff(counts) < 1).any():
        return None
    fitted = float((counts @ times) / (counts @ counts))
    allowed = min(max(1.05 * unit, _ROUNDING), period / 4)
    candidates = [1 / rate for rate in stated] + [float(1 / rate) for rate in _RATES] + [fitted]
    for candidate in sorted(candidates[:-1], key=lambda one: abs(one - fitted)) + [fitted]:
        if abs(times - counts * candidate).max() <= allowed:
            return candidate
    return None


def _counted_by_decoding(path: str | os.PathLike, found: _Packets) -> VideoInfo:
    """What a file is whose timestamps cannot be trusted: all of it is decoded once."""
    marks: list[int | None] = []
    keys: list[tuple[int, int]] = []
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        unit, nominal, stated = time_unit(stream), nominal_period(stream), _stated_rates(stream)
        is_avi, is_sparse = _is_avi(stream), bool(_formats(stream) & _SPARSE_FORMATS)
        is_bare = bool(_formats(stream) & _BARE_FORMATS)
        for number, frame in enumerate(decoded(container, stream)):
            if frame.key_frame and frame.pts is not None:
                keys.append((frame.pts, number))
            marks.append(frame.pts)
    steps = _decoded_steps(marks, found, unit, nominal, is_guessed=is_avi)
    if len(steps) and (is_bare or (is_sparse and _is_even(marks, unit, usual(steps)))):
        steps = np.full(len(steps), usual(steps))
    times, period, _ = _paced(steps, unit, stated, nominal)
    uses = collections.Counter(marks)
    entries = {mark: number for mark, number in keys if uses[mark] == 1 and not is_sparse}
    stamps = tuple((float(times[number]), mark * unit) for mark, number in entries.items())
    clock = DecodedOrder(times, period, entries, tuple(sorted(stamps)))
    return VideoInfo(duration=float(times[-1]) + period, frame_period=period, clock=clock)


def _decoded_steps(
    marks: Sequence[int | None], found: _Packets, unit: float, nominal: float, is_guessed: bool
) -> Float64[np.ndarray, " step"]:
    """Seconds between decoded frames, whose timestamps are `marks`."""
    stamps = np.array([math.nan if mark is None else mark * unit for mark in marks], np.float64)
    steps = np.diff(stamps)
    places = found.places(len(marks))
    if is_guessed and places is None:
        return np.full(len(steps), nominal)
    if places is not None and (is_guessed or not (steps > 0).all()):
        steps = np.diff(places) * unit  # the n-th frame is shown at the n-th of the packets' times
    is_good = (steps >= _SHORTEST) & (steps <= MAX_HOLD)
    return np.where(is_good, steps, usual(steps[is_good]) if is_good.any() else nominal)


def _is_even(marks: Sequence[int | None], unit: float, period: float) -> bool:
    """Whether times as a whole are those of one rate, though guesses between them may wobble."""
    first, last = marks[0], marks[-1]
    if first is None or last is None:
        return False
    return abs((last - first) * unit - period * (len(marks) - 1)) <= period / 2


def probe_video(path: str | os.PathLike) -> VideoInfo:
    """What a file is: reads all its packets, and decodes the first frame only, where that will do.

    The header is not trusted: a truncated file often promises more than it holds. A file without a
    frame that can be decoded is a `VideoReadError`.
    """
    path = os.path.expanduser(path)
    with open_video(path) as (container, stream):
        frames = decoded(container, stream)
        frame = next(frames, None)
        if frame is None:
            raise VideoReadError(path, "it has no frames that can be decoded")
        first = None if frame.pts is None else frame.pts * time_unit(stream)
        size, treated = shown_size(frame, stream), treatments(frame, stream)
        turned = orientation(frame)
        _check_pixels(path, *size)  # once more: an aspect ratio may be anything, too
        few = [frame, *itertools.islice(frames, _FEW if frame.interlaced_frame else 0)]
        stamps = [one.pts * time_unit(stream) for one in few if one.pts is not None]
    with open_video(path) as (container, stream):
        found = _Packets.of(stream, _packets(container, stream))
        if not found.shown:
            raise VideoReadError(path, "it has no complete frames")
        is_ordered = found.are_ordered(stream)
        info = _timing(stream, found, first) if is_ordered else None
        if info and holds_fields(info.frame_period, stamps):
            info = None
        stated = _stated_duration(path, container, stream)
    info = info or _counted_by_decoding(path, found)
    jumps = sum(seconds for _, seconds in getattr(info.clock, "gaps", ()))
    if stated is not None and info.duration + jumps < 0.98 * stated - 0.2:
        treated += (f"truncated: {info.duration:.2f} of {stated:.2f} s can be read",)
    return dataclasses.replace(info, size=size, turned=turned, treated=treated)


def holds_fields(packet_period: float, stamps: Sequence[float]) -> bool:
    """Whether packets hold a field each, as of some camcorders, and frames are half as many.

    `stamps` are the times of the first few frames, in seconds.
    """
    steps = np.diff(np.array(stamps, np.float64))
    return bool((steps > 0).any()) and packet_period < 0.6 * usual(steps)


def _stated_duration(
    path: str | os.PathLike, container: InputContainer, stream: VideoStream
) -> float | None:
    """Seconds that a file was to have, where it can be told that its end is missing."""
    formats = _formats(stream)
    if "mov" in formats:
        end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        is_cut = end > os.path.getsize(path)
        return stream.duration * time_unit(stream) if is_cut and stream.duration else None
    if "avi" in formats and stream.frames and stream.average_rate:
        return stream.frames / float(stream.average_rate)  # empty packets count, too
    if "matroska" in formats and container.duration and _matroska_end(path) > os.path.getsize(path):
        return (container.duration - max(container.start_time or 0, 0)) / av.time_base
    return None


def _matroska_end(path: str | os.PathLike) -> int:
    """Where the content of a Matroska file is to end; 0 if its header does not say (RFC 9559)."""
    end = 0
    with open(path, "rb") as file:
        for element in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # EBML header, Segment
            head = file.read(12)
            length = 9 - head[4].bit_length() if len(head) == 12 else 9  # of its size, in bytes
            if not head.startswith(element) or length > 8:
                return 0
            unknown = (1 << 7 * length) - 1
            size = int.from_bytes(head[4 : 4 + length]) & unknown
            if size == unknown:  # as in a live recording
                return 0
            end += 4 + length + size
            file.seek(end)
    return end


# --- Frames at given times ---------------------------------------------------------------------


def shown_frames(
    path: str | os.PathLike, info: VideoInfo, times: Sequence[float], num_threads: int
) -> Iterator[tuple[av.VideoFrame, VideoStream]]:
    """The frame nearest to each of the ascending `times` (seconds from the first frame).

    Precisely: the frame on the screen half a frame period later. At a constant rate that is the
    nearest frame; at a variable rate a frame that is held for long is not left too early.
    `num_threads` are the decoder's; 0 for one per core.
    """
    targets = [time + info.frame_period / 2 for time in times]
    with contextlib.ExitStack() as stack:
        frames, stream = _entered(stack, path, info, targets[0], num_threads)
        shown = next(frames, None)
        coming = next(frames, None)
        for target in targets:
            while coming is not None and coming.time <= target + 1e-9:
                shown, coming = coming, next(frames, None)
            if shown is None or (coming is None and _is_over(shown, target, info)):
                raise VideoReadError(
                    path,
                    f"damaged: it can be read for "
                    f"{0.0 if shown is None else shown.time + info.frame_period:.2f} s, and was "
                    f"to be for {info.duration:.2f} s",
                )
            yield shown.frame, stream


def _is_over(last: ShownFrame, target: float, info: VideoInfo) -> bool:
    """Whether the last frame is not shown any more."""
    return target > last.time + max(last.held, info.frame_period) * 1.5 + 1e-3


def _entered(
    stack: contextlib.ExitStack,
    path: str | os.PathLike,
    info: VideoInfo,
    target: float,
    num_threads: int,
) -> tuple[Iterator[ShownFrame], VideoStream]:
    """Frames from one that is shown at `target` or before it; its file is closed by the stack."""
    for margin in _MARGINS if target > 1.0 else ():  # less is not worth looking for a key frame
        timestamp = info.clock.timestamp(max(target - margin, 0.0))
        if math.isinf(timestamp) or target < margin:
            break
        with contextlib.ExitStack() as attempt:
            container, stream = _opened(attempt, path, num_threads)
            with contextlib.suppress(av.error.FFmpegError):
                container.seek(math.floor(timestamp / time_unit(stream)), stream=stream)
                frames = _timed(info, container, stream, is_start=False)
                first = next(frames, None)
                if first is not None and first.time <= target + 1e-9:
                    stack.push(attempt.pop_all())
                    return itertools.chain([first], frames), stream
    container, stream = _opened(stack, path, num_threads)
    return _timed(info, container, stream, is_start=True), stream


def _opened(
    stack: contextlib.ExitStack, path: str | os.PathLike, num_threads: int
) -> tuple[InputContainer, VideoStream]:
    container, stream = stack.enter_context(open_video(path))
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = num_threads
    return container, stream


def _timed(
    info: VideoInfo, container: InputContainer, stream: VideoStream, *, is_start: bool
) -> Iterator[ShownFrame]:
    frames = decoded(container, stream, is_start=is_start)
    return deinterlaced(info.clock.timed(frames, time_unit(stream), is_start))
