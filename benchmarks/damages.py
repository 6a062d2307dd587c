"""Damage to clips, at several strengths: what FVD should rise with."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage


def blur(clip: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of every frame, `sigma` in pixels."""
    del rng
    return ndimage.gaussian_filter(clip, (0, sigma, sigma, 0))


def noise(clip: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, `deviation` in grey levels."""
    noisy = clip + deviation * rng.normal(size=clip.shape)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def shuffle(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the frames in another order."""
    chosen = np.sort(rng.permutation(len(clip))[: round(share * len(clip))])
    order = np.arange(len(clip))
    order[chosen] = np.roll(rng.permutation(chosen), 1)
    return clip[order]


def freeze(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The last frames stand still."""
    del rng
    moving = max(1, round((1 - share) * len(clip)))
    return clip[np.minimum(np.arange(len(clip)), moving - 1)]


def drop(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Frames are lost, and the one before each is shown again."""
    lost = rng.permutation(np.arange(1, len(clip)))[: round(share * len(clip))]
    shown = np.arange(len(clip))
    shown[lost] = -1
    return clip[np.maximum.accumulate(shown)]


DAMAGES: dict[str, tuple[Callable, tuple[float, ...], str]] = {
    "blur": (blur, (0.5, 1.0, 2.0, 4.0), "deviation in pixels"),
    "noise": (noise, (5, 10, 20, 40), "deviation in grey levels"),
    "shuffled frames": (shuffle, (0.25, 0.5, 0.75, 1.0), "share of the frames"),
    "frozen frames": (freeze, (0.25, 0.5, 0.75, 1.0), "share of the frames"),
    "dropped frames": (drop, (0.25, 0.5, 0.75, 0.9), "share of the frames"),
}
