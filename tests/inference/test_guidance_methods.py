"""Guidance other than classifier-free, from noise to clips; the formulas are in tests/diffusion."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.denoising import Inputs, Numbers
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.schedule import CosineSchedule
from lumiere_jax.inference.sampling import StageSampler, predictions, sample_keys
from lumiere_jax.runtime.errors import UserError
from tests.diffusion import gaussian
from tests.inference.test_sampling import (
    PARAMS,
    PROMPTS,
    Formula,
    formula_stage,
    noise,
    numpy_formula,
    numpy_threshold,
)

NUMBERS = [  # each clip has its own
    {"guidance_scale": 3.0, "guidance_parallel": 0.2, "guidance_limit": 0.1},
    {"guidance_scale": 5.0, "guidance_to": 0.6, "guidance_zero_until": 1.0},
]


class FormulaOfVariance(Formula):
    """Also a variance, which the sampler ddim does not look at."""

    def apply(self, variables, z, *arguments, **condition):
        x0 = super().apply(variables, z, *arguments, **condition)
        return jnp.concatenate([x0, 9.0 * z], axis=-1)


class StageOfVariance(Stage):
    """Any schedule and prediction; those of configs with a learned variance have one each."""

    learned_variance = True


def averaged(z, text):
    """Estimates of clean data in two windows of 8 frames, which share 5 of the 11."""
    ramp = np.array([1, 2, 3, 4, 4, 3, 2, 1.0])[:, None, None, None]
    total, weights = np.zeros_like(z), np.zeros((11, 1, 1, 1))
    for start in (0, 3):
        window = slice(start, start + 8)
        total[:, window] += ramp * numpy_formula(z[:, window], text)
        weights[window] += ramp
    return total / weights


def projected(conditional, null, average, scale, options):
    update = conditional - null + options.guidance_momentum * average
    average = average if scale == 1 else update
    if options.guidance_limit:
        update = update * min(1.0, options.guidance_limit / np.sqrt(np.mean(update**2)))
    unit = conditional / np.linalg.norm(conditional)
    update = update - (1 - options.guidance_parallel) * (update * unit).sum() * unit
    return conditional + (scale - 1) * update, average


def zero_star(conditional, null, z, scale, alpha, sigma):
    velocity, away = ((z - alpha * x) / sigma - x for x in (conditional, null))
    away = away * (velocity * away).sum() / (away * away).sum()
    guided = away + scale * (velocity - away)
    return (z - sigma * guided) / (alpha + sigma)


def by_hand(options, z, text, null_text, schedule):
    """The steps of DDIM for one clip."""
    steps, average, difference = options.num_steps, 0.0, None
    log_snrs = np.asarray(schedule.sampling_log_snrs(steps), np.float64)
    for number, (log_snr, later) in enumerate(zip(log_snrs, [*log_snrs[1:], np.inf], strict=True)):
        (alpha, sigma), (alpha_later, sigma_later) = (
            gaussian.levels(x, 5) for x in (log_snr, later)
        )
        conditional, time = averaged(z, text), 1 - number / steps
        if number % options.guidance_every == 0:
            difference = conditional - averaged(z, null_text)
        null = conditional - difference
        scale = options.guidance_scale if time >= options.guidance_to else 1.0
        if options.guidance == "apg":
            x0, average = projected(conditional, null, average, scale, options)
        elif options.guidance == "cfg_zero":
            x0 = zero_star(conditional, null, z, scale, alpha, sigma)
        else:
            x0 = null + scale * (conditional - null)
        x0 = numpy_threshold(x0, 90.0)
        if options.guidance == "cfg_zero" and time > options.guidance_zero_until:
            x0 = z / (alpha + sigma)
        z = alpha_later * x0 + sigma_later * (z - alpha * x0) / sigma
    return z


@pytest.mark.parametrize(
    ("method", "steps", "every"),
    [("apg", 2, 1), ("cfg_zero", 2, 1), ("cfg", 5, 2), ("apg", 4, 3), ("cfg_zero", 4, 2)],
)
def test_steps_by_hand(method, steps, every):
    """Windows are averaged before; a learned variance is left out; each clip has its numbers."""
    plain = dataclasses.replace(formula_stage("stunet"), network=FormulaOfVariance())
    stage = StageOfVariance(**{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)})
    shared = {"guidance": method, "num_steps": steps, "overlap": 5, "threshold_percentile": 90.0}
    shared["guidance_every"] = every
    rows = [SamplingOptions(**shared, **own) for own in NUMBERS]
    (text, mask), keys = stage.text_encoder(PROMPTS), sample_keys([3, 4], 0)
    sampler = StageSampler(stage, rows[0], 11)
    video = sampler(PARAMS, Inputs(text, mask, keys), rows=rows)
    z = noise(keys, 0, (11, 16, 16, 3))
    expected = [
        by_hand(row, z[i : i + 1], text[i : i + 1], stage.null_text()[0], stage.schedule)
        for i, row in enumerate(rows)
    ]
    np.testing.assert_allclose(video, np.concatenate(expected), atol=1e-4)
    whole = sampler.program(PARAMS, Inputs(text, mask, keys))  # all steps as one program
    np.testing.assert_allclose(whole[0], video[0], atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "clips"),
    [
        ({}, [4] * 6),
        ({"guidance_every": 3}, [4, 2, 2, 4, 2, 2]),
        ({"guidance_from": 0.7, "guidance_to": 0.4}, [2, 2, 4, 4, 2, 2]),  # times 1, 5/6, 2/3, …
        ({"guidance_from": 0.7, "guidance_every": 2}, [2, 2, 4, 2, 4, 2]),
        ({"guidance_from": 0.0}, [2] * 6),
        ({"guidance_every": 3, "guidance_scale": 1.0}, [2] * 6),
    ],
)
def test_how_many_clips_the_network_is_asked_for(fields, clips):
    """Two, and two without the text where guidance asks for them."""
    asked = []

    class Counted(Formula):
        def apply(self, variables, z, *arguments, **condition):
            jax.debug.callback(lambda: asked.append(z.shape[0]), ordered=True)
            return super().apply(variables, z, *arguments, **condition)

    stage = dataclasses.replace(formula_stage("stunet"), network=Counted())
    (text, mask), keys = stage.text_encoder(PROMPTS), sample_keys([3, 4], 0)
    options = SamplingOptions(**{"num_steps": 6, "guidance_scale": 3.0} | fields)
    inputs = Inputs(text, mask, keys)
    video = StageSampler(stage, options)(PARAMS, inputs)
    jax.effects_barrier()
    assert asked == clips and predictions(stage.schedule, options) == sum(clips) / 2
    whole = StageSampler(formula_stage("stunet"), options).program(PARAMS, inputs)
    np.testing.assert_allclose(whole, video, atol=1e-5)  # two programs round differently


def test_noise_that_would_stay_noise():
    for spacing in ({}, {"last_log_snr": 10.0}):
        with pytest.raises(UserError, match="guidance_zero_until=0.96 leaves none of steps=1 to"):
            SamplingOptions(guidance="cfg_zero", num_steps=1, **spacing)
    SamplingOptions(guidance="cfg_zero", num_steps=1, guidance_scale=1.0)  # no guidance


@pytest.mark.parametrize("spacing", [{}, {"last_log_snr": 10.0}, {"time_power": 2.0}])
@pytest.mark.parametrize(("steps", "until", "strength", "resting"), [
    (50, 0.96, 1.0, 3), (20, 0.96, 1.0, 1), (50, 0.5, 1.0, 26), (50, 1.0, 1.0, 0),
    (50, 0.96, 0.5, 0), (25, 0.5, 0.6, 5),
])  # fmt: skip
def test_a_share_of_the_steps_rests_whatever_their_spacing(
    spacing, steps, until, strength, resting
):
    options = SamplingOptions(
        guidance="cfg_zero",
        num_steps=steps,
        guidance_zero_until=until,
        strength=strength,
        **spacing,
    )
    for schedule in (CosineSchedule(-5.8), CosineSchedule(-5.8, is_interpolated=True)):
        log_snrs = np.asarray(schedule.sampling_log_snrs(steps, strength, options.spacing))
        is_at_rest = log_snrs <= np.asarray(Numbers.of(options, log_snrs).rest_until)
        assert is_at_rest.tolist() == [n < resting for n in range(steps)]
    left = strength * (1 - np.arange(steps) / steps)
    assert resting == (np.sum(left > until - 1e-6) if until < 1 else 0)
