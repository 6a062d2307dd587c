"""Adaptive projected guidance, APG: guidance without most of what oversaturates (Sadat et al.)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lumiere_jax.diffusion.parameterization import expand_to

Clips = Float[Array, " batch *shape"]


class Projection(NamedTuple):
    """The numbers of APG; each may be traced, a scalar or `[batch]`.

    Parallel 1, no limit and momentum 0 are classifier-free guidance.
    """

    parallel: ArrayLike  # what is kept of the part along the conditional estimate: η
    limit: ArrayLike  # of the root mean square of the difference; infinite for none: r / √size
    momentum: ArrayLike  # weight of the earlier steps' differences, usually negative: β


def first_average(z: Clips) -> Clips:
    """The state before the first step."""
    return jnp.zeros_like(z)


def guide(
    conditional: Clips,
    null: Clips,
    average: Clips,
    scale: Float[Array, " batch"],
    projection: Projection,
) -> tuple[Clips, Clips]:
    """Guided estimates of clean data, and the next state (arXiv 2410.02416).

    It is defined for estimates of clean data: only they have a direction that is that of contrast
    and saturation. Others must be converted before. The difference of the two estimates is added
    to the earlier ones, shortened to `limit`, freed from its part along the conditional estimate,
    and then weighs `scale - 1`. Each clip has its own lengths and its own projection. A limit of
    the root mean square, in place of the norm, means the same for clips of any size.

    Args:
      conditional: estimate with the text.
      null: the one to be led away from.
      average: state of the step before; where the scale is 1, no guidance, it stays.
      scale: as in `guidance.guide`.
      projection: the numbers.
    """
    parallel, limit, momentum, weight = (expand_to(x, conditional) for x in (*projection, scale))
    axes = tuple(range(1, conditional.ndim))
    difference = conditional - null + momentum * average
    average = jnp.where(weight == 1.0, average, difference)
    length = jnp.sqrt(jnp.mean(jnp.square(difference), axes, keepdims=True))
    update = difference * jnp.where(length > limit, limit / length, 1.0)
    squared = jnp.sum(jnp.square(conditional), axes, keepdims=True)
    along = jnp.sum(update * conditional, axes, keepdims=True) / jnp.where(squared > 0, squared, 1)
    update -= (1.0 - parallel) * along * conditional
    return conditional + (weight - 1.0) * update, average
