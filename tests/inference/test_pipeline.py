import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.low_resolution import upsample_low_resolution
from lumiere_jax.diffusion.parameterization import to_x0
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import sample_keys
from lumiere_jax.runtime.errors import UserError

RED, BLUE = "a large red circle moving right", "a small blue square moving up"


@pytest.fixture(name="pipeline", scope="module")
def fixture_pipeline(cascade):
    return LumierePipeline.from_checkpoints(
        cascade["stunet"], [cascade["ssr"]], show_progress=False
    )


@pytest.fixture(name="videos", scope="module")
def fixture_videos(pipeline):
    """Two videos of one prompt."""
    return pipeline([RED, RED], seeds=[5, 6], base_only=True)


def test_same_prompt_and_seed_give_the_same_video(pipeline, videos):
    assert videos.shape == (2, 8, 16, 16, 3) and videos.dtype == np.float32
    again = pipeline([RED, RED], seeds=[5, 6], base_only=True)
    assert again.tobytes() == videos.tobytes()
    # Whatever else is in the batch, wherever it stands in it, and alone.
    beside = pipeline([BLUE, RED], seeds=[9, 5], base_only=True)
    np.testing.assert_allclose(beside[1], videos[0], atol=1e-5)
    alone = pipeline([RED], seeds=[5], base_only=True)
    np.testing.assert_allclose(alone[0], videos[0], atol=1e-5)


def test_seed_and_prompt_make_a_difference(pipeline, videos):
    assert np.abs(videos[0] - videos[1]).max() > 1e-3
    other = pipeline([BLUE, RED], seeds=[5, 6], base_only=True)
    assert np.abs(other[0] - videos[0]).max() > 1e-3
    np.testing.assert_allclose(other[1], videos[1], atol=1e-5)


def test_range(videos):
    assert 0.01 < np.abs(videos).max() <= 1 + 1e-6


def test_guidance_changes_the_outcome(pipeline, videos):
    conditional = pipeline([RED, RED], seeds=[5, 6], base_only=True, guidance_scale=1.0)
    assert np.isfinite(conditional).all() and np.abs(conditional).max() <= 1 + 1e-6
    assert np.abs(conditional - videos).max() > 1e-3


def test_more_prompts_than_fit_into_a_batch(pipeline, videos):
    """The last batch is filled up; nothing of that is seen."""
    chunked = pipeline([RED, RED, BLUE], seeds=[5, 6, 7], base_only=True, batch_size=2)
    assert chunked.shape == (3, 8, 16, 16, 3)
    assert chunked[:2].tobytes() == videos.tobytes()


def test_whole_cascade_at_another_length(pipeline):
    """More frames than the base was trained on, and than a window of super-resolution has."""
    video = pipeline([RED], num_frames=10, num_steps=1)
    assert video.shape == (1, 10, 64, 64, 3)
    assert np.abs(video).max() <= 1 + 1e-6
    base = pipeline([RED], seeds=[0], num_frames=10, num_steps=1, base_only=True)
    np.testing.assert_array_equal(video, pipeline.refine(base, [RED], [0], num_steps=1))


def test_refinement_is_a_loop_over_windows(pipeline):
    """One denoising step with the trained network; the loop is written here once more."""
    stage, params = pipeline.super_resolution[0]
    frames, size = 7, 16
    small = np.random.default_rng(0).uniform(-1, 1, (1, frames, 4, 4, 3)).astype(np.float32)
    video = pipeline.refine(small, [RED], [3], num_steps=1, guidance_scale=1.0)

    (key,) = sample_keys([3], 1)
    draw = [jax.random.normal(jax.random.fold_in(key, s), (frames, 16, 16, 3)) for s in (0, 2**31)]
    z, augmentation = draw[0][None], draw[1][None]
    level = stage.config.ssr.augmentation
    low = upsample_low_resolution(jnp.asarray(small), (size, size))
    low = np.cos(np.pi / 2 * level) * low + np.sin(np.pi / 2 * level) * augmentation
    log_snr = stage.schedule.log_snr(jnp.ones(1))
    text, mask = stage.text_encoder([RED])
    predict = jax.jit(stage.predict)
    total, times = np.zeros(z.shape), np.zeros(frames)
    for start in (0, 2, 3):
        window = slice(start, start + 4)
        condition = {"text": text, "text_mask": mask, "low_resolution": low[:, window]}
        condition["augmentation_level"] = jnp.full(1, level)
        total[:, window] += predict(params, z[:, window], log_snr, condition)
        times[window] += 1
    fused = total / times[:, None, None, None]
    x0 = to_x0(stage.config.diffusion.prediction, fused, z, log_snr)
    limit = max(1.0, np.percentile(np.abs(x0), stage.config.sampling.threshold_percentile))
    np.testing.assert_allclose(video, np.clip(x0, -limit, limit) / limit, atol=2e-4)


def test_single_images_from_the_stage_before(cascade):
    images = LumierePipeline.from_checkpoints(cascade["t2i"], show_progress=False)
    with pytest.raises(UserError, match="single images; num_frames=8 must be 1"):
        images([RED], num_frames=8)
    assert images([RED]).shape == (1, 1, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 7}, "num_frames=7 must be a multiple of 2"),
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"num_frames": -8}, "num_frames=-8 must be at least 1"),
        ({"num_steps": 0}, "steps=0"),
        ({"sampler": "euler"}, "sampler=euler must be one of ddim"),
        ({"guidance_scale": -2.0}, "guidance_scale=-2"),
        ({"seeds": [1, 2]}, "1 prompts with 2 seeds"),
        ({"seeds": [-1]}, r"seeds must be in \[0, 2\^32\); got -1"),
        ({"seeds": [2**32]}, r"seeds must be in \[0, 2\^32\)"),
    ],
)
def test_option_that_cannot_be_used(pipeline, options, message):
    with pytest.raises(UserError, match=message):
        pipeline([RED], **options)


def test_no_prompt(pipeline):
    with pytest.raises(UserError, match="0 prompts"):
        pipeline([])


def test_stage_in_the_wrong_place(cascade, pipeline):
    with pytest.raises(UserError, match="base checkpoint is of stage 'ssr'.*'stunet'"):
        LumierePipeline.from_checkpoints(cascade["ssr"])
    with pytest.raises(UserError, match="super-resolution checkpoint is of stage 't2i'.*'ssr'"):
        LumierePipeline(pipeline.base, [(Stage.from_config(t2i_config(cascade)), {})])


def t2i_config(cascade):
    return LumierePipeline.from_checkpoints(cascade["t2i"]).base[0].config


def test_progress_is_shown(cascade, capsys):
    pipeline = LumierePipeline.from_checkpoints(cascade["t2i"])
    pipeline([RED], num_steps=2)
    stderr = capsys.readouterr().err
    assert stderr.startswith("base: compiling")
    assert "base: 2/2 steps" in stderr
