"""`moving_shapes`: an endless procedural source of captioned clips that needs no download.

Coloured shapes move in straight lines, or stand still, over plain or textured backgrounds. The
truth about every clip is known, so `lumiere_jax.metrics.oracle` can say whether a generated clip
shows what its caption asks for. About a tenth of all combinations of shape, colour, direction and
background colour are held out of the training split and make up the test split.
"""

import hashlib

import numpy as np

from lumiere_jax.data.fingerprint import fingerprint
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
from lumiere_jax.runtime.errors import UserError

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


class MovingShapes:
    """Procedural clips of moving shapes, each a pure function of its index.

    The scene depends on index and source seed only, so sources of different resolution or frame
    count show the same scenes. The path is always walked once over the whole clip (45 to 55% of the
    frame's width, whatever `num_frames`), so `fps` only says how fast to play it. With one frame,
    a random moment of the clip is shown. With `segments`, a clip is one of so many equal parts of
    the path, at random; its caption is that of the whole.
    """

    def __init__(
        self,
        num_frames: int = 8,
        resolution: int = 16,
        fps: float = 8,
        split: str = "train",
        size: int = 1_000_000,
        max_objects: int = 1,
        two_object_probability: float = 0.5,
        textured_probability: float = 0.5,
        segments: int = 1,
        seed: int = 0,
    ):
        """Checks the settings and lists the combinations of the split.

        Args:
          num_frames: Frames of a clip, at least 1.
          resolution: Pixels along each side, at least 8; shapes can be told apart from 16.
          fps: Frames per second at which the clip is meant to be played.
          split: "train" or "test".
          size: How many clips an epoch has.
          max_objects: 1, or 2 to allow two objects in a clip.
          two_object_probability: Share of clips with two objects where `max_objects` is 2.
          textured_probability: Share of clips whose background is not plain.
          segments: How many parts the path is cut into, of which a clip shows one.
          seed: Seed of the whole source.

        Raises:
          UserError: A setting is out of range.
        """
        probabilities = (two_object_probability, textured_probability)
        _check(split, num_frames, resolution, fps, size, max_objects, probabilities, segments)
        self.num_frames = num_frames
        self.resolution = resolution
        self.fps = fps
        self.split = split
        self._size = size
        self._two_object_probability = two_object_probability if max_objects == 2 else 0.0
        self._textured_probability = textured_probability
        self._segments = segments
        self._seed = seed
        held_out = split == "test"
        self._combinations = [c for c in all_combinations() if is_held_out(*c) == held_out]
        self._by_background = {
            name: [c for c in self._combinations if c[3] == name] for name in BACKGROUND_COLOURS
        }

    def __len__(self) -> int:
        return self._size

    @property
    def fingerprint(self) -> str:
        """Names the clips, which depend on the settings alone (`fps` changes none of them)."""
        shares = (self._two_object_probability, self._textured_probability)
        settings = (self.num_frames, self.resolution, self.split, self._size, shares, self._seed)
        if self._segments > 1:  # sources without segments keep the name they had before
            settings = (*settings, self._segments)
        return fingerprint("moving_shapes", settings=settings)

    def scene(self, index: int) -> Scene:
        """Returns the truth about clip `index`.

        Raises:
          IndexError: `index` is outside [0, len(self)).
        """
        return self._draw_scene(self._rng(index))

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """Draws clip `index`.

        Args:
          index: In [0, len(self)).
          seed: Ignored: a clip has no augmentation. Other sources pick a random clip with it.

        Returns:
          The video, float32 [time, height, width, 3] in [-1, 1], and its caption.

        Raises:
          IndexError: `index` is outside [0, len(self)).
        """
        rng = self._rng(index)
        scene = self._draw_scene(rng)
        caption = describe(scene, rng)
        return render(scene, self._times(rng), self.resolution), caption

    def _times(self, rng: np.random.Generator) -> np.ndarray:
        """Draws the moments of the frames, [time] in [0, 1]."""
        segment = int(rng.integers(self._segments)) if self._segments > 1 else 0
        begin, end = segment / self._segments, (segment + 1) / self._segments
        if self.num_frames == 1:
            return np.array([rng.uniform(begin, end)])
        return np.linspace(begin, end, self.num_frames)

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < self._size:
            raise IndexError(f"moving_shapes has {self._size} clips; there is no clip {index}")
        return np.random.default_rng((self._seed, int(index)))

    def _draw_scene(self, rng: np.random.Generator) -> Scene:
        combinations = [self._combinations[int(rng.integers(len(self._combinations)))]]
        if rng.uniform() < self._two_object_probability:
            combinations.append(self._draw_companion(combinations[0], rng))
        sizes = [list(SIZES)[int(rng.integers(len(SIZES)))] for _ in combinations]
        if sizes == ["large", "large"]:  # two large objects would hide each other
            sizes[int(rng.integers(2))] = "small"
        kind = "plain"
        if rng.uniform() < self._textured_probability:
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


def _check(split, num_frames, resolution, fps, size, max_objects, probabilities, segments) -> None:
    checks = (
        (split in ("train", "test"), f'split must be "train" or "test", not "{split}"'),
        (num_frames >= 1, f"num_frames must be at least 1, not {num_frames}"),
        (resolution >= 8, f"resolution must be at least 8 pixels, not {resolution}"),
        (fps > 0, f"fps must be positive, not {fps}"),
        (size >= 1, f"size must be at least 1 clip, not {size}"),
        (segments >= 1, f"segments must be at least 1, not {segments}"),
        (max_objects in (1, 2), f"max_objects must be 1 or 2, not {max_objects}"),
        (
            all(0 <= probability <= 1 for probability in probabilities),
            "two_object_probability and textured_probability must be in [0, 1], not "
            f"{probabilities[0]} and {probabilities[1]}",
        ),
    )
    for right, message in checks:
        if not right:
            raise UserError(f"moving_shapes: {message}.")
