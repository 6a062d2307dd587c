"""The base's sampler beyond one clip of a prompt: longer, led away, started from a video."""

import numpy as np
import pytest

from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.runtime.errors import UserError
from tests.inference.test_sampling import (
    PARAMS,
    PROMPTS,
    formula_stage,
    noise,
    numpy_formula,
    numpy_threshold,
)

RED, BLUE = "a large red circle moving right", "a small blue square moving up"


def sampled(stage, options, given=None, num_frames=8):
    keys = sample_keys([0, 1], 0)
    text, mask = stage.text_encoder(PROMPTS)
    inputs = Inputs(text, mask, keys, **(given or {}))
    return np.asarray(StageSampler(stage, options, num_frames).program(PARAMS, inputs)), keys, text


def test_a_negative_prompt_takes_the_place_of_no_text():
    stage = formula_stage("stunet")
    options = SamplingOptions(num_steps=1, guidance_scale=3.0)
    text, mask = stage.text_encoder(["a green triangle"] * 2)
    got, keys, prompt = sampled(stage, options, {"null_text": text, "null_mask": mask})
    z = noise(keys, 0, (8, 16, 16, 3))
    away = numpy_formula(z, text)
    expected = numpy_threshold(away + 3.0 * (numpy_formula(z, prompt) - away), 99.5)
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize(("first", "last"), [(1.0, 0.5), (0.7, 0.0), (0.4, 0.3)])
def test_guidance_within_some_times_alone(first, last):
    """One step at a time: each starts at a time of its own, by `strength`."""
    stage = formula_stage("stunet")
    initial = np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 16, 3)).astype(np.float32)
    for time in (0.95, 0.6, 0.35, 0.1):
        strength = float(stage.schedule.network_time(stage.schedule.log_snr(time))) / 1000
        fields = {"num_steps": 1, "strength": strength}
        limited = SamplingOptions(
            **fields, guidance_scale=3.0, guidance_from=first, guidance_to=last
        )
        scale = 3.0 if last <= time <= first else 1.0
        everywhere = SamplingOptions(**fields, guidance_scale=scale)
        given = {"initial": initial}
        got, expected = (sampled(stage, options, given)[0] for options in (limited, everywhere))
        np.testing.assert_allclose(got, expected, atol=1e-6)
    other = SamplingOptions(num_steps=1, strength=0.95, guidance_scale=2.0)
    assert np.abs(sampled(stage, other, given)[0] - initial).max() > 0.01


@pytest.mark.parametrize(("frames", "overlap", "starts"), [(11, 4, (0, 3)), (20, 0, (0, 8, 12))])
def test_windows_of_the_trained_length_are_averaged(frames, overlap, starts):
    stage = formula_stage("stunet")
    options = SamplingOptions(num_steps=1, guidance_scale=1.0, overlap=overlap)
    got, keys, text = sampled(stage, options, num_frames=frames)
    z = noise(keys, 0, (frames, 16, 16, 3))
    ramp = np.array([1, 2, 3, 4, 4, 3, 2, 1.0])
    total, weights = np.zeros_like(z), np.zeros(frames)
    for start in starts:
        window = slice(start, start + 8)
        total[:, window] += ramp[:, None, None, None] * numpy_formula(z[:, window], text)
        weights[window] += ramp
    expected = numpy_threshold(total / weights[:, None, None, None], 99.5)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_memory_grows_by_the_video_alone(cascade):
    """Temporaries of the compiled sampler: some copies of the video more, but no features."""
    config, params, _ = checkpoint.load(cascade["stunet"])
    stage = Stage.from_config(config)
    text, mask = stage.text_encoder([RED])

    def temporaries(frames):
        program = StageSampler(stage, SamplingOptions(num_steps=2), frames).program
        compiled = program.lower(params, Inputs(text, mask, sample_keys([0], 0))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    short, long = temporaries(16), temporaries(96)
    assert long - short <= 8 * 4 * 3 * 16 * 16 * (96 - 16)
    assert short > 0


@pytest.fixture(name="pipeline", scope="module")
def fixture_pipeline(cascade):
    return LumierePipeline.from_checkpoints(cascade["stunet"], show_progress=False)


def test_strength_1_is_text_to_video_with_the_same_seed(pipeline):
    video = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    expected = pipeline([RED], seeds=[3])
    np.testing.assert_array_equal(
        pipeline.video_to_video(video, [RED], strength=1, seeds=[3]), expected
    )
    less = pipeline.video_to_video(video, [RED], strength=0.9, seeds=[3])
    assert np.abs(less - expected).max() > 1e-3


class Counter:
    """Counts the steps of each stage."""

    def __init__(self):
        self.stages = []

    def start(self, label, num_steps):
        self.stages.append((num_steps, []))

    def compiling(self):
        pass

    def advance(self):
        self.stages[-1][1].append("a step")


@pytest.mark.parametrize("num_steps", [None, 4])
def test_a_strength_leaves_super_resolution_all_of_its_steps(cascade, num_steps):
    pipeline = LumierePipeline.from_checkpoints(
        cascade["stunet"], [cascade["ssr"]], show_progress=False
    )
    own = num_steps or pipeline.super_resolution[0][0].config.sampling.num_steps
    base = num_steps or pipeline.base[0].config.sampling.num_steps
    counter, video = Counter(), np.zeros((8, 16, 16, 3), np.float32)
    pipeline.video_to_video(video, [RED], strength=0.5, num_steps=num_steps, listener=counter)
    assert [(told, len(steps)) for told, steps in counter.stages] == [
        (base // 2, base // 2), (own, own),
    ]  # fmt: skip


@pytest.mark.parametrize("shift", [0.0, -6.0])
@pytest.mark.parametrize("strength", [0.05, 0.5, 0.9])
def test_a_strength_is_the_same_noise_for_every_schedule(shift, strength):
    stage = formula_stage("stunet", diffusion__log_snr_shift=shift)
    video = np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 16, 3)).astype(np.float32)
    options = SamplingOptions(num_steps=1, strength=strength, guidance_scale=1.0)
    got, keys, text = sampled(stage, options, {"initial": video})
    angle = np.pi / 2 * strength
    z = np.cos(angle) * video + np.sin(angle) * noise(keys, 0, video.shape[1:])
    np.testing.assert_allclose(got, numpy_threshold(numpy_formula(z, text), 99.5), atol=1e-3)


def test_little_noise_leaves_a_video_of_what_the_model_knows(pipeline):
    """With no steps to change it: the noised video is what the network is shown."""
    stage, _ = pipeline.base
    video = pipeline([RED, BLUE], seeds=[3, 4])
    options = SamplingOptions(num_steps=1, strength=1e-4, guidance_scale=1.0)
    got, _, _ = sampled(formula_stage("stunet"), options, {"initial": video})
    z_is_the_video = numpy_formula(video.astype(np.float64), stage.text_encoder(PROMPTS)[0])
    np.testing.assert_allclose(got, numpy_threshold(z_is_the_video, 99.5), atol=0.02)


def test_no_negative_prompt_is_the_empty_one(pipeline):
    plain = pipeline([RED], seeds=[3])
    assert pipeline([RED], seeds=[3], negative_prompt="").tobytes() == plain.tobytes()
    away = pipeline([RED, RED], seeds=[3, 4], negative_prompt=BLUE, batch_size=1)
    assert np.abs(away[0] - plain[0]).max() > 1e-3
    # Away from the prompt itself, there is nothing to lead.
    same = pipeline([RED], seeds=[3], negative_prompt=RED, guidance_scale=5.0)
    unguided = pipeline([RED], seeds=[3], guidance_scale=1.0)
    np.testing.assert_allclose(same, unguided, atol=1e-4)


def test_estimates_are_told_at_every_step(pipeline):
    told = {}

    def keep(log_snr, estimate):
        told[float(log_snr)] = np.asarray(estimate)

    made = pipeline([RED], seeds=[3], num_steps=4, on_estimate=keep)
    assert len(told) == 4
    assert all(estimate.shape == (1, 4, 16, 16, 3) for estimate in told.values())
    np.testing.assert_allclose(told[max(told)][0], made[0, ::2], atol=1e-6)


def test_a_longer_video_than_was_trained(pipeline):
    long = pipeline([RED], seeds=[3], num_frames=20)
    assert long.shape == (1, 20, 16, 16, 3) and np.isfinite(long).all()
    other = pipeline([RED], seeds=[3], num_frames=20, overlap=0)
    assert np.abs(long - other).max() > 1e-4
    with pytest.raises(UserError, match="overlap=8 must be .* below window=8"):
        pipeline([RED], num_frames=20, overlap=8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strength": 0.0}, "strength=0.0 must be above 0"),
        ({"strength": 1.5}, "strength=1.5"),
        ({"guidance_from": 0.2, "guidance_to": 0.6}, "from time 0.2 to 0.6"),
        ({"guidance_from": 2.0}, "guidance_from=2.0 must be at least 0 and at most 1"),
    ],
)
def test_options_out_of_range(fields, message):
    with pytest.raises(UserError, match=message):
        SamplingOptions(**fields)
