"""Classifier-free guidance, and keeping the guided estimate within the range of the data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lumiere_jax.diffusion.discrete import split_variance

Predict = Callable[[jax.Array, jax.Array], jax.Array]


def guided(
    predict: Callable[[jax.Array, jax.Array, Any], jax.Array],
    condition: Any,
    null_condition: Any,
    scale: jax.typing.ArrayLike,
    learned_variance: bool = False,
) -> Predict:
    """Classifier-free guidance, both branches in one call of the network.

    Computes `null + scale (conditional - null)` (Ho & Salimans, arXiv 2207.12598, in the
    convention of Imagen, arXiv 2205.11487, equation 2: scale 1 is the conditional model). As
    the weights sum to one, it means the same for predictions of v, noise or x0.

    Args:
      predict: `predict(z, log_snr, condition)`, with z [batch, ...] and log_snr [batch], gives a
        prediction, the shape of z.
      condition: all that depends on the sample (text, text mask, low-resolution clip, ...), a
        pytree of arrays [batch, ...].
      null_condition: the same pytree for the unconditional branch, the same shapes.
      scale: guidance scale, a scalar or [batch]. The Python number 1 calls the network once with
        `condition` alone; anything else may be traced and calls it on twice the batch.
      learned_variance: the second half of the last axis tells a variance, which is that of the
        conditional branch, as in DeepFloyd IF.

    Returns:
      `predict(z, log_snr)`, guided.
    """
    if isinstance(scale, int | float) and scale == 1:
        return lambda z, log_snr: predict(z, log_snr, condition)

    def guided_predict(z: jax.Array, log_snr: jax.Array) -> jax.Array:
        both = jax.tree.map(_interleave, condition, null_condition)
        prediction = predict(_interleave(z, z), _interleave(log_snr, log_snr), both)
        prediction = prediction.reshape(z.shape[0], 2, *prediction.shape[1:])
        conditional, null = prediction[:, 0], prediction[:, 1]
        weight = jnp.asarray(scale, prediction.dtype)
        weight = weight.reshape(weight.shape + (1,) * (null.ndim - 1)) if weight.ndim else weight
        if not learned_variance:
            return null + weight * (conditional - null)
        null, _ = split_variance(null)
        conditional, variance = split_variance(conditional)
        return jnp.concatenate([null + weight * (conditional - null), variance], axis=-1)

    return guided_predict


def static_threshold(x0: jax.Array) -> jax.Array:
    """Clips to [-1, 1], the range of the data; same shape (arXiv 2205.11487, section 2.3)."""
    return jnp.clip(x0, -1.0, 1.0)


def dynamic_threshold(
    x0: jax.Array, percentile: float = 99.5, max_value: float | None = None
) -> jax.Array:
    """Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3).

    Per sample, s is the percentile of |x0| over all other axes but at least 1; x0 is clipped to
    [-s, s] and divided by s. Where nearly all values are in range this is `static_threshold`.

    Args:
      x0: [batch, ...].
      percentile: in [0, 100].
      max_value: upper limit of s; None for no limit.

    Returns:
      Values in [-1, 1], the shape of `x0`.
    """
    limit = jnp.maximum(magnitude_percentile(x0, percentile), 1.0)
    if max_value is not None:
        limit = jnp.minimum(limit, max_value)
    limit = limit.astype(x0.dtype).reshape(-1, *(1,) * (x0.ndim - 1))
    return jnp.clip(x0, -limit, limit) / limit


def magnitude_percentile(values: jax.Array, percentile: float) -> jax.Array:
    """Percentile of |values| per sample, exact, without sorting.

    A clip of the full size has a quarter of a billion values, and a sort of them needs several
    copies of the clip (and gathers it, where it is sharded). Non-negative floating-point numbers
    are ordered like the integers of their bits, so bisecting the bits finds the order statistic
    itself in about 31 (float64: 63) passes that count and store nothing.

    Args:
      values: [batch, ...], at least one value a sample and fewer than 2^31, all finite.
      percentile: in [0, 100]; between two order statistics it is interpolated linearly.

    Returns:
      [batch], float32 or wider.
    """
    magnitude = jnp.abs(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
    axes = tuple(range(1, magnitude.ndim))
    size = magnitude[0].size
    position = percentile / 100.0 * (size - 1)
    rank = min(int(position), size - 1)

    def count_up_to(limit: jax.Array) -> jax.Array:
        limit = limit.reshape(-1, *(1,) * len(axes))
        return jnp.sum(magnitude <= limit, axis=axes, dtype=jnp.int32)

    lower = _order_statistic(count_up_to, jnp.max(magnitude, axis=axes), rank)
    # The next larger one is the same value again if it occurs often enough.
    above = jnp.where(magnitude > lower.reshape(-1, *(1,) * len(axes)), magnitude, jnp.inf)
    repeated = (count_up_to(lower) > rank + 1) | (rank + 1 == size)
    upper = jnp.where(repeated, lower, jnp.min(above, axis=axes))
    return lower + (position - rank) * (upper - lower)


def _order_statistic(
    count_up_to: Callable[[jax.Array], jax.Array], maximum: jax.Array, rank: int
) -> jax.Array:
    """Per sample the smallest value v with `count_up_to(v) > rank`, v in [0, maximum]."""
    integer = jnp.int64 if maximum.dtype == jnp.float64 else jnp.int32

    def as_float(bits: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(bits, maximum.dtype)

    def halve(bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = count_up_to(as_float(middle)) > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    high = jax.lax.bitcast_convert_type(maximum, integer)
    _, high = jax.lax.while_loop(
        lambda bounds: jnp.any(bounds[0] < bounds[1]), halve, (jnp.zeros_like(high), high)
    )
    return as_float(high)


def _interleave(first: jax.Array, second: jax.Array) -> jax.Array:
    """[batch, ...] twice to [2 batch, ...], each sample's pair side by side.

    A batch that is sharded over devices stays where it is, which concatenation would not allow.
    """
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
