"""The oracle of `moving_shapes` with long motions: does a clip show what its caption says?

It judges what `lumiere_jax.metrics.long_vision` sees in the frames; only the number of objects to
look for (one or two) is taken from the caption.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lumiere_jax.data.scene_captions import ObjectAttributes, SceneAttributes, parse_caption
from lumiere_jax.metrics import motion_reading
from lumiere_jax.metrics.long_vision import Followed, LongScene, look
from lumiere_jax.metrics.scene_vision import Video

SCORES = ("colour", "shape", "direction", "order", "frequency", "passing", "same", "background")
"""What must be right for all to be, where the caption says something of it."""
EXTRA_SCORES = ("all", "size", "background_kind", "frames")


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether a clip shows what its caption says; None where the caption does not say.

    Of two objects, both must be right. What cannot be seen counts as wrong.
    """

    colour: bool
    shape: bool  # of the clip as a whole; `same` and `frames` tell of single frames
    direction: bool  # of every phase; side of a bounce, sense of a circle, axis of a swing
    order: bool | None  # of the phases: more like the caption's than like any other
    frequency: bool | None  # of circles and swings: within 15% of what the words stand for
    passing: bool | None  # the object that should passes behind the other, and comes out again
    same: bool  # colour, shape and size are those of the clip in every frame, and nothing jumps
    background: bool  # its colour
    size: bool | None
    background_kind: bool | None
    frames: float  # share of frames with the caption's colour and shape; the worse of two objects
    frequency_errors: tuple[float | None, ...]  # seen over stated, less 1; NaN: seen to be no wave
    seen: LongScene  # what was seen, in the caption's order of objects

    @property
    def all(self) -> bool:
        """Whether all of `SCORES` are right that the caption says something of."""
        return all(getattr(self, name) is not False for name in SCORES)


def judge(video: Video, caption: str | SceneAttributes) -> Judgement:
    """Judges one clip by its caption, or what that says.

    Fewer than 5 frames show no motion, which then counts as wrong. A caption that is not in the
    grammar of `moving_shapes` is a `UserError`.
    """
    wanted = parse_caption(caption) if isinstance(caption, str) else caption
    return compare(wanted, look(video, len(wanted.objects)))


def compare(wanted: SceneAttributes, seen: LongScene) -> Judgement:
    """Judges what was seen of a clip, in which as many objects as wanted were looked for."""
    order = _order(wanted, seen)
    objects = tuple(seen.objects[place] for place in order)
    behind = None if seen.behind is None else order.index(seen.behind)
    pairs = list(zip(wanted.objects, objects, strict=True))
    names = [asked.direction for asked in wanted.objects]

    def right(of: Callable[[ObjectAttributes, Followed], bool | None]) -> bool | None:
        return every(of(asked, found) for asked, found in pairs)

    return Judgement(
        colour=all(asked.colour == found.colour for asked, found in pairs),
        shape=all(asked.shape == found.shape for asked, found in pairs),
        direction=all(
            motion_reading.has_direction(asked.direction, found.motion) for asked, found in pairs
        ),
        order=right(lambda a, f: motion_reading.has_order(a.direction, f.times, f.centres)),
        frequency=right(lambda a, f: motion_reading.has_frequency(a.direction, f.motion)),
        passing=behind == 0 if wanted.passing else None,
        same=all(found.same for found in objects),
        background=seen.background == wanted.background_colour,
        size=right(lambda a, f: None if a.size is None else a.size == f.size),
        background_kind=(
            None
            if wanted.background_kind is None
            else wanted.background_kind == seen.background_kind
        ),
        frames=min(found.share(asked.colour, asked.shape) for asked, found in pairs),
        frequency_errors=tuple(
            motion_reading.frequency_error(name, found.motion)
            for name, found in zip(names, objects, strict=True)
        ),
        seen=dataclasses.replace(seen, objects=objects, behind=behind),
    )


def every(answers: Iterable[bool | None]) -> bool | None:
    """Whether all are right that are not None; None where there is none."""
    told = [answer for answer in answers if answer is not None]
    return all(told) if told else None


def _order(wanted: SceneAttributes, seen: LongScene) -> tuple[int, ...]:
    """Which seen object is which of the caption: those that agree best, colour first."""

    def agreement(order: tuple[int, ...]) -> list[int]:
        pairs = [(a, seen.objects[i]) for a, i in zip(wanted.objects, order, strict=True)]
        same = [
            [a.colour == found.colour for a, found in pairs],
            [a.shape == found.shape for a, found in pairs],
            [motion_reading.has_direction(a.direction, found.motion) for a, found in pairs],
        ]
        return list(map(sum, same))

    return max(itertools.permutations(range(len(seen.objects))), key=agreement)


def score(videos: Sequence[Video], captions: Sequence[str | SceneAttributes]) -> dict[str, float]:
    """Judges many clips, each by its caption: the share right, of those whose caption says it.

    `SCORES` and `EXTRA_SCORES`; NaN where no caption says anything of one.
    """
    return shares([judge(*pair) for pair in zip(videos, captions, strict=True)])


def shares(judgements: Sequence[Judgement]) -> dict[str, float]:
    """The scores of clips that were judged."""
    return {name: share(judgements, name) for name in (*SCORES, *EXTRA_SCORES)}


def share(judgements: Sequence[object], name: str) -> float:
    """The mean of a field where it is not None; NaN where it always is."""
    told = [value for j in judgements if (value := getattr(j, name)) is not None]
    return float(np.mean(told)) if told else float("nan")
