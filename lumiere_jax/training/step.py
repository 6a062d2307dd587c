"""One step of training: loss, gradients, optimizer and moving average, compiled as a whole."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from lumiere_jax.cascade.denoising import Denoiser
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Batch, Stage
from lumiere_jax.cascade.state import (
    TrainState,
    first_non_finite,
    leaf_squares,
    update_ema,
    update_powers,
)
from lumiere_jax.diffusion.discrete import split_variance
from lumiere_jax.diffusion.distillation import (
    own_place,
    step_estimates,
    student_and_teacher_steps,
    student_loss,
    teacher_target,
)
from lumiere_jax.diffusion.losses import diffusion_loss, drop_text, stratified_times
from lumiere_jax.diffusion.parameterization import add_noise, expand_to, to_x0
from lumiere_jax.models.parameters import Params, merge
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import placed, replicated, use_mesh
from lumiere_jax.text import EmptyPrompt


def compile_step(
    stage: Stage,
    optimizer: Any,
    mesh: Mesh,
    state: TrainState,
    batch: dict[str, Any],
    programs: Programs | None = None,
    on_compile: Callable[[], None] | None = None,
) -> jax.stages.Compiled:
    """Compiles the training step for a mesh; the state is updated in place.

    Args:
      stage: with the optimizer of its config.
      optimizer: see `create_optimizer`.
      mesh: that state and batch are on.
      state: arrays, or shapes with their shardings.
      batch: likewise; with `null_text`, the program does not depend on the text encoder.
      programs: where it is found, if it was compiled before, and kept.
      on_compile: called before it is compiled, which may take minutes.
    """
    place = jax.tree.map(lambda leaf: leaf.sharding, state)
    function = make_step(stage, optimizer, place.trainable)
    options: dict[str, Any] = {
        "in_shardings": (place, jax.tree.map(lambda leaf: leaf.sharding, batch)),
        "out_shardings": (place, replicated(mesh)),
        "donate_argnums": 0,
    }
    stage.null_text()  # computed before anything is traced, if it is to be part of the program
    with use_mesh(mesh):
        if programs is None:
            return jax.jit(function, **options).lower(state, batch).compile()
        assert "null_text" in batch  # the identity does not tell it
        about = step_identity(stage)
        return programs.get(function, (state, batch), about, on_compile, name=STEP, **options)


STEP = "training step"


def null_text(stage: Stage, mesh: Mesh) -> Batch:
    """What a batch needs beside its clips: the text that some of them lose theirs for."""
    text, mask = stage.null_text()
    return {
        "null_text": placed(np.asarray(text), replicated(mesh)),
        "null_mask": placed(np.asarray(mask), replicated(mesh)),
    }


def step_identity(stage: Stage) -> str:
    """What losses and steps of a stage depend on beside their arguments and this package."""
    config = stage.config.to_dict()
    chosen = {name: config[name] for name in config if name not in _ELSEWHERE}
    chosen["train"] = {name: config["train"][name] for name in _OF_TRAIN}
    return repr((type(stage), stage.network)) + json.dumps(chosen, default=str)


_ELSEWHERE = ("init_from", "imported_from", "data", "text", "train")
_OF_TRAIN = ("num_steps", "trainable", "frozen_dtype")


def make_step(stage: Stage, optimizer: Any, shardings: Any) -> Any:
    """The training step, `(state, batch) -> (state, metrics)`, to be compiled as a whole.

    Randomness is a function of the config's seed and the step. Metrics are "loss",
    "gradient_norm" and "bad_leaf", the first leaf of the gradient that is not finite, or -1.
    `shardings` are those of the trained parameters, so of their gradients.
    """
    config = stage.config

    def step_function(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss_function(trainable: Params) -> jax.Array:
            params, teacher = merge(trainable, state.frozen), merge(state.teacher, state.frozen)
            return training_loss(stage, params, batch, key, teacher)

        loss, gradient = jax.value_and_grad(loss_function)(state.trainable)
        # From here on a device works on its part of a gradient; XLA still sums whole ones.
        gradient = jax.lax.with_sharding_constraint(gradient, shardings)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trainable)
        trainable = jax.tree.map(jnp.add, state.trainable, updates)
        ema = update_ema(state.ema, trainable, state.step, config.optimizer.ema_decay)
        powers = update_powers(state.powers, trainable, state.step)
        squares = leaf_squares(gradient)  # infinite, too, where they overflow
        metrics = {
            "loss": loss,
            "gradient_norm": jnp.sqrt(squares.sum()),
            "bad_leaf": first_non_finite(squares),
        }
        state = dataclasses.replace(
            state, step=state.step + 1, trainable=trainable, ema=ema, optimizer=optimizer_state,
            powers=powers,
        )  # fmt: skip
        return state, metrics

    return step_function


def training_loss(
    stage: Stage, params: Params, batch: Batch, key: PRNGKeyArray, teacher: Params | None = None
) -> Float[Array, ""]:
    """Mean loss of a batch of clips, see `clip_losses`."""
    return clip_losses(stage, params, batch, key, teacher)[0].mean()


def clip_losses(
    stage: Stage, params: Params, batch: Batch, key: PRNGKeyArray, teacher: Params | None = None
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Each clip's loss and the log-SNR that was drawn for it.

    The loss is of diffusion or, for a student, the distance to its teacher. The batch is of
    `data.pipeline.train_batches`, with `null_text` or without, and the key for all that is drawn;
    `params` are all parameters, as are the teacher's, where the stage is distilled.
    """
    if "null_text" in batch:
        given = EmptyPrompt(batch["null_text"], batch["null_mask"])
        stage = dataclasses.replace(stage, text_encoder=given)
    # The third was of crops; without it the others would change in runs that are resumed.
    draw_key, text_key, _, augment_key = jax.random.split(key, 4)
    config = stage.config.diffusion

    # What the network is shown: the text, now and then none, and what its kind of stage needs.
    text, text_mask = drop_text(
        batch["text"], batch["text_mask"], *stage.null_text(), text_key, config.text_dropout
    )
    x0, condition = stage.training_clip(batch, augment_key)
    condition = {"text": text, "text_mask": text_mask, **condition}

    # A time and noise for every clip.
    time_key, noise_key = jax.random.split(draw_key)
    time = stratified_times(time_key, x0.shape[0])
    noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
    if stage.is_distilled:
        assert teacher is not None
        return _distance_to_teacher(stage, params, teacher, x0, condition, time, noise)

    # The prediction, and how far it is off.
    log_snr = stage.schedule.log_snr(time)
    z = add_noise(x0, noise, log_snr).astype(x0.dtype)  # times follow the default precision
    prediction = stage.predict(params, z, log_snr, condition)
    return diffusion_loss(
        prediction, x0, noise, time,
        schedule=stage.schedule, kind=config.prediction, weighting=config.weighting,
        learned_variance=stage.learned_variance,
    ), log_snr  # fmt: skip


def _distance_to_teacher(
    stage: Stage,
    params: Params,
    teacher: Params,
    x0: Float[Array, "batch time height width 3"],
    condition: dict[str, Array],
    time: Float[Array, " batch"],
    noise: Float[Array, "batch time height width 3"],
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Distances of the student's estimates to those that its teacher's steps amount to.

    Or, if it predicts these one by one, to that of one of them at the place that the student's own
    estimates lead to. The teacher is sampled as `config.sampling` says, with dynamic thresholding,
    but guided by `config.distillation.guidance_scale`. Of several rounds it is the first that
    counts.
    """
    settings, options = stage.config.distillation, SamplingOptions.from_config(stage.config)
    assert settings is not None
    log_snrs, number = student_and_teacher_steps(stage.student_table, time)
    z = add_noise(x0, noise, log_snrs[0]).astype(x0.dtype)
    options = dataclasses.replace(
        options, guidance_scale=settings.guidance_scale, guidance_from=1.0, guidance_to=0.0
    )
    denoiser = Denoiser.for_clip(stage, options, teacher, condition)
    kind, k = stage.config.diffusion.prediction, stage.steps_at_once
    if k == 1:
        target, _ = teacher_target(lambda z, log_snr: denoiser(z, log_snr).x0, z, log_snrs)
        prediction = stage.predict(params, z, log_snrs[0], condition)
        prediction = split_variance(prediction)[0] if stage.learned_variance else prediction
    else:
        prediction = stage.predict(params, z, log_snrs[0], condition, is_mean=False)
        steps = step_estimates(prediction, k)
        estimates = jnp.stack([to_x0(kind, step, z, log_snrs[0]) for step in steps])
        estimates = jax.lax.stop_gradient(estimates)
        target = denoiser(*own_place(estimates, z, log_snrs, number)).x0
        prediction = jnp.take_along_axis(steps, expand_to(number, z)[None], axis=0)[0]
    return student_loss(
        prediction, target, z, log_snrs[0], kind=kind, weighting=settings.weighting
    ), log_snrs[0]
