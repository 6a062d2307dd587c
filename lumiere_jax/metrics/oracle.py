"""The oracle of `moving_shapes`: does a clip show what its caption says?

It judges what `lumiere_jax.metrics.scene_vision` sees in the frames; only the number of objects to
look for (one or two) is taken from the caption.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from lumiere_jax.data.scene_captions import ObjectAttributes, SceneAttributes, parse_caption
from lumiere_jax.metrics.scene_vision import SeenObject, SeenScene, Video, look

ATTRIBUTES = ("colour", "shape", "direction", "background")
EXTRA_ATTRIBUTES = ("size", "background_kind")
FRAME_ATTRIBUTES = ("shape_frames", "shape_throughout")


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether a clip shows what its caption says, attribute by attribute.

    Of two objects, both must be right. An attribute that the oracle cannot see counts as wrong.
    """

    colour: bool  # of every object
    shape: bool  # of every object
    direction: bool  # of every object
    background: bool  # its colour
    size: bool | None  # of every object; None where the caption does not say
    background_kind: bool | None  # plain, striped or checkered; None where the caption does not say
    shape_frames: float  # share of frames that show the shape; of two objects, the lower one
    seen: SeenScene  # what was seen, in the caption's order of objects

    @property
    def shape_throughout(self) -> bool:
        """Whether the worst frame shows the shape, too."""
        return self.shape_frames == 1.0

    @property
    def all(self) -> bool:
        """Whether colour, shape, direction and background are all right."""
        return self.colour and self.shape and self.direction and self.background


def judge(video: Video, caption: str | SceneAttributes) -> Judgement:
    """Judges one clip by its caption, or what that says.

    A single frame shows no direction, which then counts as wrong. A caption that is not in the
    grammar of `moving_shapes` is a `UserError`.
    """
    wanted = parse_caption(caption) if isinstance(caption, str) else caption
    seen = look(video, len(wanted.objects))
    pairs = _pair(wanted, seen)
    seen = dataclasses.replace(seen, objects=tuple(found for _, found in pairs))
    kind = wanted.background_kind

    def right(name: str) -> bool:
        return all(getattr(asked, name) == getattr(found, name) for asked, found in pairs)

    return Judgement(
        colour=right("colour"),
        shape=right("shape"),
        direction=right("direction"),
        background=seen.background == wanted.background_colour,
        size=None if any(asked.size is None for asked in wanted.objects) else right("size"),
        background_kind=None if kind is None else seen.background_kind == kind,
        shape_frames=min(
            float(np.mean([shape == asked.shape for shape in found.shapes]))
            for asked, found in pairs
        ),
        seen=seen,
    )


def score(videos: Sequence[Video], captions: Sequence[str | SceneAttributes]) -> dict[str, float]:
    """Judges many clips, each by its caption, see `judge`.

    The scores are the fraction right for each of `ATTRIBUTES`, of "all" four at once, and of
    `EXTRA_ATTRIBUTES` among the captions that name them (NaN if none does); of
    `FRAME_ATTRIBUTES`, which see what an average over the clip hides, "shape_frames" is the share
    of frames with the right shape, and "shape_throughout" of clips that have it in all frames.
    """
    if len(videos) != len(captions) or not len(videos):
        raise ValueError(f"{len(videos)} videos and {len(captions)} captions cannot be scored")
    judgements = [judge(*pair) for pair in zip(videos, captions, strict=True)]
    scores = {}
    for name in (*ATTRIBUTES, "all", *EXTRA_ATTRIBUTES, *FRAME_ATTRIBUTES):
        right = [getattr(j, name) for j in judgements if getattr(j, name) is not None]
        scores[name] = float(np.mean(right)) if right else float("nan")
    return scores


def chance(
    videos: Sequence[Video], captions: Sequence[str | SceneAttributes], seed: int = 0
) -> dict[str, float]:
    """Scores clips by captions of others, shuffled by `seed`: what luck alone would reach."""
    if len(videos) < 2:
        raise ValueError("chance needs at least two clips, to exchange their captions")
    order = np.random.default_rng(seed).permutation(len(captions))
    shuffled = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return score(videos, [captions[shuffled[i]] for i in range(len(captions))])


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """Writes scores by name (generated, ground truth, chance) as a table to print, in percent."""
    columns = (*ATTRIBUTES, "all", *EXTRA_ATTRIBUTES, *FRAME_ATTRIBUTES)
    widths = {column: max(len(column), len("100.0%")) for column in columns}
    first = max(map(len, rows), default=0)
    head = [f"{column.replace('_', ' '):>{width}}" for column, width in widths.items()]
    lines = ["  ".join([" " * first, *head])]
    for name, scores in rows.items():
        cells = [f"{scores[column]:>{width}.1%}" for column, width in widths.items()]
        lines.append("  ".join([f"{name:<{first}}", *cells]))
    return "\n".join(lines)


def _pair(wanted: SceneAttributes, seen: SeenScene) -> list[tuple[ObjectAttributes, SeenObject]]:
    """Pairs each object of the caption with the seen one that agrees best, colour first."""

    def agreement(order: tuple[SeenObject, ...]) -> list[int]:
        pairs = list(zip(wanted.objects, order, strict=True))
        same = [[getattr(a, name) == getattr(b, name) for a, b in pairs] for name in ATTRIBUTES[:3]]
        return list(map(sum, same))

    best = max(itertools.permutations(seen.objects), key=agreement)
    return list(zip(wanted.objects, best, strict=True))
