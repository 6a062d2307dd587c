"""Keeping a guided estimate of clean data within the range of the data: dynamic thresholding."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Rank(NamedTuple):
    """Where a percentile is among the sorted values: `fraction` beyond number `whole`.

    It is found in Python, since a float32 cannot count the values of a large clip; both may then be
    traced, scalars or `[batch]`.
    """

    whole: jax.typing.ArrayLike
    fraction: jax.typing.ArrayLike

    @classmethod
    def of(cls, percentile: float, size: int) -> "Rank":
        """The place of a percentile, in [0, 100], among `size` values."""
        position = percentile / 100.0 * (size - 1)
        whole = min(int(position), size - 1)
        return cls(np.int32(whole), np.float64(position - whole))


def dynamic_threshold(
    x0: Float[Array, " batch *shape"],
    percentile: float | Rank = 99.5,
    max_value: jax.typing.ArrayLike = math.inf,
) -> Float[Array, " batch *shape"]:
    """Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3).

    Per sample, s is the percentile of |x0| over all other axes but at least 1; x0 is clipped to
    [-s, s] and divided by s, so that the result is in [-1, 1]. Where nearly all values are in range
    this only clips. The percentile is in [0, 100]; `max_value` limits s.
    """
    limit = jnp.maximum(magnitude_percentile(x0, percentile), 1.0)
    limit = jnp.minimum(limit, max_value)
    limit = limit.astype(x0.dtype).reshape(-1, *(1,) * (x0.ndim - 1))
    return jnp.clip(x0, -limit, limit) / limit


def magnitude_percentile(
    values: Float[Array, " batch *shape"], percentile: float | Rank
) -> Float[Array, " batch"]:
    """Percentile of |values| per sample, exact, without sorting; float32 or wider.

    A clip of the full size has a quarter of a billion values, and a sort of them needs several
    copies of the clip (and gathers it, where it is sharded). Non-negative floating-point numbers
    are ordered like the integers of their bits, so bisecting the bits finds the order statistic
    itself in about 31 (float64: 63) passes that count and store nothing. A sample has at least one
    value and fewer than 2^31, all finite. Between two order statistics the percentile, in [0, 100],
    is interpolated linearly.
    """
    magnitude = jnp.abs(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
    axes = tuple(range(1, magnitude.ndim))
    size = magnitude[0].size
    rank = percentile if isinstance(percentile, Rank) else Rank.of(percentile, size)

    def count_up_to(limit: jax.Array) -> jax.Array:
        limit = limit.reshape(-1, *(1,) * len(axes))
        return jnp.sum(magnitude <= limit, axis=axes, dtype=jnp.int32)

    lower = _order_statistic(count_up_to, jnp.max(magnitude, axis=axes), rank.whole)
    # The next larger one is the same value again if it occurs often enough.
    above = jnp.where(magnitude > lower.reshape(-1, *(1,) * len(axes)), magnitude, jnp.inf)
    repeated = (count_up_to(lower) > rank.whole + 1) | (rank.whole + 1 == size)
    upper = jnp.where(repeated, lower, jnp.min(above, axis=axes))
    return lower + jnp.asarray(rank.fraction, lower.dtype) * (upper - lower)


def _order_statistic(
    count_up_to: Callable[[jax.Array], jax.Array], maximum: jax.Array, rank: jax.typing.ArrayLike
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
