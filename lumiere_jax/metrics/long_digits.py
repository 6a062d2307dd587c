"""The oracle of `moving_digits` with long motions: does a clip show what its caption says?

Digits are read as by `digit_oracle`, in every frame in which they are apart; their tracks are read
by `motion_reading`. Only the number of digits is taken from the caption.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from lumiere_jax.data.moving_digits import DigitAttributes, parse_caption
from lumiere_jax.metrics import motion_reading
from lumiere_jax.metrics.digit_oracle import Video, blobs, reader
from lumiere_jax.metrics.long_oracle import every, share
from lumiere_jax.metrics.motion_reading import SeenMotion

SCORES = ("digit", "direction", "order", "frequency", "same")
"""What must be right for all to be, where the caption says something of it."""
EXTRA_SCORES = ("all", "each", "frames")

_LEAST_FRAMES = 0.4  # share of the frames in which the digits must be apart to be followed
_SAME = 0.86  # the least cosine of two frames' pictures of one digit; sampling leaves 0.90
_PLACEMENTS = 2  # of each handwriting that the reader learns; 98.9% of held-out ones are read
_SURE = 0.1  # by how much two cosines must speak for one of two ways to follow digits
_CONTACT = 0.07  # of the frame's width: a pale outline counts as part of what touches the border
_MOST_SIDE = 64  # of a frame, in pixels; larger ones are averaged down towards this


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedDigit:
    """What is seen of one digit over a clip."""

    digit: int  # by all frames together
    digits: Int[np.ndarray, " frames"]  # by each frame in which it is apart
    likeness: float  # cosine of those two frames' pictures of it that are least alike
    motion: SeenMotion
    times: motion_reading.Times  # of those frames, in [0, 1]
    centres: motion_reading.Centres  # in those frames


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether a clip shows what its caption says; None where the caption does not say.

    Of two digits, both must be right. What cannot be seen counts as wrong.
    """

    digit: bool
    direction: bool  # of every phase; side of a bounce, sense of a circle, axis of a swing
    order: bool | None  # of the phases: more like the caption's than like any other
    frequency: bool | None  # of circles and swings: within 15% of what the words stand for
    same: bool  # no two frames show handwriting that is not alike
    each: float  # share of the digits that are right
    frames: float  # share of frames that are read as the caption says; the worse of two digits
    seen: tuple[FollowedDigit, ...]  # in the caption's order; empty where they are not followed

    @property
    def all(self) -> bool:
        """Whether all of `SCORES` are right that the caption says something of."""
        return all(getattr(self, name) is not False for name in SCORES)


def judge(video: Video, caption: str) -> Judgement:
    """Judges one clip by its caption; a `UserError` if that is not one of `moving_digits`."""
    wanted = parse_caption(caption)
    return compare(wanted, look(video, len(wanted)))


def compare(wanted: Sequence[DigitAttributes], seen: Sequence[FollowedDigit]) -> Judgement:
    """Judges what was seen of a clip, in which as many digits as wanted were looked for."""
    if not seen:
        nowhere = np.zeros((0, 2))
        return Judgement(
            digit=False,
            direction=False,
            order=every(motion_reading.has_order(a.motion, nowhere[:, 0], nowhere) for a in wanted),
            frequency=every(motion_reading.has_frequency(a.motion, SeenMotion()) for a in wanted),
            same=False,
            each=0.0,
            frames=0.0,
            seen=(),
        )

    def agreement(order: tuple[FollowedDigit, ...]) -> tuple[int, int]:
        pairs = list(zip(wanted, order, strict=True))
        digits = sum(asked.digit == found.digit for asked, found in pairs)
        return digits, sum(motion_reading.has_direction(a.motion, f.motion) for a, f in pairs)

    best = max(itertools.permutations(seen), key=lambda order: sum(agreement(order)))
    pairs = list(zip(wanted, best, strict=True))
    digits, directions = agreement(best)
    return Judgement(
        digit=digits == len(pairs),
        direction=directions == len(pairs),
        order=every(motion_reading.has_order(a.motion, f.times, f.centres) for a, f in pairs),
        frequency=every(motion_reading.has_frequency(a.motion, f.motion) for a, f in pairs),
        same=all(found.likeness >= _SAME for found in best),
        each=digits / len(pairs),
        frames=min(float(np.mean(found.digits == asked.digit)) for asked, found in pairs),
        seen=best,
    )


def look(video: Video, count: int) -> tuple[FollowedDigit, ...]:
    """What a clip shows of one or two digits; nothing where they are apart in too few frames."""
    levels = np.clip((np.asarray(video, np.float32).mean(axis=-1) + 1) / 2, 0, 1)
    length, side = levels.shape[:2]
    factor = max(f for f in range(1, max(1, side // _MOST_SIDE) + 1) if side % f == 0)
    levels = levels.reshape(length, side // factor, factor, side // factor, factor)
    levels = levels.mean(axis=(2, 4))
    found = [blobs(frame, count) for frame in levels]
    numbers = np.array([number for number, parts in enumerate(found) if parts])
    if len(numbers) < max(_LEAST_FRAMES * length, 2):
        return ()
    svm = reader(levels.shape[1], _PLACEMENTS)
    parts = [part for parts in found for part in parts]
    pictures = np.array([picture for _, _, picture in parts])
    votes = svm.decision_function(pictures).reshape(len(numbers), count, -1)
    pictures = pictures.reshape(len(numbers), count, -1)
    centres = np.array([centre for centre, _, _ in parts]).reshape(len(numbers), count, 2)
    halves = np.array([half for _, half, _ in parts]).reshape(len(numbers), count, 2)
    times = numbers / max(length - 1, 1)
    order = _follow(numbers, times, centres, pictures)
    votes, centres, halves, pictures = (
        np.take_along_axis(values, order[..., None], axis=1)
        for values in (votes, centres, halves, pictures)
    )
    return tuple(
        FollowedDigit(
            digit=int(svm.classes_[votes[:, n].sum(axis=0).argmax()]),
            digits=svm.classes_[votes[:, n].argmax(axis=-1)],
            likeness=_least_cosine(pictures[:, n]),
            motion=_read(times, centres[:, n], halves[:, n]),
            times=times,
            centres=centres[:, n],
        )
        for n in range(count)
    )


def _least_cosine(pictures: Float[np.ndarray, "frames pixels"]) -> float:
    units = pictures / np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-6)
    return float((units @ units.T).min())


def _read(
    times: motion_reading.Times, centres: motion_reading.Centres, halves: motion_reading.Centres
) -> SeenMotion:
    width, height = np.median(halves, axis=0).tolist()
    return motion_reading.read(times, centres, (width, height), _CONTACT)


def _follow(
    numbers: Int[np.ndarray, " frames"],
    times: motion_reading.Times,
    centres: Float[np.ndarray, "frames digits 2"],
    pictures: Float[np.ndarray, "frames digits pixels"],
) -> Int[np.ndarray, "frames digits"]:
    """Which blob is which digit: the nearer one; after a gap, what looks or moves like it."""
    count = centres.shape[1]
    order = np.tile(np.arange(count), (len(centres), 1))
    if count == 1:
        return order
    begins = np.flatnonzero(np.diff(numbers, prepend=numbers[0]) > 1)
    parts = np.split(np.arange(len(numbers)), begins)
    for part in parts:
        for before, n in itertools.pairwise(part):
            place = centres[before][order[before]]
            placed = [
                np.linalg.norm(centres[n][turn] - place, axis=1).sum() for turn in ([0, 1], [1, 0])
            ]
            order[n] = [0, 1] if placed[0] <= placed[1] else [1, 0]
    turned = np.take_along_axis(pictures, order[..., None], axis=1)
    looks = np.array([turned[part].mean(axis=0) for part in parts])
    looks /= np.maximum(np.linalg.norm(looks, axis=-1, keepdims=True), 1e-6)
    longest = looks[int(np.argmax([len(part) for part in parts]))]
    # How much more like the longest part's digits those of each part are, if they are exchanged.
    gains = ((looks[:, ::-1] - looks) * longest).sum(axis=(1, 2))
    for part, gain in zip(parts, gains, strict=True):
        if gain > 0:
            order[part] = order[part][:, ::-1]
    for part, gain in zip(parts, gains, strict=True):
        if abs(gain) < _SURE and len(parts) > 1:
            other = order.copy()
            other[part] = other[part][:, ::-1]
            if _error(times, centres, other) < _error(times, centres, order):
                order = other
    return order


def _error(
    times: motion_reading.Times,
    centres: Float[np.ndarray, "frames digits 2"],
    order: Int[np.ndarray, "frames digits"],
) -> float:
    """How far two tracks are from any motion, root mean square."""
    tracks = np.take_along_axis(centres, order[..., None], axis=1)
    errors = [motion_reading.read(times, tracks[:, n], (0.0, 0.0), 0.0).error for n in range(2)]
    return float(np.linalg.norm(errors))


def score(videos: Sequence[Video], captions: Sequence[str]) -> dict[str, float]:
    """Judges many clips, each by its caption: the share right, of those whose caption says it.

    `SCORES` and `EXTRA_SCORES`; NaN where no caption says anything of one.
    """
    judgements = [judge(*pair) for pair in zip(videos, captions, strict=True)]
    return {name: share(judgements, name) for name in (*SCORES, *EXTRA_SCORES)}
