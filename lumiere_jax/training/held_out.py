"""Loss on held-out clips."""

import itertools
import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from lumiere_jax import text
from lumiere_jax.cascade.stage import Batch, Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.data.source import Source
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import global_batch, replicated, use_mesh
from lumiere_jax.training.step import clip_losses, null_text, step_identity

BANDS = (-10.0, -5.0, 0.0, 5.0)
"""Log-SNRs between which noise levels are told by themselves, in losses and by the check-up.

By an exact denoiser (benchmarks/noise_levels.md), a tenth of the variance of 40 real frames of
128×128 is known at -10 and half of it at -6, of one frame at -6 and -3; at 0 signal and noise are
equal, and above 5 the noise is less than 11 grey levels. So what is large in a clip is decided in
the first two bands, what is large in a picture in the next, and detail in the last two.
"""


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
        self._program: jax.stages.Compiled | None = None  # at first use
        self._about = f"losses {step_identity(stage)}"
        self._empty = null_text(stage, mesh)
        self._batches = [next(batches) for _ in range(config.train.eval_batches)]

        def losses(state: TrainState, batch: Batch, index: np.int32) -> tuple[jax.Array, jax.Array]:
            params, teacher = merge(state.ema, state.frozen), merge(state.teacher, state.frozen)
            return clip_losses(stage, params, batch, jax.random.key(index), teacher)

        self._losses = losses

    def __call__(self, state: TrainState, between: Callable[[], None]) -> dict[str, float]:
        """Mean loss over the clips, and over those of each band of log-SNRs that has any.

        `between` is called after every batch, and may raise.
        """
        found = []
        for index, batch in enumerate(self._batches):
            given = state, global_batch(batch, self._mesh) | self._empty, np.int32(index)
            if self._program is None:
                with use_mesh(self._mesh):
                    self._program = self._programs.get(
                        self._losses,
                        given,
                        self._about,
                        name="held-out losses",
                        out_shardings=replicated(self._mesh),
                    )
            found.append([np.asarray(x) for x in self._program(*given)])
            between()
        losses, log_snrs = np.concatenate(found, axis=1).astype(np.float64)
        return {"eval_loss": float(losses.mean()), **by_band(losses, log_snrs)}


def by_band(
    losses: Float[np.ndarray, " clips"], log_snrs: Float[np.ndarray, " clips"]
) -> dict[str, float]:
    """The mean loss of each of `BANDS` that has clips, by the name of its metric."""
    means = {}
    for low, high in itertools.pairwise((-math.inf, *BANDS, math.inf)):
        inside = (log_snrs >= low) & (log_snrs < high)
        if inside.any():
            means[f"eval_loss_log_snr/{low:g}_to_{high:g}"] = float(losses[inside].mean())
    return means
