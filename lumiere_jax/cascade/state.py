"""What a training run carries from step to step, and the partition into trained and frozen."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from lumiere_jax.models.parameters import Params


@flax.struct.dataclass
class TrainState:
    """State of a run; the frozen parameters carry neither optimizer state nor EMA.

    A run that distils has a teacher, which does not change: what `trainable` is there.
    """

    step: Int[Array, ""]  # int32, number of updates so far
    trainable: Params  # the parameters that are trained, float32
    frozen: Params  # the others; `merge(trainable, frozen)` is what a network takes
    ema: Params  # exponential moving average of `trainable`
    optimizer: optax.OptState  # for `trainable`
    teacher: Params = flax.struct.field(default_factory=dict)
    # For each of `POWER_WIDTHS` another average of `trainable`, if the run keeps snapshots of them.
    powers: dict[str, Params] = flax.struct.field(default_factory=dict)


POWER_WIDTHS = {"narrow": 0.05, "wide": 0.1}
"""Two averages from whose snapshots others are made, see `checkpoints.averages`, by their width."""


def create_state(
    trainable: Params,
    frozen: Params,
    optimizer: optax.GradientTransformation,
    teacher: Params | None = None,
    has_powers: bool = False,
) -> TrainState:
    """A state at step 0."""
    ema, start = jax.tree.map(jnp.copy, trainable), jnp.int32(0)
    names = POWER_WIDTHS if has_powers else ()
    powers = {name: jax.tree.map(jnp.copy, trainable) for name in names}
    optimizer_state = optimizer.init(trainable)
    return TrainState(start, trainable, frozen, ema, optimizer_state, teacher or {}, powers)


def update_ema(ema: Params, params: Params, step: Int[Array, ""], decay: float) -> Params:
    """The moving average after one more update; `step` is the number of those before it.

    The decay is warmed up, min(decay, (1 + step) / (10 + step)), so that the random start is
    forgotten in a short run as well.
    """
    warm = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: e + (1.0 - warm) * (p - e), ema, params)


def update_powers(
    powers: dict[str, Params], params: Params, step: Int[Array, ""]
) -> dict[str, Params]:
    """The averages of `POWER_WIDTHS` after one more update; `step` is the number before it.

    Each has the decay (1 - 1 / t)^(exponent + 1) at update t (arXiv 2312.02696, section 3.1).
    """

    def update(average: Params, width: float) -> Params:
        share = -jnp.expm1((power_exponent(width) + 1.0) * jnp.log1p(-1.0 / (step + 1.0)))
        return jax.tree.map(lambda e, p: e + share * (p - e), average, params)

    return {name: update(average, POWER_WIDTHS[name]) for name, average in powers.items()}


def power_exponent(width: float) -> float:
    """The power of t by which an average weighs parameters, for a width as a share of all t.

    It solves width² = (n + 1) / ((n + 2)² (n + 3)) (arXiv 2312.02696, section 3.1).
    """
    inverse = width**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def leaf_squares(tree: Any) -> Float[Array, " leaves"]:
    """Sum of squares of every leaf, in `jax.tree.leaves` order."""
    return jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)])


def first_non_finite(values: Float[Array, " leaves"]) -> Int[Array, ""]:
    """Index of the first NaN or infinity, or -1."""
    bad = ~jnp.isfinite(values)
    return jnp.where(bad.any(), jnp.argmax(bad), -1)
