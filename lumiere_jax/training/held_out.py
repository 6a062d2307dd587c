"""Loss on held-out clips."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from lumiere_jax import text
from lumiere_jax.cascade.stage import Batch, Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.data.source import Source
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import global_batch, replicated, use_mesh
from lumiere_jax.training.step import step_identity, training_loss


class Evaluation:
    """Loss of the EMA on fixed held-out clips, noise and noise levels."""

    def __init__(self, stage: Stage, mesh: Mesh, source: Source, programs: Programs):
        """Draws the clips, once; every process draws its share. Its program is among `programs`."""
        config = stage.config
        batches = data_pipeline.train_batches(
            source,
            text.host_part(stage.text_encoder),
            batch_size=config.train.batch_size,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            allow_small=True,
            num_threads=config.data.num_threads,
            crop=stage.crop,
            draw_mask=stage.draw_mask,
        )
        batches = text.device_part(batches, stage.text_encoder)
        self._mesh, self._programs = mesh, programs
        self._about = f"loss {step_identity(stage)}"  # also computes the null text, not in a trace
        self._batches = [next(batches) for _ in range(config.train.eval_batches)]

        def loss(state: TrainState, batch: Batch, index: np.int32) -> jax.Array:
            params, teacher = merge(state.ema, state.frozen), merge(state.teacher, state.frozen)
            return training_loss(stage, params, batch, jax.random.key(index), teacher)

        self._loss = loss

    def __call__(self, state: TrainState, between: Callable[[], None]) -> float:
        """Mean loss over the clips; `between` is called after every batch, and may raise."""
        losses = []
        for index, batch in enumerate(self._batches):
            with use_mesh(self._mesh):
                given = state, global_batch(batch, self._mesh), np.int32(index)
                places = replicated(self._mesh)
                loss = self._programs.get(self._loss, given, self._about, out_shardings=places)
            losses.append(float(loss(*given)))
            between()
        return float(np.mean(losses))
