"""One stage's sampler, with a network that is a formula; a real one is in test_pipeline.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.schedule import with_spacing
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.runtime.errors import UserError
from tests.tiny_runs import tiny_config


class Formula:
    """Stands in for a network: x0 by a formula that tells text, window and position apart."""

    def apply(self, variables, z, time, text, text_mask, low_resolution=None, **extra):
        text = text.sum((1, 2))[:, None, None, None, None]
        frame = jnp.arange(z.shape[1]).reshape(1, -1, 1, 1, 1)
        x0 = 0.3 * jnp.tanh(z) + 0.2 * jnp.sin(text) + 0.1 * jnp.cos(frame)
        if low_resolution is not None:
            x0 += 0.2 * low_resolution * frame + extra["augmentation_level"][0]
        return x0 + variables["params"]["bias"]


PARAMS = {"bias": jnp.float32(0.05)}
PROMPTS = ["a red circle moving up", "a blue square standing still"]


def formula_stage(name, **fields):
    stage = Stage.from_config(tiny_config(name, diffusion__prediction="x0", **fields))
    return dataclasses.replace(stage, network=Formula())


def numpy_formula(z, text, low=None, level=0.0):
    text = np.asarray(text, np.float64).sum((1, 2))[:, None, None, None, None]
    frame = np.arange(z.shape[1]).reshape(1, -1, 1, 1, 1)
    x0 = 0.3 * np.tanh(z) + 0.2 * np.sin(text) + 0.1 * np.cos(frame) + 0.05
    return x0 if low is None else x0 + 0.2 * low * frame + level


def numpy_threshold(x0, percentile):
    limits = np.maximum(np.percentile(np.abs(x0).reshape(len(x0), -1), percentile, axis=1), 1.0)
    limits = limits[:, None, None, None, None]
    return np.clip(x0, -limits, limits) / limits


def noise(keys, stream, shape):
    """The documented streams of a sample's key, as float64."""
    draws = [jax.random.normal(jax.random.fold_in(key, stream), shape) for key in keys]
    return np.asarray(jnp.stack(draws), np.float64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampler": "euler"}, "sampler=euler.*ddim.*ancestral.*dpmpp_2m"),
        ({"num_steps": 0}, "steps=0"),
        ({"guidance_scale": -1.0}, "guidance_scale=-1"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"threshold_percentile": 0.0}, "threshold_percentile=0"),
        ({"threshold_max": 0.5}, "threshold_max=0.5 must be 0"),
    ],
)
def test_options_out_of_range(fields, message):
    with pytest.raises(UserError, match=message):
        SamplingOptions(**fields)


def test_options_are_those_of_the_config_but_for_overrides():
    config = tiny_config("stunet", sampling__num_steps=7, sampling__guidance_scale=3.0)
    assert SamplingOptions.from_config(config, num_steps=None) == SamplingOptions(
        num_steps=7, guidance_scale=3.0
    )
    assert SamplingOptions.from_config(config, num_steps=9, sampler="dpmpp_2m") == SamplingOptions(
        sampler="dpmpp_2m", num_steps=9, guidance_scale=3.0
    )


def test_the_spacing_of_a_config_and_of_options_moves_the_steps_of_a_stage():
    fields = {"sampling__time_power": 2.0, "sampling__last_log_snr": 0.0}
    stage = Stage.from_config(tiny_config("stunet", **fields))
    options = SamplingOptions.from_config(stage.config)
    schedule = stage.schedule
    assert schedule == with_spacing(schedule, options.spacing)
    quadratic = schedule.log_snr((1 - np.arange(4) / 4) ** 2)
    np.testing.assert_allclose(schedule.sampling_log_snrs(4), quadratic, rtol=1e-6)
    options = SamplingOptions.from_config(stage.config, time_power=1.0, last_log_snr=8.0)
    even = with_spacing(schedule, options.spacing).sampling_log_snrs(4)
    np.testing.assert_allclose(even, np.linspace(schedule.log_snr(1.0), 8.0, 4), rtol=1e-6)


def test_every_seed_and_stage_has_a_key_of_its_own():
    keys = [sample_keys([0, 1, 2**32 - 1], stage) for stage in (0, 1)]
    data = np.concatenate([np.asarray(jax.random.key_data(k)) for k in keys])
    assert len(np.unique(data, axis=0)) == 6
    np.testing.assert_array_equal(jax.random.key_data(sample_keys([1], 0))[0], data[1])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_one_step_of_the_base_by_hand(scale):
    """Guidance on the prediction, then thresholding; at the last step z is x0."""
    stage = formula_stage("stunet")
    options = SamplingOptions(num_steps=1, guidance_scale=scale, threshold_percentile=90.0)
    text, mask = stage.text_encoder(PROMPTS)
    keys = sample_keys([3, 4], 0)
    video = StageSampler(stage, options, 6).program(PARAMS, Inputs(text, mask, keys))
    z = noise(keys, 0, (6, 16, 16, 3))
    null = numpy_formula(z, stage.null_text()[0])
    expected = null + scale * (numpy_formula(z, text) - null)
    np.testing.assert_allclose(video, numpy_threshold(expected, 90.0), atol=2e-5)


@pytest.mark.parametrize("frames", [3, 4, 11])
@pytest.mark.parametrize("chunk", [1, 3])
def test_one_step_of_super_resolution_by_hand(frames, chunk):
    """The loop over windows that section 3.2 describes, in NumPy."""
    stage = formula_stage("ssr", ssr__chunk=chunk, ssr__augmentation=0.3)
    ssr = stage.config.ssr
    assert (ssr.window, ssr.overlap, ssr.factor) == (4, 2, 4)
    options = SamplingOptions(num_steps=1, guidance_scale=2.0, threshold_percentile=95.0)
    text, mask = stage.text_encoder(PROMPTS)
    keys = sample_keys([3, 4], 1)
    # Constant in space, so that up-sampling needs no second implementation here.
    low = np.random.default_rng(0).uniform(-1, 1, (2, frames, 1, 1, 3)).astype(np.float32)
    small = np.broadcast_to(low, (2, frames, 4, 4, 3))
    inputs = Inputs(text, mask, keys, video=jnp.asarray(small))
    video = StageSampler(stage, options).program(PARAMS, inputs)

    size = (frames, 16, 16, 3)
    z, augmentation = noise(keys, 0, size), noise(keys, 2**31, size)
    low = np.cos(0.3 * np.pi / 2) * low + np.sin(0.3 * np.pi / 2) * augmentation
    total, times = np.zeros((2, *size)), np.zeros(frames)
    for start in {3: [0], 4: [0], 11: [0, 2, 4, 6, 7]}[frames]:
        window = slice(start, start + 4)
        null = numpy_formula(z[:, window], stage.null_text()[0], low[:, window], 0.3)
        conditional = numpy_formula(z[:, window], text, low[:, window], 0.3)
        total[:, window] += null + 2.0 * (conditional - null)
        times[window] += 1
    expected = numpy_threshold(total / times[:, None, None, None], 95.0)
    np.testing.assert_allclose(video, expected, atol=5e-5)


def test_each_sampler_stays_in_range_and_calls_back_once_a_step():
    stage = formula_stage("stunet")
    text, mask = stage.text_encoder(PROMPTS)
    videos = {}
    for name in ("ddim", "ancestral", "dpmpp_2m"):
        calls = []
        options = SamplingOptions(sampler=name, num_steps=3, guidance_scale=9.0, time_power=1.5)
        inputs = Inputs(text, mask, sample_keys([1, 2], 0))
        sampler = StageSampler(stage, options, 2)
        video = sampler(PARAMS, inputs, on_step=lambda calls=calls: calls.append(1))
        videos[name] = np.asarray(video)
        assert len(calls) == 3
        np.testing.assert_allclose(video, sampler.program(PARAMS, inputs), atol=1e-6)
        assert videos[name].shape == (2, 2, 16, 16, 3) and videos[name].dtype == np.float32
        assert np.abs(videos[name]).max() <= 1 + 1e-5
    assert not np.allclose(videos["ddim"], videos["ancestral"], atol=1e-2)


def test_one_trace_for_all_noise_levels():
    traces = []

    class Counted(Formula):
        def apply(self, variables, z, *arguments, **condition):
            traces.append(z.shape[0])
            return super().apply(variables, z, *arguments, **condition)

    stage = dataclasses.replace(formula_stage("stunet"), network=Counted())
    text, mask = stage.text_encoder(PROMPTS)
    inputs = Inputs(text, mask, sample_keys([1, 2], 0))
    StageSampler(stage, SamplingOptions(num_steps=9), 2).program(PARAMS, inputs)
    assert traces == [4]  # both branches of guidance in one call


def test_memory_grows_with_the_chunk_and_not_with_the_windows():
    class Hungry:
        def apply(self, variables, z, *arguments, **condition):
            return jnp.sort(jnp.repeat(z, 16, axis=-1), axis=-1)[..., :3]

    def temporaries(chunk):
        stage = dataclasses.replace(formula_stage("ssr", ssr__chunk=chunk), network=Hungry())
        text, mask = stage.text_encoder(PROMPTS[:1])
        video = jax.ShapeDtypeStruct((1, 80, 16, 16, 3), jnp.float32)
        inputs = Inputs(text, mask, sample_keys([1], 0), video=video)
        sampler = StageSampler(stage, SamplingOptions(num_steps=1, guidance_scale=1.0))
        compiled = sampler.program.lower(PARAMS, inputs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one, four, everything = temporaries(1), temporaries(4), temporaries(99)
    assert everything - four > 4 * (four - one) > 0


def test_less_noise_needs_a_video_to_start_from():
    stage = formula_stage("stunet")
    text, mask = stage.text_encoder(PROMPTS)
    inputs = Inputs(text, mask, sample_keys([1, 2], 0))
    with pytest.raises(UserError, match="strength=0.5 needs an initial video"):
        StageSampler(stage, SamplingOptions(strength=0.5), 2).program(PARAMS, inputs)
