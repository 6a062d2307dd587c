"""The loss of a training step, with a network that is a formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.training.step import training_loss
from tests.inference.test_sampling import PROMPTS, Formula, numpy_formula, numpy_threshold
from tests.tiny_runs import tiny_config

BIAS = 0.05  # of the formula in NumPy


def student_stage(scale):
    config = tiny_config("stunet", diffusion__prediction="x0", diffusion__text_dropout=0.0)
    config.sampling.threshold_percentile = 90.0
    config.distillation = ConfigDict(
        {"start_steps": 2, "steps": (1,), "guidance_scale": scale, "weighting": "truncated_snr"}
    )
    return dataclasses.replace(Stage.from_config(config), network=Formula())


def a_batch(stage):
    text, mask = stage.text_encoder(PROMPTS)
    video = np.random.default_rng(0).uniform(-1, 1, (2, 4, 16, 16, 3)).astype(np.float32)
    return {"video": jnp.asarray(video), "text": jnp.asarray(text), "text_mask": jnp.asarray(mask)}


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_teacher_is_guided_and_thresholded_as_at_sampling(scale):
    """One step of the student against two of the teacher, in NumPy."""
    stage = student_stage(scale)
    batch, key = a_batch(stage), jax.random.key(5)
    student = {"bias": jnp.float32(0.2)}
    loss = training_loss(stage, student, batch, key, {"bias": jnp.float32(BIAS)})

    video, draw_key = batch["video"], jax.random.split(key, 4)[0]
    noise = jax.random.normal(jax.random.split(draw_key)[1], video.shape)
    levels = np.asarray(stage.schedule.log_snr(jnp.asarray([1.0, 0.5])), np.float64)
    alphas, sigmas = np.sqrt(1 / (1 + np.exp(-levels))), np.sqrt(1 / (1 + np.exp(levels)))
    z = alphas[0] * np.asarray(video, np.float64) + sigmas[0] * np.asarray(noise, np.float64)
    null_text = stage.null_text()[0]

    def teacher(z):
        null = numpy_formula(z, null_text)
        return numpy_threshold(null + scale * (numpy_formula(z, batch["text"]) - null), 90.0)

    first = teacher(z)
    middle = alphas[1] * first + sigmas[1] / sigmas[0] * (z - alphas[0] * first)
    error = numpy_formula(z, batch["text"]) - BIAS + 0.2 - teacher(middle)
    np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-4)
