"""One step of training: gradients, optimizer and moving average, compiled as a whole."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lumiere_jax.cascade.stage import Batch, Stage
from lumiere_jax.cascade.state import TrainState, first_non_finite, leaf_squares, update_ema
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.sharding import replicated, use_mesh
from lumiere_jax.training.objective import training_loss


def compile_step(
    stage: Stage, optimizer: Any, mesh: Mesh, state: TrainState, batch: Batch
) -> jax.stages.Compiled:
    """Compiles the training step for a mesh; the state is updated in place.

    Args:
      stage: what is trained.
      optimizer: its optimizer.
      mesh: where.
      state: the state, or its shapes with their shardings.
      batch: a global batch, or its shapes with their shardings.
    """
    place = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = jax.jit(
        make_step(stage, optimizer, place.trainable),
        in_shardings=(place, jax.tree.map(lambda leaf: leaf.sharding, batch)),
        out_shardings=(place, replicated(mesh)),
        donate_argnums=0,
    )
    stage.null_text()  # computed before anything is traced
    with use_mesh(mesh):
        return step.lower(state, batch).compile()


def make_step(stage: Stage, optimizer: Any, shardings: Any) -> Any:
    """The training step, `(state, batch) -> (state, metrics)`, to be compiled as a whole.

    Randomness is a function of the config's seed and the step. Metrics are "loss",
    "gradient_norm" and "bad_leaf", the first leaf of the gradient that is not finite, or -1.

    Args:
      stage: see `compile_step`.
      optimizer: see `compile_step`.
      shardings: of the trained parameters, so of their gradients.
    """
    config = stage.config

    def step_function(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss_function(trainable: Params) -> jax.Array:
            return training_loss(stage, trainable, state, batch, key)

        loss, gradient = jax.value_and_grad(loss_function)(state.trainable)
        # From here on a device works on its part of a gradient; XLA still sums whole ones.
        gradient = jax.lax.with_sharding_constraint(gradient, shardings)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trainable)
        trainable = jax.tree.map(jnp.add, state.trainable, updates)
        ema = update_ema(state.ema, trainable, state.step, config.optimizer.ema_decay)
        squares = leaf_squares(gradient)  # infinite, too, where they overflow
        metrics = {
            "loss": loss,
            "gradient_norm": jnp.sqrt(squares.sum()),
            "bad_leaf": first_non_finite(squares),
        }
        state = state.replace(
            step=state.step + 1, trainable=trainable, ema=ema, optimizer=optimizer_state
        )
        return state, metrics

    return step_function
