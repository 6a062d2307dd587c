"""What a clip of `moving_shapes` with long motions shows, read from every one of its frames.

As in `scene_vision`, but colour, shape and size are read frame by frame, so that one frame that
shows another object is seen; the track is read by `motion_reading`; and of two objects whose paths
cross, it is seen which is in front.
"""

import dataclasses
import functools
import itertools

import numpy as np
from jaxtyping import Bool, Float

from lumiere_jax.data.scene import OBJECT_COLOURS, SHAPES, SIZES, coverage
from lumiere_jax.metrics import motion_reading, scene_vision
from lumiere_jax.metrics.motion_reading import SeenMotion
from lumiere_jax.metrics.scene_vision import Centres, Frames, Opacity, Times, Video

_MOST_FRAMES = 160
_PLACES = 4  # of a template within a pixel, along each side
_OTHER_SHAPE = 0.03  # how much more another shape must be alike, to be what a single frame shows
_OTHER_SIZE = 0.045  # of the frame's width: the same for the radius; small and large differ by 0.06
_CLEAR = 0.8  # of the usual area: less is seen of an object that is partly hidden
_TOUCHING = 0.02  # share of an object's mask from which on the two are not judged apart
_CROSSING = 0.01  # of the frame: the least that two objects share where one passes behind the other
_FASTEST = 10.0  # frame widths in a clip; quick swings reach 9.5
_JUMP = 0.05  # of the frame's width, beyond what the fastest object does between two frames
_CONTACT = 0.035  # of the frame's width, between an object and the border that it touches


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """What is seen of one object over a clip; None where it cannot be told."""

    colour: str | None  # a key of `scene.OBJECT_COLOURS`
    shape: str | None  # one of `scene.SHAPES`
    size: str | None  # a key of `scene.SIZES`
    motion: SeenMotion
    times: Float[np.ndarray, " read"]  # of the frames that it is read from, in [0, 1]
    centres: Float[np.ndarray, "read 2"]  # in those frames
    free: Bool[np.ndarray, " frames"]  # those in which no other object is near
    coloured: Bool[np.ndarray, " frames"]  # of all frames, those that show its colour
    shapes: tuple[str | None, ...]  # in each frame
    sized: Bool[np.ndarray, " frames"]  # of all frames, those that show its size
    is_steady: bool  # the track has no jumps

    def share(self, colour: str, shape: str) -> float:
        """Of the frames in which no other object is near, the share that show this one."""
        shaped = np.array([shape == other for other in self.shapes])
        shown = self.coloured & shaped & (self.colour == colour)
        return float(shown[self.free].mean()) if self.free.any() else 0.0

    @property
    def same(self) -> bool:
        """Whether every such frame shows the same object as the whole clip, where it should be."""
        if self.colour is None or self.shape is None:
            return False
        sized = bool(self.sized[self.free].all())
        return self.is_steady and sized and self.share(self.colour, self.shape) == 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class LongScene:
    """What is seen of a clip."""

    objects: tuple[Followed, ...]  # as many as were looked for
    background: str | None  # a key of `scene.BACKGROUND_COLOURS`; None without a name
    background_kind: str  # one of `scene.BACKGROUND_KINDS`
    behind: int | None  # which of the objects passes behind the other, and comes out again


def look(video: Video, num_objects: int = 1) -> LongScene:
    """Says what a clip shows of one or two objects, which must differ in colour."""
    frames, times = scene_vision.reduce(video, _MOST_FRAMES)
    colour, kind, background = scene_vision.see_background(frames)
    seen = _separate(frames, background, num_objects)
    # Of an object that passes behind another, all may be seen in a few frames only.
    usual = 0.5 if num_objects == 1 else 0.9
    sketches = [_sketch(name, opacity, times, usual) for name, opacity, _ in seen]
    masks = [_mask(sketch, times, frames.shape[1]) for sketch in sketches]
    shared = masks[0] * masks[-1] if num_objects > 1 else np.zeros_like(masks[0])
    objects = tuple(
        _follow(sketch, coloured, shared.sum(axis=(1, 2)) / np.maximum(mask.sum(axis=(1, 2)), 1e-6))
        for sketch, mask, (_, _, coloured) in zip(sketches, masks, seen, strict=True)
    )
    behind = _see_behind(sketches, shared) if num_objects > 1 else None
    return LongScene(objects, scene_vision.nearest_background(colour), kind, behind)


def _separate(
    frames: Frames, background: Float[np.ndarray, "*_ 3"], count: int
) -> list[tuple[str, Opacity, Bool[np.ndarray, " frames"]]]:
    """Each object's colour, its opacity, and which frames are best explained by these colours.

    Every pixel is taken for a mixture of background and one object colour, as in `scene_vision`.
    """
    difference = frames - background
    axes = np.array(list(OBJECT_COLOURS.values()), np.float32)[:, None, None] - background
    lengths = (axes**2).sum(axis=-1)[:, None]
    along = np.einsum(
        "thwc,khwc->kthw", difference, np.broadcast_to(axes, (len(axes), *frames.shape[1:]))
    )
    opacities = np.clip(along / lengths, 0.0, 1.0)
    rest = (difference**2).sum(axis=-1) + opacities * (opacities * lengths - 2.0 * along)
    groups = list(itertools.combinations(range(len(axes)), count))
    costs = np.array([rest[list(group)].min(axis=0).sum(axis=(1, 2)) for group in groups])
    best = int(costs.sum(axis=1).argmin())
    explained = costs.argmin(axis=0) == best
    chosen = groups[best]
    owner = rest[list(chosen)].argmin(axis=0)
    names = list(OBJECT_COLOURS)
    return [
        (names[c], np.where(owner == i, opacities[c], 0.0), explained) for i, c in enumerate(chosen)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Sketch:
    """An object before it is known in which frames another is near."""

    colour: str | None
    shape: str | None
    radius: float
    opacity: Opacity
    times: Times
    centres: Centres  # of the outline, in all frames
    present: Bool[np.ndarray, " frames"]
    clear: Bool[np.ndarray, " frames"]  # those that show all of it
    shapes: tuple[str | None, ...]
    radii: Times
    motion: SeenMotion


def _sketch(colour: str, opacity: Opacity, times: Times, usual: float) -> _Sketch:
    centres, areas = scene_vision.track(opacity)
    present = (areas >= scene_vision.LEAST_AREA) & (
        opacity.max(axis=(1, 2)) >= scene_vision.OPACITY_SOLID
    )
    area = np.quantile(areas[present], usual) if present.any() else np.inf
    clear = present & (areas >= _CLEAR * area)
    alike, radii = _compare(opacity, centres)
    place = int(alike[clear].sum(axis=0).argmax()) if clear.any() else 0
    radius = float(np.median(radii[clear, place])) if clear.any() else 0.0
    is_known = present.mean() >= 0.5 and alike[clear, place].mean() >= scene_vision.SHAPE_TOLERANCE
    best = alike.max(axis=1)
    # The shape of the clip, unless another is clearly more alike.
    kept = alike[:, place] >= np.maximum(best - _OTHER_SHAPE, scene_vision.SHAPE_TOLERANCE)
    shown = np.where(kept, place, alike.argmax(axis=1))
    shapes = tuple(
        SHAPES[shape] if likeness >= scene_vision.SHAPE_TOLERANCE and there else None
        for shape, likeness, there in zip(shown, best, present, strict=True)
    )
    shape = SHAPES[place] if is_known else None
    outline = centres - radius * np.asarray(scene_vision.centroid(SHAPES[place]))
    motion = motion_reading.read(times[clear], outline[clear], (radius, radius), _CONTACT)
    return _Sketch(
        colour if present.mean() >= 0.5 else None, shape, radius, opacity, times, outline, present,
        clear, shapes, radii[:, place], motion,
    )  # fmt: skip


def _mask(sketch: _Sketch, times: Times, resolution: int) -> Opacity:
    """Where the object should be seen in every frame, by its motion."""
    if sketch.shape is None or sketch.motion.points is None:
        return np.zeros((len(times), resolution, resolution), np.float32)
    known, points = sketch.motion.points
    places = [np.interp(times, known, points[:, axis]) for axis in (0, 1)]
    return coverage(sketch.shape, np.stack(places, axis=-1), sketch.radius, resolution)


def _follow(sketch: _Sketch, coloured: Bool[np.ndarray, " frames"], shared: Times) -> Followed:
    free = shared <= max(_TOUCHING, float(shared.min()) + _TOUCHING)
    size = min(SIZES, key=lambda name: abs(SIZES[name] / 2 - sketch.radius))
    kept = sketch.clear & free
    half = (sketch.radius, sketch.radius)
    motion = motion_reading.read(sketch.times[kept], sketch.centres[kept], half, _CONTACT)
    if motion.points is None:  # too few are free
        kept, motion = sketch.clear, sketch.motion
    steps = np.linalg.norm(np.diff(sketch.centres, axis=0), axis=1)[kept[1:] & kept[:-1]]
    fastest = _FASTEST / max(len(free) - 1, 1) + _JUMP
    return Followed(
        colour=sketch.colour,
        shape=sketch.shape,
        size=size if sketch.shape else None,
        motion=motion,
        times=sketch.times[kept],
        centres=sketch.centres[kept],
        free=free,
        coloured=coloured & sketch.present,
        shapes=sketch.shapes,
        sized=np.abs(sketch.radii - sketch.radius) <= _OTHER_SIZE,
        is_steady=bool(np.all(steps <= fastest)),
    )


def _see_behind(sketches: list[_Sketch], shared: Opacity) -> int | None:
    """Which has less of the pixels that both should cover, if it is seen before and after."""
    if shared.mean(axis=(1, 2)).max() < _CROSSING:
        return None
    seen = [float((shared * sketch.opacity).sum()) for sketch in sketches]
    behind = int(np.argmin(seen))
    clear = np.flatnonzero(sketches[behind].clear)
    crossing = int(shared.sum(axis=(1, 2)).argmax())
    return behind if clear.min() < crossing < clear.max() else None


def _compare(opacity: Opacity, centres: Centres) -> tuple[np.ndarray, np.ndarray]:
    """How alike each frame's object and each shape are, in [0, 1], and at which radius."""
    patches, _ = scene_vision.crop(opacity, centres)
    side = patches.shape[1]
    lengths = np.maximum(np.linalg.norm(patches, axis=(1, 2)), 1e-6)
    templates, radii = _templates(opacity.shape[1], side)
    flat = (patches / lengths[:, None, None]).reshape(len(patches), -1).astype(np.float32)
    cosines = np.einsum("fp,skp->fsk", flat, templates, optimize=True)
    return cosines.max(axis=2), radii[cosines.argmax(axis=2)]


@functools.lru_cache(maxsize=4)
def _templates(
    resolution: int, side: int
) -> tuple[Float[np.ndarray, "shapes kinds pixels"], Float[np.ndarray, " kinds"]]:
    """The renderer's masks, of length 1, about the middle pixel of a patch, and their radii."""
    steps = side // 2 + (np.arange(_PLACES) + 0.5) / _PLACES
    centres = np.array(list(itertools.product(steps, steps))) / side
    every = []
    for name, _, mask in scene_vision.masks(centres, resolution, side):
        flat = mask.reshape(len(centres), -1)
        every.append((name, flat / np.linalg.norm(flat, axis=1, keepdims=True)))
    radii = np.repeat(scene_vision.RADII, scene_vision.SOFTNESS_LEVELS * len(centres))
    shapes = [np.concatenate([mask for name, mask in every if name == s]) for s in SHAPES]
    return np.stack(shapes).astype(np.float32), radii
