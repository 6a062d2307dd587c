"""What a training step minimizes: the diffusion loss or, of a student, the distance to its teacher.

See `lumiere_jax.training.distill` for the rounds of a distillation.
"""

import jax

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.denoising import clean_estimate, unconditional
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Batch, Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.diffusion.discrete import split_variance
from lumiere_jax.diffusion.distillation import log_snr_table, student_loss
from lumiere_jax.diffusion.guidance import guided
from lumiere_jax.models.parameters import Params, merge
from lumiere_jax.runtime.errors import UserError


def check_one_round(config: ConfigDict) -> None:
    """Refuses to train several rounds of a distillation as one.

    Raises:
      UserError: if the config is of more than one.
    """
    if "distillation" in config and len(config.distillation.steps) != 1:
        raise UserError(
            f"distillation.steps={tuple(config.distillation.steps)} are several rounds, each a run "
            "of its own; use `lumiere_jax.main`, or `lumiere_jax.training.distill.distil`."
        )


def training_loss(
    stage: Stage, trainable: Params, state: TrainState, batch: Batch, key: jax.Array
) -> jax.Array:
    """Mean loss of a batch of clips.

    Args:
      stage: what is trained.
      trainable: the trained parameters, or their EMA; gradients are of these.
      state: for the frozen parameters, and those of the teacher.
      batch: see `data.pipeline.train_batches`.
      key: PRNG key for all that is drawn.
    """
    params = merge(trainable, state.frozen)
    if not stage.is_distilled:
        return stage.loss(params, batch, key)
    return distillation_loss(stage, params, merge(state.teacher, state.frozen), batch, key)


def distillation_loss(
    stage: Stage, params: Params, teacher: Params, batch: Batch, key: jax.Array
) -> jax.Array:
    """Mean distance of the student's estimates to those that its teacher's steps amount to.

    The teacher is sampled as `config.sampling` says, with dynamic thresholding, but guided by
    `config.distillation.guidance_scale`. Of several rounds it is the first that counts.

    Args:
      stage: of teacher and student.
      params: of the student.
      teacher: parameters of the teacher.
      batch: see `data.pipeline.train_batches`.
      key: PRNG key.
    """
    settings, options = stage.config.distillation, SamplingOptions.from_config(stage.config)
    with jax.ensure_compile_time_eval():
        table = log_snr_table(stage.schedule, settings.start_steps, settings.steps[0])
    video, condition, loss_key = stage.training_input(batch, key)
    guided_teacher = guided(
        lambda z, log_snr, given: stage.predict(teacher, z, log_snr, given),
        condition,
        unconditional(stage, condition),
        settings.guidance_scale,
        stage.learned_variance,
    )

    def denoise(z: jax.Array, log_snr: jax.Array) -> jax.Array:
        return clean_estimate(stage, options, guided_teacher(z, log_snr), z, log_snr)[0]

    def predict(z: jax.Array, log_snr: jax.Array) -> jax.Array:
        prediction = stage.predict(params, z, log_snr, condition)
        return split_variance(prediction)[0] if stage.learned_variance else prediction

    loss = student_loss(
        predict, denoise, video, loss_key,
        table=table, kind=stage.config.diffusion.prediction, weighting=settings.weighting,
    )  # fmt: skip
    return loss.mean()
