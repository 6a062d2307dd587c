"""Temporal MultiDiffusion: a network of few frames predicts a long video (Lumiere, section 3.2).

At every denoising step the noisy video J is cut into overlapping windows J_i, the network Φ
predicts each, and the predictions are fused by least squares,

    argmin_J' Σ_i ‖J'_i - Φ(J_i)‖²,

whose solution is the mean of the predictions over the windows that hold a frame. With a weight
per window and frame inside the sum, it is their weighted mean. Fusing the prediction before the
sampler's step, with one noise tensor for the clip, keeps the windows from drifting apart.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lumiere_jax.runtime.errors import UserError


def windows(num_frames: int, window: int, overlap: int) -> tuple[int, ...]:
    """First frames of the windows that cover a video.

    Windows advance by `window - overlap` frames; the last is moved back to end with the video.
    The paper states an overlap of 2 frames, but no window length: 80 frames in windows of 8
    (this project's choice) make 13 windows.

    Args:
      num_frames: frames of the video.
      window: frames of a window. A video that is no longer than that is one window.
      overlap: frames that neighbouring windows share at least; in [0, window).

    Returns:
      The starts, strictly increasing, the first being 0.

    Raises:
      UserError: a length is below 1, or the overlap outside [0, window).
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


def window_weights(window: int, kind: str = "uniform") -> np.ndarray:
    """Relative weights of the frames of one window, before normalization.

    Args:
      window: frames of the window.
      kind: "uniform" (the mean over windows, as in the paper), or "linear": a ramp up and down
        again, which crossfades two windows linearly over the frames they share.

    Returns:
      Positive weights [window], float64.

    Raises:
      UserError: an unknown kind.
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
) -> np.ndarray:
    """Weight of every frame of every window in the fused video; each video frame's sum is one.

    Returns:
      Weights [num_windows, min(window, num_frames)], float64.

    Raises:
      UserError: as `windows` and `window_weights`.
    """
    starts = windows(num_frames, window, overlap)
    relative = window_weights(min(window, num_frames), kind)
    frames = np.array(starts)[:, None] + np.arange(len(relative))
    total = np.bincount(frames.ravel(), np.tile(relative, len(starts)), minlength=num_frames)
    return relative / total[frames]


def multidiffuse(
    predict_window: Callable[..., jax.Array],
    *,
    num_frames: int,
    window: int,
    overlap: int,
    weights: str = "uniform",
    chunk: int | None = None,
    parallel: int = 1,
    constrain: Callable[[jax.Array, str], jax.Array] = lambda x, layout: x,
) -> Callable[..., jax.Array]:
    """Makes a prediction over windows into one over the whole video.

    Args:
      predict_window: `(z, *time_inputs) -> prediction`, each [batch, window frames, ...]; all else
        (text, noise level) it closes over. Any prediction that the sampler is linear in will do (v,
        ε or x0, after guidance).
      num_frames: frames of the whole video.
      window: frames of a window.
      overlap: frames that neighbouring windows share at least.
      weights: "uniform" or "linear", see `window_weights`.
      chunk: windows that are predicted together, by `jax.vmap`; chunks follow one another, so
        memory grows with `chunk` and not with the number of windows. None: all at once.
      parallel: parts of a mesh that share a chunk's windows; a chunk has at least that many, and
        windows without weight fill it up.
      constrain: `(array, layout)`, says how an array lies on the mesh: "windows", [windows, batch,
        window frames, ...], or "video", [batch, time, ...]. The sum over windows is where the parts
        exchange data.

    Returns:
      A function of `(z, *time_inputs)`, each [batch, num_frames, ...], that returns the fused
      prediction [batch, num_frames, ...], float32. It raises UserError where an input has another
      number of frames.

    Raises:
      UserError: as `windows` and `window_weights`; or `chunk` is below 1.
    """
    starts = np.array(windows(num_frames, window, overlap), np.int32)
    normalized = normalized_weights(num_frames, window, overlap, weights).astype(np.float32)
    if chunk is not None and chunk < 1:
        raise UserError(f"MultiDiffusion: chunk={chunk} must be 1 window or more, or None.")
    starts, normalized = _chunks(starts, normalized, chunk or len(starts), parallel)

    def predict_video(z: jax.Array, *time_inputs: jax.Array) -> jax.Array:
        inputs = (z, *time_inputs)
        _check_frames(inputs, num_frames)
        if starts.size == 1:
            return predict_window(*inputs).astype(jnp.float32)

        def add_chunk(total, chunk_windows):
            chunk_starts, chunk_weights = chunk_windows
            frames = chunk_starts[:, None] + jnp.arange(chunk_weights.shape[1])
            cut = [constrain(_cut_windows(x, frames), "windows") for x in inputs]
            predictions = constrain(jax.vmap(predict_window)(*cut), "windows")
            weight = chunk_weights.reshape(len(frames), 1, -1, *[1] * (predictions.ndim - 3))
            weighted = jnp.moveaxis(weight * predictions.astype(jnp.float32), 0, 1)
            total = total.at[:, frames].add(weighted)
            return constrain(total, "video"), None

        first = np.arange(normalized.shape[-1])[None]
        prediction = jax.eval_shape(
            lambda: predict_window(*(_cut_windows(x, first)[0] for x in inputs))
        )
        shape = (prediction.shape[0], num_frames, *prediction.shape[2:])
        total = constrain(jnp.zeros(shape, jnp.float32), "video")
        if len(starts) == 1:
            return add_chunk(total, (starts[0], jnp.asarray(normalized[0])))[0]
        return jax.lax.scan(add_chunk, total, (jnp.asarray(starts), jnp.asarray(normalized)))[0]

    return predict_video


def _chunks(
    starts: np.ndarray, weights: np.ndarray, chunk: int, parallel: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deals windows out to chunks of equal size, at most `chunk`, a multiple of `parallel`.

    Returns:
      Starts [chunks, windows] and weights [chunks, windows, frames]; fillers have weight 0.
    """
    if len(starts) == 1:
        return starts[None], weights[None]
    most = max(chunk // parallel, 1) * parallel
    count = -(-len(starts) // most)
    size = -(-len(starts) // (count * parallel)) * parallel
    missing = count * size - len(starts)
    starts = np.pad(starts, (0, missing), mode="edge")
    weights = np.pad(weights, ((0, missing), (0, 0)))
    return starts.reshape(count, size), weights.reshape(count, size, -1)


def frame_differences(video: jax.Array) -> jax.Array:
    """Mean squared difference of neighbouring frames, which shows the seams between windows.

    Args:
      video: [batch, time, height, width, channels].

    Returns:
      [batch, time - 1], float32; entry t compares frames t and t + 1.
    """
    difference = jnp.diff(video.astype(jnp.float32), axis=1)
    return jnp.mean(jnp.square(difference), axis=(2, 3, 4))


def _check_frames(inputs: tuple[jax.Array, ...], num_frames: int) -> None:
    lengths = [x.shape[1] for x in inputs]
    if any(length != num_frames for length in lengths):
        raise UserError(
            f"MultiDiffusion: inputs of {lengths} frames where every one must have {num_frames}; "
            "bring the low-resolution clip to the frame count of the video."
        )


def _cut_windows(x: jax.Array, frames: jax.Array) -> jax.Array:
    """Maps [batch, time, ...], by frame numbers [windows, frames], to [windows, batch, ...]."""
    return jnp.moveaxis(jnp.asarray(x)[:, frames], 1, 0)
