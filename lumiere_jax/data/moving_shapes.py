"""`moving_shapes`: an endless procedural source of captioned clips that needs no download.

Coloured shapes move in straight lines, or stand still, over plain or textured backgrounds. The
truth about every clip is known, so `lumiere_jax.metrics.oracle` can say whether a generated clip
shows what its caption asks for. About a tenth of all combinations of shape, colour, direction and
background colour are held out of the training split and make up the test split.
"""

import dataclasses
import functools
import hashlib
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from lumiere_jax.data.pixels import Video
from lumiere_jax.data.procedural import ProceduralSource
from lumiere_jax.data.scene import (
    BACKGROUND_COLOURS,
    BACKGROUND_KINDS,
    DIRECTIONS,
    PATH_LENGTH,
    SIZES,
    Scene,
    SceneObject,
    render,
)
from lumiere_jax.data.scene_captions import all_combinations, describe, parse_caption
from lumiere_jax.data.source import fingerprint

__all__ = ["MovingShapes", "Scene", "SceneObject", "is_held_out", "parse_caption", "render"]

_HELD_OUT_ONE_IN = 10
_MARGIN = 0.02  # of the frame's width, between the object and the border
_PLACEMENTS = 8  # tries at keeping two objects apart

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
        return fingerprint("moving_shapes", settings=(*settings, *segments))

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
        combinations = [self._combinations[int(rng.integers(len(self._combinations)))]]
        if rng.uniform() < self.share_of_two:
            combinations.append(self._draw_companion(combinations[0], rng))
        sizes = [list(SIZES)[int(rng.integers(len(SIZES)))] for _ in combinations]
        if sizes == ["large", "large"]:  # two large objects would hide each other
            sizes[int(rng.integers(2))] = "small"
        kind = "plain"
        if rng.uniform() < self.textured_probability:
            kind = BACKGROUND_KINDS[1 + int(rng.integers(len(BACKGROUND_KINDS) - 1))]
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
