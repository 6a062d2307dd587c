"""`moving_shapes`: an endless procedural source of captioned clips that needs no download.

Coloured shapes move in straight lines, or stand still, over plain or textured backgrounds. The
truth about every clip is known, so `lumiere_jax.metrics.oracle` can say whether a generated clip
shows what its caption asks for. About a tenth of all combinations of shape, colour, direction and
background colour are held out of the training split and make up the test split. In clips of five
seconds (`motions="long"`), objects have the motions of `lumiere_jax.data.motions` instead, and one
may pass behind another; `lumiere_jax.metrics.long_oracle` reads them.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from lumiere_jax.data import motions
from lumiere_jax.data.pixels import Video
from lumiere_jax.data.procedural import ProceduralSource
from lumiere_jax.data.scene import (
    BACKGROUND_COLOURS,
    BACKGROUND_KINDS,
    DIRECTIONS,
    OBJECT_COLOURS,
    PATH_LENGTH,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    render,
)
from lumiere_jax.data.scene_captions import all_combinations, describe, fits, parse_caption
from lumiere_jax.data.source import fingerprint

__all__ = ["MovingShapes", "Scene", "SceneObject", "is_held_out", "parse_caption", "render"]

_HELD_OUT_ONE_IN = 10
_MARGIN = 0.02  # of the frame's width, between the object and the border
_PLACEMENTS = 8  # tries at keeping two objects apart
_LONG_PLACEMENTS = 24  # the same where paths are not straight
_APART = 0.6  # of the two radii: the least distance then, or other motions are drawn
_PASSING = 0.3  # share of clips of two objects, of the long world, in which one passes behind
_PASSING_WAY = (0.88, 0.98)  # of the room that there is
_FRONT_WAY = (0.35, 0.45)  # of the object in front, where it moves
_MEETING = (0.42, 0.58)  # when their centres are closest
_OFF_CENTRE = 0.05
_CLEAR = 0.9  # of the two radii: how far apart they begin and end, along one axis

Combination = tuple[str, str, str, str]


def is_held_out(shape: str, colour: str, direction: str, background_colour: str) -> bool:
    """Tells whether a combination belongs to the test split: a stable hash, about one in ten."""
    name = "|".join((shape, colour, direction, background_colour))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _HELD_OUT_ONE_IN == 0


def _place(size: str, direction: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws a path, (start, end), along which the whole object stays inside the frame."""
    step = np.asarray(DIRECTIONS[direction]) * rng.uniform(*PATH_LENGTH)
    low = SIZES[size] / 2 + _MARGIN
    high = 1.0 - low
    start = rng.uniform(low - np.minimum(step, 0.0), high - np.maximum(step, 0.0))
    return start, start + step


def _clearance(paths: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The least distance between two objects' centres over the clip, in frame widths."""
    (start, end), (other_start, other_end) = paths
    times = np.linspace(0.0, 1.0, 9)[:, None]
    offset = start - other_start
    gap = offset + times * (end - other_end - offset)
    return float(np.sqrt((gap**2).sum(axis=1)).min())


@dataclasses.dataclass(frozen=True)
class MovingShapes(ProceduralSource):
    """Procedural clips of moving shapes, each a pure function of its index.

    The scene depends on index and source seed only, so sources of different resolution or frame
    count show the same scenes. The path is always walked once over the whole clip (45 to 55% of the
    frame's width, whatever `num_frames`). Shapes can be told apart from 16 pixels on.
    """

    textured_probability: float = 0.5  # share of clips whose background is not plain
    segments: int = 1  # equal parts of the path, of which a clip shows one, at random

    name: ClassVar[str] = "moving_shapes"
    least_resolution: ClassVar[int] = 8

    @functools.cached_property
    def _combinations(self) -> list[Combination]:
        """Those of the split."""
        held_out = self.split == "test"
        return [c for c in all_combinations() if is_held_out(*c) == held_out]

    @functools.cached_property
    def _by_background(self) -> dict[str, list[Combination]]:
        return {
            name: [c for c in self._combinations if c[3] == name] for name in BACKGROUND_COLOURS
        }

    @property
    def fingerprint(self) -> str:
        """Names the clips, which depend on the settings alone (`fps` changes none of them)."""
        shares = (self.share_of_two, self.textured_probability)
        settings = (self.num_frames, self.resolution, self.split, self.size, shares, self.seed)
        # Sources without segments keep the name they had before.
        segments = (self.segments,) if self.segments > 1 else ()
        world = (self.motions,) if self.motions != "straight" else ()
        return fingerprint("moving_shapes", settings=(*settings, *segments, *world))

    def scene(self, index: int) -> Scene:
        """The truth about clip `index`."""
        return self._draw_scene(self.generator(index))

    def example(self, index: int, seed: int = 0) -> tuple[Video, str]:
        """Draws clip `index` and its caption; `seed` is ignored."""
        rng = self.generator(index)
        scene = self._draw_scene(rng)
        caption = describe(scene, rng)
        return render(scene, self._times(rng), self.resolution), caption

    def _times(self, rng: np.random.Generator) -> Float[np.ndarray, " time"]:
        """Draws the moments of the frames, in [0, 1]."""
        segment = int(rng.integers(self.segments)) if self.segments > 1 else 0
        begin, end = segment / self.segments, (segment + 1) / self.segments
        if self.num_frames == 1:
            return np.array([rng.uniform(begin, end)])
        return np.linspace(begin, end, self.num_frames)

    def _draw_scene(self, rng: np.random.Generator) -> Scene:
        return self._draw_long(rng) if self.motions == "long" else self._draw_straight(rng)

    def _draw_long(self, rng: np.random.Generator) -> Scene:
        """Draws one object, or two until they are apart or one passes behind the other."""
        two = rng.uniform() < self.share_of_two
        passing = two and rng.uniform() < _PASSING
        while True:
            combinations = self._draw_combinations(1 + two, passing, rng)
            sizes = [_choose(SIZES, rng) for _ in combinations]
            if passing or sizes == ["large", "large"]:
                sizes[0] = "small"  # what is to be hidden
            names = [combination[2] for combination in combinations]
            paths = _passing_paths(sizes, names, rng) if passing else _long_paths(sizes, names, rng)
            gap = _APART * sum(SIZES[size] / 2 for size in sizes)
            if not two or passing or motions.clearance(paths) >= gap:
                break
        objects = tuple(
            SceneObject(shape, colour, size, name, _centre(path, 0.0), _centre(path, 1.0), path)
            for (shape, colour, name, _), size, path in zip(combinations, sizes, paths, strict=True)
        )
        return Scene(objects, combinations[0][3], self._draw_kind(rng), passing)

    def _draw_combinations(
        self, count: int, passing: bool, rng: np.random.Generator
    ) -> list[Combination]:
        """Draws objects of different colours for one background until all are in the split."""
        held_out = self.split == "test"
        while True:
            names = [motions.draw_motion(rng).name for _ in range(count)]
            if passing:
                names = _passing_directions(rng)
            background = _choose(BACKGROUND_COLOURS, rng)
            found = [
                (_choose(SHAPES, rng), _choose(OBJECT_COLOURS, rng), n, background) for n in names
            ]
            in_split = all(is_held_out(*combination) == held_out for combination in found)
            colours = {combination[1] for combination in found}
            if in_split and len(colours) == count and fits(names, passing):
                return found

    def _draw_kind(self, rng: np.random.Generator) -> str:
        if rng.uniform() >= self.textured_probability:
            return "plain"
        return BACKGROUND_KINDS[1 + int(rng.integers(len(BACKGROUND_KINDS) - 1))]

    def _draw_straight(self, rng: np.random.Generator) -> Scene:
        combinations = [self._combinations[int(rng.integers(len(self._combinations)))]]
        if rng.uniform() < self.share_of_two:
            combinations.append(self._draw_companion(combinations[0], rng))
        sizes = [list(SIZES)[int(rng.integers(len(SIZES)))] for _ in combinations]
        if sizes == ["large", "large"]:  # two large objects would hide each other
            sizes[int(rng.integers(2))] = "small"
        kind = self._draw_kind(rng)
        objects = _build_objects(combinations, sizes, rng)
        return Scene(objects, combinations[0][3], kind)

    def _draw_companion(self, first: Combination, rng: np.random.Generator) -> Combination:
        """Draws a second object of another colour for the same background."""
        candidates = self._by_background[first[3]]
        while True:
            companion = candidates[int(rng.integers(len(candidates)))]
            if companion[1] != first[1]:
                return companion


def _build_objects(
    combinations: list[Combination], sizes: list[str], rng: np.random.Generator
) -> tuple[SceneObject, ...]:
    """Places the objects: of several draws of two paths, the one that keeps them furthest apart."""
    directions = [combination[2] for combination in combinations]
    draws = [
        [_place(*pair, rng) for pair in zip(sizes, directions, strict=True)]
        for _ in range(_PLACEMENTS if len(combinations) > 1 else 1)
    ]
    paths = max(draws, key=_clearance) if len(draws) > 1 else draws[0]
    return tuple(
        SceneObject(shape, colour, size, direction, tuple(start.tolist()), tuple(end.tolist()))
        for (shape, colour, direction, _), size, (start, end) in zip(
            combinations, sizes, paths, strict=True
        )
    )


def _choose(names: Iterable[str], rng: np.random.Generator) -> str:
    every = list(names)
    return every[int(rng.integers(len(every)))]


def _half(size: str) -> motions.Half:
    return SIZES[size] / 2, SIZES[size] / 2


def _centre(path: motions.Path, time: float) -> tuple[float, float]:
    x, y = path(np.array([time]))[0].tolist()
    return x, y


def _long_paths(
    sizes: list[str], names: list[str], rng: np.random.Generator
) -> tuple[motions.Path, ...]:
    """Paths for these motions: of two, those of several draws that stay furthest apart."""
    halves = [_half(size) for size in sizes]
    drawn = [motions.MOTIONS[name] for name in names]
    draws = [
        tuple(motion.draw(half, rng) for motion, half in zip(drawn, halves, strict=True))
        for _ in range(_LONG_PLACEMENTS if len(names) > 1 else 1)
    ]
    return max(draws, key=motions.clearance) if len(names) > 1 else draws[0]


def _passing_directions(rng: np.random.Generator) -> list[str]:
    """Draws how the object behind moves, and how the one in front: not at all, or athwart."""
    behind = _choose((name for name in DIRECTIONS if name != "still"), rng)
    athwart = [n for n in DIRECTIONS if np.dot(DIRECTIONS[n], DIRECTIONS[behind]) < 0.1]
    return [behind, "still" if rng.uniform() < 0.5 else _choose(athwart, rng)]


def _passing_paths(
    sizes: list[str], names: list[str], rng: np.random.Generator
) -> tuple[motions.Path, ...]:
    """Two straight paths whose objects are clear of each other but in the middle of the clip."""
    units = [np.array(DIRECTIONS[name]) for name in names]
    radii = [SIZES[size] / 2 for size in sizes]
    lows = [radius + _MARGIN for radius in radii]
    room = (1.0 - 2.0 * lows[0]) / np.abs(units[0]).max()
    while True:
        step = units[0] * room * rng.uniform(*_PASSING_WAY)
        start = rng.uniform(lows[0] - np.minimum(step, 0.0), 1.0 - lows[0] - np.maximum(step, 0.0))
        meeting = rng.uniform(*_MEETING)
        front_step = units[1] * rng.uniform(*_FRONT_WAY)
        offset = rng.uniform(-_OFF_CENTRE, _OFF_CENTRE, 2)
        front = start + meeting * (step - front_step) + offset
        paths = [
            np.stack([place, place + way]) for place, way in ((start, step), (front, front_step))
        ]
        inside = paths[1].min() >= lows[1] and paths[1].max() <= 1.0 - lows[1]
        gaps = np.abs(paths[0] - paths[1]).max(axis=1)
        if inside and gaps.min() >= _CLEAR * sum(radii):
            return tuple(
                motions.Polyline((0.0, 1.0), tuple((x, y) for x, y in path.tolist()))
                for path in paths
            )
