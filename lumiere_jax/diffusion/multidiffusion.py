"""Temporal MultiDiffusion: a network of few frames predicts a long video (Lumiere, section 3.2).

At every denoising step the noisy video J is cut into overlapping windows J_i, the network Φ
predicts each, and the predictions are fused by least squares,

    argmin_J' Σ_i ‖J'_i - Φ(J_i)‖²,

whose solution is the mean of the predictions over the windows that hold a frame. With a weight
per window and frame inside the sum, it is their weighted mean. Fusing the prediction before the
sampler's step, with one noise tensor for the clip, keeps the windows from drifting apart.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32, Shaped

from lumiere_jax.runtime.errors import UserError


def windows(num_frames: int, window: int, overlap: int) -> tuple[int, ...]:
    """First frames of the windows that cover a video.

    Windows advance by `window - overlap` frames; the last is moved back to end with the video.
    The paper states an overlap of 2 frames, but no window length: 80 frames in windows of 8
    (this project's choice) make 13 windows. A video that is no longer than a window is one. The
    starts increase strictly from 0. A length below 1, or an overlap outside [0, window), is a
    `UserError`.
    """
    if num_frames < 1 or window < 1:
        raise UserError(
            f"MultiDiffusion: num_frames={num_frames} and window={window} must be 1 or more."
        )
    if not 0 <= overlap < window:
        raise UserError(
            f"MultiDiffusion: overlap={overlap} must be at least 0 and below window={window}; "
            "the paper overlaps windows by 2 frames."
        )
    if num_frames <= window:
        return (0,)
    last = num_frames - window
    return (*range(0, last, window - overlap), last)


def window_weights(window: int, kind: str = "uniform") -> Float64[np.ndarray, " window"]:
    """Relative weights of the frames of one window, all positive, before normalization.

    The kind is "uniform" (the mean over windows, as in the paper), or "linear": a ramp up and down
    again, which crossfades two windows linearly over the frames they share; any other is a
    `UserError`.
    """
    if kind == "uniform":
        return np.ones(window)
    if kind == "linear":
        position = np.arange(window)
        return np.minimum(position + 1.0, window - position)
    raise UserError(
        f"MultiDiffusion: unknown weights {kind!r}; choose one of 'uniform' and 'linear'."
    )


def normalized_weights(
    num_frames: int, window: int, overlap: int, kind: str = "uniform"
) -> Float64[np.ndarray, "windows frames"]:
    """Weight of every frame of every window in the fused video; each video frame's sum is one."""
    starts = windows(num_frames, window, overlap)
    relative = window_weights(min(window, num_frames), kind)
    frames = np.array(starts)[:, None] + np.arange(len(relative))
    total = np.bincount(frames.ravel(), np.tile(relative, len(starts)), minlength=num_frames)
    return relative / total[frames]


class Chunks(NamedTuple):
    """Windows of a video, in chunks that are predicted one after the other by a scan.

    Memory grows with the size of a chunk and not with the number of windows; those that fill up
    the last chunk have no weights.
    """

    starts: Int32[np.ndarray, "chunks windows"]  # first frame of each window
    weights: Float32[np.ndarray, "chunks windows frames"]  # in the fused video

    @property
    def is_one_window(self) -> bool:
        """Whether the video needs no cutting."""
        return self.starts.size == 1


class Chunk(NamedTuple):
    """One chunk of `Chunks`, as a scan hands it on."""

    starts: Int32[Array, " windows"]
    weights: Float32[Array, "windows frames"]

    @property
    def frames(self) -> Int32[Array, "windows frames"]:
        """Numbers of the frames of each window."""
        return self.starts[:, None] + jnp.arange(self.weights.shape[1])

    def cut(self, x: Shaped[Array, "batch time *shape"]) -> Shaped[Array, "..."]:
        """The chunk's windows of a video, `[windows, batch, frames, ...]`."""
        return jnp.moveaxis(x[:, self.frames], 1, 0)

    def add(
        self,
        total: Float32[Array, "batch time *shape"],
        predictions: Float[Array, "windows batch frames *shape"],
    ) -> Float32[Array, "batch time *shape"]:
        """The fused video so far, with the predictions of this chunk's windows in it."""
        weight = self.weights.reshape(len(self.starts), 1, -1, *[1] * (predictions.ndim - 3))
        weighted = jnp.moveaxis(weight * predictions.astype(jnp.float32), 0, 1)
        return total.at[:, self.frames].add(weighted)


def chunks(
    num_frames: int,
    window: int,
    overlap: int,
    *,
    kind: str = "uniform",
    size: int | None = None,
    parallel: int = 1,
) -> Chunks:
    """Deals the windows of a video out to chunks; see `windows` and `window_weights`.

    A chunk has at most `size` windows, which `parallel` parts of a mesh share: it has a multiple of
    that many. None is all of them; below 1 is a `UserError`.
    """
    if size is not None and size < 1:
        raise UserError(f"MultiDiffusion: chunk={size} must be 1 window or more, or None.")
    starts = np.array(windows(num_frames, window, overlap), np.int32)
    weights = normalized_weights(num_frames, window, overlap, kind).astype(np.float32)
    if len(starts) == 1:
        return Chunks(starts[None], weights[None])
    most = max((size or len(starts)) // parallel, 1) * parallel
    count = -(-len(starts) // most)
    size = -(-len(starts) // (count * parallel)) * parallel
    missing = count * size - len(starts)
    starts = np.pad(starts, (0, missing), mode="edge")
    weights = np.pad(weights, ((0, missing), (0, 0)))
    return Chunks(starts.reshape(count, size), weights.reshape(count, size, -1))


def frame_differences(
    video: Float[Array | np.ndarray, "batch time height width channels"],
) -> Float32[Array, "batch time-1"]:
    """Mean squared difference of frames t and t + 1, which shows the seams between windows."""
    difference = jnp.diff(video.astype(jnp.float32), axis=1)
    return jnp.mean(jnp.square(difference), axis=(2, 3, 4))
