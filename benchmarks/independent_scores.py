"""FVD, KVD and the Inception Score without the package's own code, which they are to check.

The published preprocessing in NumPy, I3D in PyTorch (`tests/metrics/i3d_torch.py`, whose weights
have the checksums of DeepMind's checkpoint), the Fréchet distance by SciPy's root of a matrix, and
the other figures as their papers write them; float64 but for the network.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64, UInt8
from scipy.special import rel_entr, softmax

sys.path.insert(0, str(Path(__file__).parents[1]))

SIZE = 224
Features = Float64[np.ndarray, "clip channel"]


def prepared(
    video: UInt8[np.ndarray, "frame height width 3"],
) -> Float64[np.ndarray, "frame 224 224 3"]:
    """What I3D takes: TensorFlow 1's bilinear resize to 224×224 as two matrices, then [-1, 1]."""
    rows, columns = (weights(side) for side in video.shape[1:3])
    resized = np.einsum("rh,thwc,qw->trqc", rows, video.astype(np.float64), columns, optimize=True)
    return resized / 127.5 - 1


def weights(size: int) -> Float64[np.ndarray, "224 size"]:
    """How much of each of `size` pixels is in each of 224: pixel i is at i · size / 224."""
    position = np.arange(SIZE) * size / SIZE
    # A pixel is a triangle of width 2; beyond the last one there is nothing else than it.
    position = np.minimum(position, size - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(size)), 0)


def network() -> Callable[[Sequence[np.ndarray]], Float32[np.ndarray, "clip 400"]]:
    """From uint8 clips to I3D's logits."""
    import torch

    from lumiere_jax.metrics import i3d_weights
    from tests.metrics.i3d_torch import TorchI3D

    i3d = TorchI3D(i3d_weights.load()).eval()

    @torch.inference_mode()
    def logits(clips: Sequence[np.ndarray]) -> np.ndarray:
        ready = (prepared(clip).astype(np.float32).transpose(3, 0, 1, 2) for clip in clips)
        return np.concatenate([i3d(torch.tensor(clip[None])).numpy() for clip in ready])

    return logits


def frechet_distance(first: Features, second: Features) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 √(S1 S2)) with unbiased covariances (1812.01717)."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    apart = first.mean(axis=0) - second.mean(axis=0)
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    return float(apart @ apart + np.trace(sum(covariances)) - 2 * np.trace(root).real)


def kernel_distance(first: Features, second: Features) -> float:
    """The unbiased squared maximum mean discrepancy of (x · y / dim + 1)³ (1801.01401, eq. 4)."""
    first, second = first.astype(np.float64), second.astype(np.float64)

    def kernel(x: Features, y: Features) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Features) -> float:
        return kernel(x, x)[~np.eye(len(x), dtype=bool)].mean()

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


def inception_score(logits: Features, splits: int, epsilon: float) -> float:
    """exp of the mean KL(p(y|x) ‖ p(y)), the mean of `splits` parts (1606.03498)."""
    scores = []
    for part in np.array_split(softmax(logits.astype(np.float64), axis=1), splits):
        mean = part.mean(axis=0)
        if epsilon:
            divergence = part * (np.log(part + epsilon) - np.log(mean + epsilon))
        else:
            divergence = rel_entr(part, mean)
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(scores))
