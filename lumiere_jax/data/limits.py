"""What files must have to be trained on: enough pixels, enough frames a second, new frames.

A super-resolution stage learns blur from what was enlarged, and a base stage learns to stutter from
frames that are shown twice.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from lumiere_jax.data.pixels import Frames, Picture
from lumiere_jax.data.video_timing import VideoInfo
from lumiere_jax.runtime.errors import UserError

SAME = 0.1
"""Mean absolute difference, in levels of 0 to 255, below which a frame repeats the one before."""
SAME_SHARE = 0.1
"""The same as a share of the steps around it: no codec stores a frame twice exactly alike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The fields of `config.data` with these names; reasons begin with their kind and a colon."""

    min_size: int = 0  # pixels of the shorter side; 0: what is asked for, so that none is enlarged
    min_rate: float = 0.9  # share of the asked frames per second; 0 takes any
    max_repeats: float = 0.25  # share of a clip's frames that repeat the one before; 1 takes any

    def __post_init__(self) -> None:
        if self.min_size < 0 or not 0 <= self.min_rate or not 0 <= self.max_repeats <= 1:
            raise UserError(
                f"data.min_size={self.min_size} and data.min_rate={self.min_rate:g} must be 0 or "
                f"more, and data.max_repeats={self.max_repeats:g} from 0 to 1"
            )

    def too_small(self, size: tuple[int, int], asked: tuple[int, int]) -> str | None:
        """Why a picture of (height, width) cannot be used; both are upright."""
        least = (self.min_size, self.min_size) if self.min_size else asked
        if size[0] >= least[0] and size[1] >= least[1]:
            return None
        return f"too small: {size[1]}×{size[0]} of {least[1]}×{least[0]} pixels (data.min_size)"

    def too_slow(self, info: VideoInfo, fps: float) -> str | None:
        """Why a video cannot be used at a rate that is asked for."""
        if info.fps >= self.min_rate * fps * 0.999:  # 23.976 are 24
            return None
        return (
            f"too slow: {info.fps:.4g} of {self.min_rate * fps:.4g} frames a second (data.min_rate)"
        )

    def repeating(self, changes: Sequence[float]) -> str | None:
        """Why a clip cannot be used, by the mean absolute difference of each frame to the last."""
        share = float(np.mean(repeated(changes))) if len(changes) else 0.0
        if share <= self.max_repeats:
            return None
        return (
            f"repeated frames: {share:.0%} are the same as the one before, above "
            f"{self.max_repeats:.0%} (data.max_repeats)"
        )

    def describe(self, asked: tuple[int, int], fps: float | None = None) -> str:
        """The limits in words."""
        least = (self.min_size, self.min_size) if self.min_size else asked
        told = f"at least {least[1]}×{least[0]} pixels"
        if fps is None:
            return told
        rate = f"{self.min_rate * fps:.4g} frames a second"
        return f"{told}, at least {rate}, at most {self.max_repeats:.0%} repeated frames"


def repeated(changes: Sequence[float]) -> Bool[np.ndarray, " step"]:
    """Which steps of a clip, given the `change` of each, lead to a frame like the one before.

    A step counts against the largest of the two before it and of the two after it, whichever is
    less, so that neither a cut nor a flash makes repeated frames of those beside it.
    """
    steps = np.asarray(changes, np.float64)
    around = np.pad(steps, 2)
    before, after = np.maximum(around[:-4], around[1:-3]), np.maximum(around[3:-1], around[4:])
    return steps < np.maximum(SAME, SAME_SHARE * np.minimum(before, after))


def change(old: Picture, new: Picture) -> float:
    """Mean absolute difference of two frames, in levels."""
    return float(np.mean(np.maximum(old, new) - np.minimum(old, new), dtype=np.float64))


def changes(frames: Frames) -> list[float]:
    """The `change` of each frame from the one before; one less than frames."""
    return [change(old, new) for old, new in zip(frames[:-1], frames[1:], strict=True)]
