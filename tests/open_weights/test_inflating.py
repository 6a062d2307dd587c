"""An imported network is inflated, trained and sampled from like one that was trained here."""

import dataclasses
import functools
import importlib
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.training.initialization import initial_params
from lumiere_jax.training.step import training_loss
from tests.open_weights import deepfloyd
from tests.quick_jit import quick_jit
from tests.tiny_runs import metric, train

INFLATED = {"t2i": "stunet", "ssr": "ssr"}
FRAMES = 4


def inflated_config(name, workdir):
    config = importlib.import_module(f"configs.{INFLATED[name]}").get_config(f"from={workdir}")
    config.data.num_frames = FRAMES
    return config


@pytest.fixture(scope="module", name="inflated")
def fixture_inflated(workdirs):
    """Stages inflated from both imports, with the parameters that they start from."""
    stages = {}
    for name, workdir in workdirs.items():
        stage = Stage.from_config(inflated_config(name, workdir))
        stages[name] = stage, initial_params(stage, create_mesh(stage.config.mesh))
    return stages


def condition_of(name, low):
    text, _ = deepfloyd.embeddings(2)
    condition = {"text": text.numpy(), "text_mask": np.ones(text.shape[:2], bool)}
    if name == "ssr":
        condition |= {"low_resolution": low, "augmentation_level": np.array([0.25, 0.1], "f4")}
    return condition


@pytest.mark.parametrize("name", ["t2i", "ssr"])
def test_frozen_video(name, inflated, workdirs):
    """Every frame of a clip of equal frames is what the image network makes of it."""
    config, image_params, _ = checkpoint.load(workdirs[name])
    image, (stage, params) = Stage.from_config(config), inflated[name]
    frame, low = np.random.default_rng(0).normal(size=(2, 2, 1, 32, 32, 3)).astype("f4")
    log_snr = stage.schedule.log_snr(np.array([0.1, 0.7]))
    expected = quick_jit(image.predict)(image_params, frame, log_snr, condition_of(name, low))
    clip, low_clip = (np.repeat(x, FRAMES, axis=1) for x in (frame, low))
    condition = condition_of(name, low_clip)
    actual = quick_jit(stage.predict)(params, clip, log_snr, condition)
    assert actual.shape == (2, FRAMES, 32, 32, 6)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, np.repeat(expected, FRAMES, axis=1), atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["t2i", "ssr"])
def test_inflation_adds_temporal_parameters_alone(name, inflated, workdirs):
    image = flatten_dict(checkpoint.load(workdirs[name])[1])
    video = flatten_dict(inflated[name][1])
    assert image.keys() == {path for path in video if not is_temporal(path)}
    assert len(video) > len(image)
    for path, array in image.items():
        np.testing.assert_array_equal(video[path], array)


def test_config_is_taken_over(workdirs):
    saved = checkpoint.load_config(workdirs["ssr"])
    config = inflated_config("ssr", workdirs["ssr"])
    assert config.init_from == str(workdirs["ssr"]) and config.model.inflated
    for section in ("text", "diffusion", "sampling", "ssr"):
        assert json.dumps(config[section].to_dict()) == json.dumps(saved[section].to_dict())
    with pytest.raises(UserError, match="stage 't2i_ssr'; stage 'stunet' is inflated from.*'t2i'"):
        inflated_config("t2i", workdirs["ssr"])
    with pytest.raises(UserError, match="give the workdir"):
        importlib.import_module("configs.stunet").get_config("from=")


def test_another_network_of_the_same_shapes_is_refused(workdirs):
    config = inflated_config("t2i", workdirs["t2i"])
    config.model.activation = "silu"
    with pytest.raises(UserError, match="model.activation='gelu', but this run asks for 'silu'"):
        initial_params(Stage.from_config(config), create_mesh(config.mesh))


@pytest.fixture(scope="module", name="trained")
def fixture_trained(workdirs, tmp_path_factory):
    """Stage I, inflated and trained for two steps."""
    config = inflated_config("t2i", workdirs["t2i"])
    config.train.update({"batch_size": 2, "num_steps": 2, "log_every": 1, "eval_every": 0})
    config.train.update({"sample_every": 0, "checkpoint_every": 2})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 0})
    workdir = tmp_path_factory.mktemp("trained") / "stunet"
    train(config, workdir)
    return workdir


def test_training_leaves_the_import_alone(trained, workdirs):
    losses = metric(trained, "loss")
    assert sorted(losses) == [1, 2] and all(np.isfinite(loss) for loss in losses.values())
    image = flatten_dict(checkpoint.load(workdirs["t2i"])[1])
    video = flatten_dict(checkpoint.load(trained)[1])
    for path, array in image.items():
        assert np.asarray(array).tobytes() == np.asarray(video[path]).tobytes()
    projections = [x for path, x in video.items() if is_temporal(path) and "projection" in path]
    assert projections and all(np.any(array) for array in projections)  # they start at zero


def test_super_resolution_has_a_gradient_for_every_temporal_convolution(inflated):
    stage, params = inflated["ssr"]
    rng = np.random.default_rng(0)
    video = rng.uniform(-1, 1, (1, FRAMES, 32, 32, 3)).astype("f4")
    text, _ = deepfloyd.embeddings(1)
    batch = {"video": video, "text": text.numpy(), "text_mask": np.ones(text.shape[:2], bool)}
    null = np.zeros_like(batch["text"]), batch["text_mask"]
    stage = dataclasses.replace(stage, text_encoder=lambda prompts: null)
    gradient = quick_jit(jax.grad(functools.partial(training_loss, stage)))(
        params, batch, jax.random.key(0)
    )
    for path, array in flatten_dict(gradient).items():
        assert np.all(np.isfinite(array)), path
        if is_temporal(path) and path[-2:] == ("conv", "kernel"):
            assert np.any(array), path


def test_cascade_samples(trained, workdirs, sources):
    folder = sources["t2i"] / "text_encoder"
    loaded = LumierePipeline.from_checkpoints(trained, [workdirs["ssr"]], text_folder=folder)
    stage, params = loaded.super_resolution[0]
    config = dataclasses.replace(stage.config, ssr=dataclasses.replace(stage.ssr, factor=2))
    stage = dataclasses.replace(stage, config=config)
    pipeline = LumierePipeline(loaded.base, [(stage, params)], show_progress=False)
    videos = pipeline(["A red circle"], seeds=[1], num_steps=2)
    assert videos.shape == (1, FRAMES, 64, 64, 3)
    assert np.all(np.abs(videos) <= 1) and np.std(videos) > 0.05
    again = pipeline(["  a RED circle "], seeds=[1], num_steps=2)
    np.testing.assert_array_equal(again, videos)
