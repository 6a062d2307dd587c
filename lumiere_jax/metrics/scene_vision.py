"""What a clip of `moving_shapes` shows, read from its frames alone.

Background colour and texture come from the bulk of the pixels, object colour from how each pixel
mixes object and background, direction from the track of the object's centre, shape and size from
comparison with the renderer's own masks. It works from 16x16 up and forgives the noise and softness
of small diffusion samples, but not an object that is faint, jumps about, or is missing.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from lumiere_jax.data.scene import (
    BACKGROUND_COLOURS,
    BACKGROUND_KINDS,
    DIRECTIONS,
    OBJECT_COLOURS,
    SHAPES,
    SIZES,
    TEXTURE_AMPLITUDE,
    coverage,
    render_background,
)
from lumiere_jax.runtime.arrays import Array

# Distances between colours are Euclidean, RGB in [0, 1]; the closest two names of one table are
# 0.34 apart, and the closest object and background 0.50.
_BACKGROUND_SPREAD = 0.3  # pixels this near the median colour belong to the background
_BACKGROUND_TOLERANCE = 0.3  # a colour further from every name has no name
_TEXTURE_THRESHOLD = 0.015  # amplitude; the renderer's is 0.08, much less when blurred at 16x16
_OPACITY_FLOOR = 0.25  # less of the object's colour is noise
OPACITY_SOLID = 0.4  # the least that the most opaque pixels of an object must reach
LEAST_AREA = 0.008  # of the frame; the smallest shape covers 0.03
_STILL_PATH = 0.2  # of the frame's width; real paths are 0.45 to 0.55
_TRACK_TOLERANCE = 0.1  # of the frame's width, root mean square, from a straight line
_WINDOW = 0.25  # of the frame's width, around the object's centre; the largest radius is 0.2
SHAPE_TOLERANCE = 0.7  # the least cosine between an object and its best mask
RADII = np.linspace(0.11, 0.23, 5)
SOFTNESS_LEVELS = 3  # masks are compared sharp and blurred
_MOST_FRAMES = 16
_MOST_SHAPE_FRAMES = 6
_LEAST_RESOLUTION = 24  # larger frames are averaged down towards this

Video = Float[Array, "time side side 3"]
"""In [-1, 1], square, at least 16 pixels wide."""

Frames = Float[np.ndarray, "frames pixels pixels 3"]
Opacity = Float[np.ndarray, "frames pixels pixels"]
Centres = Float[np.ndarray, "frames 2"]
Times = Float[np.ndarray, " frames"]


@dataclasses.dataclass(frozen=True)
class SeenObject:
    """What the oracle sees of one object; None where it cannot tell."""

    colour: str | None = None  # a key of `scene.OBJECT_COLOURS`
    shape: str | None = None  # one of `scene.SHAPES`
    shapes: tuple[str | None, ...] = ()  # the same of every frame by itself, but for hidden ones
    size: str | None = None  # a key of `scene.SIZES`
    direction: str | None = None  # a key of `scene.DIRECTIONS`


@dataclasses.dataclass(frozen=True)
class SeenScene:
    """What the oracle sees of a clip."""

    objects: tuple[SeenObject, ...]  # as many as were looked for
    background: str | None  # a key of `scene.BACKGROUND_COLOURS`; None without a name
    background_kind: str  # one of `scene.BACKGROUND_KINDS`


def look(video: Video, num_objects: int = 1) -> SeenScene:
    """Says what a clip shows of one or two objects, which must differ in colour."""
    frames, times = reduce(video)
    colour, kind, background = see_background(frames)
    separated = _separate(frames, background, num_objects)
    objects = tuple(_see_object(name, opacity, times) for name, opacity in separated)
    return SeenScene(objects, nearest_background(colour), kind)


def reduce(video: Video, most_frames: int = _MOST_FRAMES) -> tuple[Frames, Times]:
    """Returns frames in [0, 1], few and small enough to be judged quickly, and their times."""
    clip = np.asarray(video, np.float32)
    length, resolution = clip.shape[:2]
    if resolution < 16 or length < 1:
        raise ValueError(f"the oracle needs a frame of 16 x 16 pixels or more, not {clip.shape}")
    kept = np.unique(np.linspace(0, length - 1, min(length, most_frames)).round().astype(int))
    factors = range(1, max(1, resolution // _LEAST_RESOLUTION) + 1)
    factor = max(f for f in factors if resolution % f == 0)
    side = resolution // factor
    frames = clip[kept].reshape(len(kept), side, factor, side, factor, 3).mean(axis=(2, 4))
    return np.clip((frames + 1.0) / 2.0, 0.0, 1.0), kept / max(1, length - 1)


def nearest_background(colour: Float[np.ndarray, " 3"]) -> str | None:
    """Returns the background whose colour is nearest, or None if none is near."""

    def distance(name: str) -> float:
        return float(np.linalg.norm(colour - np.asarray(BACKGROUND_COLOURS[name])))

    name = min(BACKGROUND_COLOURS, key=distance)
    return name if distance(name) <= _BACKGROUND_TOLERANCE else None


def see_background(
    frames: Frames,
) -> tuple[Float[np.ndarray, " 3"], str, Float[np.ndarray, "*_ 3"]]:
    """Returns the background's mean colour, its kind, and its image."""
    median = np.median(frames.reshape(-1, 3), axis=0)
    inside = np.linalg.norm(frames - median, axis=-1) < _BACKGROUND_SPREAD
    colour = frames[inside].mean(axis=0)
    tones = (frames - colour).mean(axis=-1)
    resolution = frames.shape[1]
    plain = render_background("gray", "plain", resolution)
    best, kind, texture = _TEXTURE_THRESHOLD, "plain", 0.0
    for name in BACKGROUND_KINDS[1:]:
        # The renderer's wave, of amplitude 1 but for what is lost to averaging over pixels.
        pattern = (render_background("gray", name, resolution) - plain)[..., 0]
        pattern = pattern / (2.0 * TEXTURE_AMPLITUDE)
        weights = np.where(inside, pattern, 0.0)
        amplitude = float((weights * tones).sum() / max((weights * pattern).sum(), 1e-6))
        if amplitude > best:
            best, kind, texture = amplitude, name, amplitude * pattern[..., None]
    return colour, kind, colour + texture


def _separate(
    frames: Frames, background: Float[np.ndarray, "*_ 3"], count: int
) -> list[tuple[str, Opacity]]:
    """Splits frames into objects of different colours: the colour's name and opacity of each.

    Every pixel is taken for a mixture of background and one object colour, which also holds at soft
    edges. The colours that leave the least unexplained win.
    """
    difference = frames - background
    names, opacities, errors = list(OBJECT_COLOURS), [], []
    for known in OBJECT_COLOURS.values():
        axis = np.asarray(known, np.float32) - background
        opacity = (difference * axis).sum(axis=-1) / (axis * axis).sum(axis=-1)
        opacity = np.clip(opacity, 0.0, 1.0)
        errors.append(((difference - opacity[..., None] * axis) ** 2).sum(axis=-1))
        opacities.append(opacity)
    residuals = np.stack(errors)
    chosen = min(
        itertools.combinations(range(len(names)), count),
        key=lambda group: residuals[list(group)].min(axis=0).sum(),
    )
    owner = residuals[list(chosen)].argmin(axis=0)
    return [(names[c], np.where(owner == i, opacities[c], 0.0)) for i, c in enumerate(chosen)]


def _see_object(colour: str, opacity: Opacity, times: Times) -> SeenObject:
    """Reads one object from its opacity at `times`."""
    centres, areas = track(opacity)
    present = areas >= LEAST_AREA
    solid = np.median(opacity.max(axis=(1, 2))) >= OPACITY_SOLID
    if present.mean() < 0.5 or not solid:
        return SeenObject(shapes=(None,) * len(areas))
    direction = _see_direction(centres, areas * present, times)
    # Frames in which the object is partly hidden would show another shape.
    clear = areas >= 0.8 * np.median(areas[present])
    shape, size = _see_shape(opacity[clear], centres[clear])
    shapes = _see_shapes(opacity, centres)
    shapes = [shapes[i] if present[i] else None for i in np.flatnonzero(clear | ~present)]
    return SeenObject(colour, shape, tuple(shapes), size, direction)


def track(opacity: Opacity) -> tuple[Centres, Times]:
    """Follows the largest spot: centres (x, y) and areas, in frame widths."""
    resolution = opacity.shape[1]
    grid = (np.arange(resolution) + 0.5) / resolution
    spot = np.where(opacity > _OPACITY_FLOOR, opacity, 0.0)
    near = (np.abs(grid[:, None] - grid[None, :]) <= 0.15).astype(np.float32)
    peaks = (near @ spot @ near).reshape(len(spot), -1).argmax(axis=1)
    centres = np.stack([grid[peaks % resolution], grid[peaks // resolution]], axis=1)
    for _ in range(2):
        inside = spot * _window(centres, grid)
        total = np.maximum(inside.sum(axis=(1, 2)), 1e-6)
        x = (inside.sum(axis=1) * grid).sum(axis=1) / total
        y = (inside.sum(axis=2) * grid).sum(axis=1) / total
        centres = np.stack([x, y], axis=1)
    return centres, total / resolution**2


def _window(
    centres: Centres, grid: Float[np.ndarray, " pixels"]
) -> Bool[np.ndarray, "frames pixels pixels"]:
    """A window around each centre."""
    near_x = np.abs(grid[None, :] - centres[:, :1]) <= _WINDOW
    near_y = np.abs(grid[None, :] - centres[:, 1:]) <= _WINDOW
    return near_y[:, :, None] & near_x[:, None, :]


def _see_direction(centres: Centres, weights: Times, times: Times) -> str | None:
    """Names the straight line that fits the centres best, or None if none fits."""
    seen = times[weights > 0]
    if np.ptp(seen) < 0.5:
        return None
    weights = weights / weights.sum()
    time_offset = times - weights @ times
    centre_offset = centres - weights @ centres
    path = (weights * time_offset) @ centre_offset / (weights @ time_offset**2)
    error = weights @ ((centre_offset - time_offset[:, None] * path) ** 2).sum(axis=1)
    if error**0.5 > _TRACK_TOLERANCE:
        return None
    if np.linalg.norm(path) < _STILL_PATH:
        return "still"
    return max(DIRECTIONS, key=lambda name: float(path @ np.asarray(DIRECTIONS[name])))


@functools.cache
def centroid(shape: str) -> tuple[float, float]:
    """Returns a shape's centroid from its centre, in units of its radius."""
    mask = coverage(shape, np.array([[0.5, 0.5]]), 0.5, 64)[0]
    grid = (np.arange(64) + 0.5) / 32 - 1.0
    return float(mask.sum(axis=0) @ grid / mask.sum()), float(mask.sum(axis=1) @ grid / mask.sum())


def soften(mask: Opacity) -> Opacity:
    """Blurs with the binomial kernel (1, 2, 1) / 4 along each side."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + 2.0 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2.0 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16.0


def crop(
    opacity: Opacity, centres: Centres
) -> tuple[Float[np.ndarray, "frames patch patch"], Centres]:
    """Cuts a patch around each centre; returns patches and the centres in the patches' widths."""
    resolution = opacity.shape[1]
    side = 2 * int(np.ceil(_WINDOW * resolution)) + 1
    corners = np.floor(centres * resolution).astype(int) - side // 2
    padded = np.pad(opacity, ((0, 0), (side, side), (side, side)))
    patches = [
        frame[y + side : y + 2 * side, x + side : x + 2 * side]
        for frame, (x, y) in zip(padded, corners, strict=True)
    ]
    return np.stack(patches), (centres * resolution - corners) / side


def _see_shape(opacity: Opacity, centres: Centres) -> tuple[str | None, str | None]:
    """Names shape and size by the mask that is most alike, or (None, None) if none is."""
    kept = np.linspace(0, len(opacity) - 1, min(len(opacity), _MOST_SHAPE_FRAMES)).astype(int)
    spot, places = crop(opacity[kept], centres[kept])
    spot = spot / np.linalg.norm(spot)
    best, shape, radius = SHAPE_TOLERANCE, None, 0.0
    for name, size, mask in masks(places, opacity.shape[1], spot.shape[1]):
        cosine = float((spot * mask).sum() / max(np.linalg.norm(mask), 1e-6))
        if cosine > best:
            best, shape, radius = cosine, name, size
    if shape is None:
        return None, None
    return shape, min(SIZES, key=lambda name: abs(SIZES[name] / 2 - radius))


def _see_shapes(opacity: Opacity, centres: Centres) -> list[str | None]:
    """Names the shape in each frame, as if there were no others; None where none is alike."""
    spot, places = crop(opacity, centres)
    lengths = np.maximum(np.linalg.norm(spot, axis=(1, 2)), 1e-6)
    best, found = np.full(len(spot), SHAPE_TOLERANCE), np.full(len(spot), None, object)
    for name, _, mask in masks(places, opacity.shape[1], spot.shape[1]):
        length = np.maximum(np.linalg.norm(mask, axis=(1, 2)), 1e-6)
        cosines = (spot * mask).sum(axis=(1, 2)) / (lengths * length)
        found[cosines > best] = name
        best = np.maximum(best, cosines)
    return found.tolist()


def masks(
    centres: Centres, resolution: int, side: int
) -> Iterator[tuple[str, float, Float[np.ndarray, "frames patch patch"]]]:
    """The renderer's masks around centres in patches: their shape, radius and opacity."""
    for name, size in itertools.product(SHAPES, RADII):
        scaled = size * resolution / side
        mask = coverage(name, centres - scaled * np.asarray(centroid(name)), scaled, side)
        for _ in range(SOFTNESS_LEVELS):
            yield name, size, mask
            mask = soften(mask)
