"""From decoded frames to RGB: upright, square pixels, on white, without combing, in SDR.

Frames of masks keep their transparency, see `RGBConverter`.
"""

import collections
import math
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import (
    ColorPrimaries,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from av.video.stream import VideoStream
from jaxtyping import Float32, UInt8, UInt16

from lumiere_jax.data.pixels import Picture

HD_HEIGHT, HD_WIDTH = 720, 1280
"""From this size on, a video that does not name its colours is taken for BT.709, as players do."""

_ROUNDED_ASPECT = 0.01
"""An aspect of pixels this near to 1 comes of a size that was rounded, as 256:255 of 170×128:
nobody sees it, and to resample all pixels for it would blur them."""

_UNSPECIFIED = 2
_TRANSFERS: dict[int, str] = {ColorTrc.ARIB_STD_B67: "HLG", ColorTrc.SMPTE2084: "PQ"}
_WIDE: dict[int, str] = {ColorPrimaries.BT2020: "BT.2020", ColorPrimaries.SMPTE432: "Display P3"}
_SDR_WHITE = 203.0  # cd/m² of diffuse white in HDR: ITU-R BT.2408, section 2
_HDR_PEAK = 1000.0  # cd/m² of the display that HLG's system gamma of 1.2 is for: ITU-R BT.2100
_KNEE = 0.75  # of SDR's white; below it nothing is compressed
_SDR_GAMMA = 2.4  # ITU-R BT.1886
# Linear light of other primaries to that of BT.709, by the chromaticities of the standards.
_TO_BT709: dict[int, Float32[np.ndarray, "3 3"]] = {
    ColorPrimaries.BT2020: np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
        np.float32,
    ),
    ColorPrimaries.SMPTE432: np.array(
        [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32
    ),
}


class ShownFrame(NamedTuple):
    """A decoded frame: when it appears, in seconds from the first one, and for how long."""

    time: float
    held: float  # 0 if the file does not say
    frame: av.VideoFrame


# --- What a frame is ---------------------------------------------------------------------------


def orientation(frame: av.VideoFrame, usual: tuple[int, bool] = (0, False)) -> tuple[int, bool]:
    """How to show a frame: mirrored left to right if so, after quarter turns against the clock.

    From the display matrix that cameras store; its angle is rounded to quarter turns. `usual` is
    that of a frame without a matrix: a stream may have it (H.264's SEI) in some frames for all.
    """
    matrix = cast(Mapping, frame.side_data).get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return usual
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(matrix)[:36])
    is_mirrored = a * d - b * c < 0
    # (x, y) becomes (ax + cy, bx + dy), with y downwards; mirroring changes the sign of a and c.
    angle = math.atan2(-b, -a if is_mirrored else a)
    return round(angle / (math.pi / 2)) % 4, is_mirrored


def shown_size(frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(height, width) of a frame, upright and with square pixels."""
    height, width = _square_size(frame, stream)
    return (width, height) if orientation(frame)[0] % 2 else (height, width)


def _square_size(frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(height, width) with square pixels, as stored."""
    return frame.height, max(round(frame.width * _pixel_aspect(stream)), 1)


def _pixel_aspect(stream: VideoStream) -> float:
    """Width of a pixel by its height."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return 1.0 if abs(aspect - 1) < _ROUNDED_ASPECT else aspect


def name_colours(frame: av.VideoFrame, primaries: int, transfer: int, matrix: int) -> None:
    """Gives a frame those of a file's colours that its own stream leaves unspecified."""
    if frame.color_primaries == _UNSPECIFIED and primaries:
        frame.color_primaries = primaries
    if frame.color_trc == _UNSPECIFIED and transfer:
        frame.color_trc = transfer
    if frame.colorspace == _UNSPECIFIED and matrix:  # 0 is that of RGB
        frame.colorspace = matrix


def treatments(frame: av.VideoFrame, stream: VideoStream) -> tuple[str, ...]:
    """What is done to frames like this one that changes how they look, in words."""
    told = []
    if (transfer := _TRANSFERS.get(frame.color_trc)) is not None:
        told.append(f"HDR ({transfer}), tone-mapped to SDR")
    elif (wide := _WIDE.get(frame.color_primaries)) is not None:
        told.append(f"{wide} colours, converted to BT.709")
    if (aspect := _pixel_aspect(stream)) != 1:
        told.append(f"pixels of {aspect:.4g}:1, stretched to square ones")
    if frame.interlaced_frame:
        told.append("interlaced, deinterlaced")
    if _has_alpha(frame) and frame.to_ndarray(format="rgba")[..., 3].min() < 255:
        told.append("transparent, put on white")
    return tuple(told)


def _has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


# --- Interlacing -------------------------------------------------------------------------------


def deinterlaced(shown: Iterator[ShownFrame]) -> Iterator[ShownFrame]:
    """Frames whose two fields are of two moments become frames of one (FFmpeg's bwdif).

    Frames that are not marked as interlaced stay as they are.
    """
    waiting: collections.deque[ShownFrame] = collections.deque()
    graph: av.filter.Graph | None = None
    kind = None
    for one in shown:
        frame = one.frame
        if graph is not None and kind != (frame.width, frame.height, frame.format.name):
            graph.vpush(None)
            yield from _filtered(graph, waiting)
            graph = None
        if graph is None:
            if not frame.interlaced_frame:
                yield one
                continue
            graph, kind = _deinterlacer(frame), (frame.width, frame.height, frame.format.name)
        waiting.append(one)
        graph.vpush(frame)
        yield from _filtered(graph, waiting)
    if graph is not None:
        graph.vpush(None)
        yield from _filtered(graph, waiting)


def _deinterlacer(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _filtered(
    graph: av.filter.Graph, waiting: collections.deque[ShownFrame]
) -> Iterator[ShownFrame]:
    """What is ready in the filter, which keeps the order."""
    while waiting:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield waiting.popleft()._replace(frame=frame)


# --- RGB ---------------------------------------------------------------------------------------


class RGBConverter:
    """From decoded frames to RGB, of one size.

    FFmpeg converts and scales in one pass, and straight to the small size: converting a whole frame
    to RGB first takes longer than decoding it. Shrinking averages over areas, enlarging is bicubic.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        turned: tuple[int, bool] = (0, False),
        with_alpha: bool = False,
    ):
        """Takes the (height, width) to just cover, and to crop to around the centre.

        `turned` is the `orientation` of frames that have none of their own. `with_alpha` gives
        straight alpha as a fourth channel, in place of a white ground.
        """
        self._size, self._turned, self._with_alpha = size, turned, with_alpha
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(
        self, frame: av.VideoFrame, stream: VideoStream
    ) -> UInt8[np.ndarray, "height width channels"]:
        """A frame of a stream, upright."""
        turns, is_mirrored = orientation(frame, self._turned)
        height, width = _square_size(frame, stream)
        size = self._size[:: -1 if turns % 2 else 1]
        scale = max(size[0] / height, size[1] / width)
        scaled = max(round(height * scale), size[0]), max(round(width * scale), size[1])
        if _has_alpha(frame) and not self._with_alpha:
            frame = av.VideoFrame.from_ndarray(self._on_white(frame), "rgb24")
        interpolation = Interpolation.AREA if scale < 1 else Interpolation.BICUBIC
        image = self._rgb(frame, scaled, interpolation)
        if self._with_alpha:
            alpha = self._pixels(frame, scaled, interpolation, "rgba")[..., 3]
            image = np.dstack([image, alpha])
        top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
        image = np.rot90(image[top : top + size[0], left : left + size[1]], turns)
        return image[:, ::-1] if is_mirrored else image

    def _on_white(self, frame: av.VideoFrame) -> Picture:
        """Before scaling, which would mix in what transparent pixels hide."""
        pixels = self._pixels(frame, (frame.height, frame.width), Interpolation.BICUBIC, "rgba")
        return on_white(pixels)

    def _rgb(
        self, frame: av.VideoFrame, size: tuple[int, int], interpolation: Interpolation
    ) -> Picture:
        if frame.color_trc in _TRANSFERS or frame.color_primaries in _WIDE:
            pixels = self._pixels(frame, size, interpolation, "rgb48le")
            return to_sdr(pixels, frame.color_trc, frame.color_primaries)
        return self._pixels(frame, size, interpolation, "rgb24")

    def _pixels(
        self,
        frame: av.VideoFrame,
        size: tuple[int, int],
        interpolation: Interpolation,
        pixel_format: str,
    ) -> np.ndarray:
        colours = None
        if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
            if frame.color_trc in _TRANSFERS:
                colours = Colorspace.BT2020
            elif frame.height >= HD_HEIGHT or frame.width >= HD_WIDTH:
                colours = Colorspace.ITU709
        return self._reformatter.reformat(
            frame, size[1], size[0], pixel_format, src_colorspace=colours,
            interpolation=interpolation,
        ).to_ndarray()  # fmt: skip


def on_white(pixels: UInt8[np.ndarray, "*shape 4"]) -> UInt8[np.ndarray, "*shape 3"]:
    """What straight alpha shows before a white ground."""
    colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def to_sdr(pixels: UInt16[np.ndarray, "height width 3"], transfer: int, primaries: int) -> Picture:
    """HDR or wide colours as SDR with the colours of BT.709.

    By ITU-R BT.2100: to the light of a display of 1000 cd/m², in units of SDR's white (203 cd/m²);
    then to BT.709's primaries, where what is brighter than three quarters of that white is
    compressed below it, by one factor for the three channels of a pixel; then by BT.1886.
    """
    signal = pixels.astype(np.float32) / 65535
    if transfer == ColorTrc.ARIB_STD_B67:
        light = _hlg_light(signal)
    elif transfer == ColorTrc.SMPTE2084:
        light = _pq_light(signal)
    else:
        light = signal**_SDR_GAMMA
    wide = _TO_BT709.get(primaries, _TO_BT709[ColorPrimaries.BT2020])
    light = np.maximum(light @ wide.T, 0)
    if transfer in _TRANSFERS:
        brightest = light.max(axis=-1, keepdims=True)
        light *= _compressed(brightest) / np.maximum(brightest, 1e-6)
    return np.rint(255 * np.clip(light, 0, 1) ** (1 / _SDR_GAMMA)).astype(np.uint8)


Light = Float32[np.ndarray, "height width 3"]


def _hlg_light(signal: Light) -> Light:
    """BT.2100, table 5: the inverse OETF, and the OOTF with a system gamma of 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    return scene * luminance[..., None] ** 0.2 * (_HDR_PEAK / _SDR_WHITE)


def _pq_light(signal: Light) -> Light:
    """BT.2100, table 4: the EOTF."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = signal ** (1 / m2)
    return (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * (10_000 / _SDR_WHITE)


def _compressed(light: np.ndarray) -> np.ndarray:
    """Leaves light below the knee as it is, and takes the peak to 1, smoothly between."""
    above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    peak = (_HDR_PEAK / _SDR_WHITE - _KNEE) / (1 - _KNEE)
    rolled = above * (1 + above / peak**2) / (1 + above)
    return np.where(light > _KNEE, _KNEE + (1 - _KNEE) * rolled, light)
