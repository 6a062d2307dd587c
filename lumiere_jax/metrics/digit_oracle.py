"""The oracle of `moving_digits`: does a clip show the digits that its caption says, moving so?

Digits are read by a support vector machine that knows the training split's handwriting, and has
seen nothing of a generative model. `long_digits` judges clips with long motions.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from lumiere_jax.data.moving_digits import (
    MOTIONS,
    SIDE,
    DigitAttributes,
    MovingDigit,
    handwritings,
    is_held_out,
    parse_caption,
    render,
)
from lumiere_jax.runtime.arrays import Array

if TYPE_CHECKING:
    from sklearn.svm import SVC

_FLOOR = 0.35  # of the brightest pixel; less is noise
_LEAST_AREA = 0.006  # of the frame; a thin "1" covers 0.02
PATCH = 8
Video = Float[Array, "time side side 3"]
"""In [-1, 1], square, at least 16 pixels wide."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether a clip shows what its caption says; of two digits, both must be right."""

    digit: bool  # every digit is read as the caption says
    motion: bool  # every digit moves along the axis that the caption says
    seen: tuple[DigitAttributes | None, ...]  # in the caption's order; None: not followed

    @property
    def all(self) -> bool:
        """Whether digits and motions are right."""
        return self.digit and self.motion


def judge(video: Video, caption: str) -> Judgement:
    """Judges one clip by its caption; a `UserError` if that is not one of `moving_digits`."""
    wanted = parse_caption(caption)
    seen = look(video, len(wanted))

    def right(order: Sequence[DigitAttributes | None]) -> tuple[int, int]:
        pairs = [(asked, found) for asked, found in zip(wanted, order, strict=True) if found]
        digits = sum(asked.digit == found.digit for asked, found in pairs)
        return digits, sum(asked.motion == found.motion for asked, found in pairs)

    best = max(itertools.permutations(seen), key=lambda order: sum(right(order)))
    digits, motions = right(best)
    return Judgement(digits == len(wanted), motions == len(wanted), tuple(best))


def look(video: Video, count: int) -> tuple[DigitAttributes | None, ...]:
    """What a clip shows of one or two digits."""
    levels = np.clip((np.asarray(video, np.float32).mean(axis=-1) + 1) / 2, 0, 1)
    # Frames in which digits overlap, or none is visible, say nothing.
    frames = [parts for parts in (blobs(frame, count) for frame in levels) if parts]
    if not frames:
        return (None,) * count
    svm = reader(min(levels.shape[1], 64))
    patches = np.array([[blob[2] for blob in parts] for parts in frames])
    votes = svm.decision_function(patches.reshape(-1, PATCH**2)).reshape(*patches.shape[:2], -1)
    motions, order = _follow(np.array([[blob[0] for blob in parts] for parts in frames]))
    votes = np.take_along_axis(votes, order[..., None], axis=1).sum(axis=0)
    digits = svm.classes_[votes.argmax(axis=-1)]
    return tuple(itertools.starmap(DigitAttributes, zip(map(int, digits), motions, strict=True)))


def _follow(
    centres: Float[np.ndarray, "time digits 2"],
) -> tuple[tuple[str, ...], Int[np.ndarray, "time digits"]]:
    """The motions of the digits, and their order in every frame.

    A digit's place on one axis stays: of all motions, and ways to begin, the best is that in which
    the places on those axes change least.
    """
    count = centres.shape[1]
    orders = np.array(list(itertools.permutations(range(count))))
    best: tuple[float, tuple[str, ...], np.ndarray] = (np.inf, (), orders[:0])
    for motions in itertools.product(MOTIONS, repeat=count):
        axes = np.array([1 if motion == MOTIONS[0] else 0 for motion in motions])
        # [time, order, digit]: each digit's place on the axis that it should not move on.
        places = centres[:, orders, axes]
        for first in range(len(orders) if len(set(motions)) > 1 else 1):
            chosen, kept = np.zeros(len(centres), int), places[0, first]
            for _ in range(3):
                chosen = np.abs(places - kept).sum(axis=-1).argmin(axis=1)
                kept = np.median(places[np.arange(len(places)), chosen], axis=0)
            cost = np.abs(places[np.arange(len(places)), chosen] - kept).sum()
            if cost < best[0]:
                best = (cost, motions, orders[chosen])
    return best[1], best[2]


def score(videos: Sequence[Video], captions: Sequence[str]) -> dict[str, float]:
    """Shares of clips whose digits, motions and both are right."""
    judged = [judge(video, caption) for video, caption in zip(videos, captions, strict=True)]
    return {
        name: float(np.mean([getattr(one, name) for one in judged]))
        for name in ("digit", "motion", "all")
    }


def blobs(
    frame: Float[np.ndarray, "side side"], count: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each digit: middle and half the size of its extent, (x, y) in frame widths, and picture.

    Nothing unless there are `count`.
    """
    bright = frame > _FLOOR * max(frame.max(), 0.5)
    for gap in (0, max(frame.shape[0] // 24, 1)):  # strokes of a digit may be a pixel apart
        near = ndimage.binary_dilation(bright, np.ones((3, 3)), iterations=gap) if gap else bright
        labels, number = ndimage.label(near, np.ones((3, 3)))
        parts = [np.where((labels == n) & bright, frame, 0) for n in range(1, number + 1)]
        parts = [part for part in parts if (part > 0).mean() >= _LEAST_AREA]
        if len(parts) == count:
            return [(*_extent(part), _patch(part)) for part in parts]
    return []


def _extent(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half the size of the bright pixels' extent, (x, y) in frame widths."""
    pixels = np.nonzero(part)[::-1]
    low = np.array([places.min() for places in pixels]) / part.shape[0]
    high = np.array([places.max() + 1 for places in pixels]) / part.shape[0]
    return (low + high) / 2, (high - low) / 2


def _patch(part: np.ndarray) -> np.ndarray:
    """The digit in the middle of 8×8 pixels, its brightest 1, flat."""
    size, side = part.shape[0], SIDE * part.shape[0]
    centre = _extent(part)[0] * size
    steps = (np.arange(4 * PATCH) + 0.5) / (4 * PATCH) * side - side / 2 - 0.5
    grid = np.meshgrid(centre[1] + steps, centre[0] + steps, indexing="ij")
    fine = ndimage.map_coordinates(part, grid, order=1, mode="grid-constant")
    patch = fine.reshape(PATCH, 4, PATCH, 4).mean(axis=(1, 3))
    return (patch / max(patch.max(), 1e-6)).ravel()


@functools.cache
def reader(size: int, placements: int = 1) -> "SVC":
    """Reads patches of frames of `size` pixels; trained when it is first asked for.

    It has seen every handwriting at so many places, which are between the pixels.
    """
    from sklearn.svm import SVC

    images, digits = handwritings()
    generator = np.random.default_rng(0)
    patches, labels = [], []
    numbers = itertools.filterfalse(is_held_out, range(len(images)))
    for number, _ in itertools.product(numbers, range(placements)):
        place = generator.uniform(0.0, 1.0, 2)
        item = MovingDigit(number, int(digits[number]), MOTIONS[0], place[0], 0.0, place[1])
        frame = (render((item,), np.zeros(1), size)[0, :, :, 0] + 1) / 2
        for _, _, patch in blobs(frame, 1):
            patches.append(patch)
            labels.append(item.digit)
    return SVC(C=10.0, gamma="scale", decision_function_shape="ovr").fit(patches, labels)
