"""Videos whose frames show their own number, in whatever way files are stored."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 200)], np.uint8)

# By the ending of a name: the encoders that are tried in it.
ENCODERS = {
    "mp4": ["libx264", "libx265", "mpeg4", "mjpeg", "libsvtav1"],
    "mov": ["libx264", "mpeg4", "prores_ks", "mjpeg"],
    "mkv": ["libx264", "mpeg4", "libvpx-vp9", "ffv1", "mpeg2video", "mjpeg"],
    "webm": ["libvpx", "libvpx-vp9", "libsvtav1"],
    "avi": ["libx264", "mpeg4", "mjpeg", "ffv1", "huffyuv"],
    "ts": ["libx264", "mpeg2video", "libx265"],
    "m2ts": ["libx264", "mpeg2video"],
    "mpg": ["mpeg2video", "mpeg1video"],
    "flv": ["libx264", "flv"],
    "wmv": ["wmv2"],
    "3gp": ["mpeg4", "libx264"],
    "nut": ["libx264", "mpeg4"],
    "h264": ["libx264"],
    "m4v": ["mpeg4"],
}
REORDERING = ("libx264", "libx265", "mpeg4", "mpeg2video", "mpeg1video")
RATES = (8, 12.5, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120)
MPEG_RATES = (23.976, 24, 25, 29.97, 30, 50, 59.94, 60)


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A frame with its number as 8 blocks above (block b white if bit b is set), colours below."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        block = slice(bit * width // BITS, (bit + 1) * width // BITS)
        frame[: height // 2, block] = 235 if number >> bit & 1 else 20
    for place, colour in enumerate(COLOURS):
        frame[height // 2 :, place * width // 4 : (place + 1) * width // 4] = colour
    return frame


def number(frame: np.ndarray) -> int:
    """The number that a frame shows."""
    height, width = frame.shape[:2]
    rows = frame[height // 8 : height * 3 // 8].mean(axis=(0, 2))
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum((rows[centre] > 127) << bit for bit, centre in enumerate(centres))


def numbers(video: np.ndarray) -> list[int]:
    return [number(frame) for frame in video]


# (a, b, c, d) of display matrices: all turns and mirrorings; (x, y) is shown at (ax + cy, bx + dy).
MATRICES = [
    (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1),
    (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0),
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a file is stored."""

    suffix: str = "mp4"
    encoder: str = "libx264"
    rate: float = 24
    num_frames: int = 48
    b_frames: int = 0
    key_every: int = 12
    start: float = 0.0  # seconds of the first timestamp
    cut: int = 0  # so many frames are cut off by copying the stream from there: an edit list
    dropped: tuple[int, ...] = ()  # numbers of frames that were never recorded
    matrix: tuple[int, int, int, int] = (1, 0, 0, 1)  # see `MATRICES`
    width: int = 64
    height: int = 48
    options: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def shown(self) -> list[int]:
        """Numbers of the frames that the file shows."""
        return [n for n in range(self.num_frames) if n not in self.dropped and n >= self.cut]


def write(path: Path, recipe: Recipe) -> Path:
    """Writes a file as a recipe says."""
    if recipe.cut:
        whole = path.with_name("whole.mkv")
        _encode(whole, dataclasses.replace(recipe, cut=0))
        _copy(whole, path, recipe.cut / recipe.rate)
        whole.unlink()
    else:
        _encode(path, recipe)
    return path


def _encode(path: Path, recipe: Recipe) -> None:
    rate = Fraction(recipe.rate).limit_denominator(1001)
    options = {"g": str(recipe.key_every)} | recipe.options
    if recipe.encoder == "libx264":
        options |= {"preset": "ultrafast", "x264-params": f"bframes={recipe.b_frames}:b-adapt=0"}
    elif recipe.encoder == "libx265":
        options |= {
            "preset": "ultrafast",
            "x265-params": f"bframes={recipe.b_frames}:b-adapt=0:log-level=none:pools=1",
        }
    elif recipe.encoder in REORDERING:
        options |= {"bf": str(recipe.b_frames)}
    elif recipe.encoder == "libsvtav1":
        options |= {"preset": "12", "svtav1-params": "lp=1"}
    elif recipe.encoder.startswith("libvpx"):
        options |= {
            "deadline": "realtime",
            "cpu-used": "8",
            "auto-alt-ref": "1",
            "lag-in-frames": "9",
        }
    formats = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "huffyuv": "yuv422p"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(recipe.encoder, rate=rate, options=options)
        stream.width, stream.height = recipe.width, recipe.height
        stream.pix_fmt = formats.get(recipe.encoder, "yuv420p")
        if recipe.matrix != MATRICES[0]:
            a, b, c, d = (value << 16 for value in recipe.matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        stream.bit_rate = 2_000_000
        stream.codec_context.time_base = 1 / rate
        offset = round(recipe.start * rate)
        for n in range(recipe.num_frames):
            if n in recipe.dropped:
                continue
            frame = av.VideoFrame.from_ndarray(picture(n, recipe.width, recipe.height), "rgb24")
            frame.pts, frame.time_base = n + offset, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _copy(source: Path, target: Path, start: float) -> None:
    """Copies the packets from the key frame before `start` on, which is to be shown at first."""
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = given.streams.video[0]
        copied = container.add_stream_from_template(stream)
        given.seek(int(start / stream.time_base), stream=stream)
        shift = round(start / stream.time_base)
        copy_packets(given, container, copied, shift)


def copy_packets(given, container, copied, shift: int = 0) -> None:
    """Copies the packets of the first video stream, as many units earlier as `shift`."""
    for packet in given.demux(video=0):
        if packet.dts is not None:
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copied
            container.mux(packet)
