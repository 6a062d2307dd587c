"""What a training run carries from step to step, and the partition into trained and frozen."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
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


def create_state(
    trainable: Params,
    frozen: Params,
    optimizer: optax.GradientTransformation,
    teacher: Params | None = None,
) -> TrainState:
    """A state at step 0."""
    ema, start = jax.tree.map(jnp.copy, trainable), jnp.int32(0)
    return TrainState(start, trainable, frozen, ema, optimizer.init(trainable), teacher or {})


def update_ema(ema: Params, params: Params, step: Int[Array, ""], decay: float) -> Params:
    """The moving average after one more update; `step` is the number of those before it.

    The decay is warmed up, min(decay, (1 + step) / (10 + step)), so that the random start is
    forgotten in a short run as well.
    """
    warm = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: e + (1.0 - warm) * (p - e), ema, params)


def leaf_squares(tree: Any) -> Float[Array, " leaves"]:
    """Sum of squares of every leaf, in `jax.tree.leaves` order."""
    return jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)])


def first_non_finite(values: Float[Array, " leaves"]) -> Int[Array, ""]:
    """Index of the first NaN or infinity, or -1."""
    bad = ~jnp.isfinite(values)
    return jnp.where(bad.any(), jnp.argmax(bad), -1)
