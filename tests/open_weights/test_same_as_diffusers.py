"""What is imported computes what `diffusers` computes with the directory."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from tests.open_weights import deepfloyd
from tests.quick_jit import quick_jit

STEPS = 5


def load(workdir):
    config, params, step = checkpoint.load(workdir)
    assert step == 0
    return Stage.from_config(config), params


def as_images(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def as_tensor(images):
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2))


def assert_relatively_close(actual, expected, tolerance):
    error = np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"relative error {error:.2e}"


@pytest.mark.parametrize("name", ["t2i", "ssr"])
def test_network_is_that_of_diffusers(name, pipelines, workdirs):
    stage, params = load(workdirs[name])
    rng = np.random.default_rng(0)
    z, low = rng.normal(size=(2, 2, 1, 16, 24, 3)).astype("f4")
    text, _ = deepfloyd.embeddings(2)
    steps = np.array([3, 870])
    condition, labels, inputs = {"text": text.numpy(), "text_mask": None}, None, z[:, 0]
    if name == "ssr":
        condition |= {"low_resolution": low, "augmentation_level": np.array([0.25, 0.1], "f4")}
        labels, inputs = torch.tensor([250, 100]), np.concatenate([z, low], -1)[:, 0]
    with torch.no_grad():
        expected = pipelines[name].unet(
            as_tensor(inputs), torch.tensor(steps), text, class_labels=labels
        )
    log_snr = stage.schedule.log_snr((steps + 0.5) / 1000)
    actual = quick_jit(stage.predict)(params, z, log_snr, condition)
    assert_relatively_close(actual[:, 0], as_images(expected.sample), 1e-4)


class _Recorded:
    """Hands out noise that was drawn before, in order, in place of `diffusers`' generator."""

    def __init__(self, monkeypatch, module_names, noises):
        self.left = [as_tensor(noise[:, 0]) for noise in noises]
        for name in module_names:
            monkeypatch.setattr(f"diffusers.{name}.randn_tensor", self)

    def __call__(self, shape, **_):
        noise = self.left.pop(0)
        assert noise.shape == tuple(shape)
        return noise


def draw(keys, stream, shape):
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, stream)
    return np.asarray(jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(keys))


@dataclasses.dataclass(frozen=True)
class _Embedded:
    """Stands in for a text encoder: embeddings of the null text."""

    null: np.ndarray

    def __call__(self, prompts):
        return self.null[:1], np.ones((1, deepfloyd.TEXT_LENGTH), bool)


def with_null_text(stage, null):
    return dataclasses.replace(stage, text_encoder=_Embedded(null.numpy()))


def assert_same_images(actual, pipeline, text, null, **options):
    """Compares with what the pipeline makes of the embeddings of prompts and of the null text."""
    embeddings = {"prompt_embeds": text, "negative_prompt_embeds": null}
    expected = pipeline(**embeddings, num_inference_steps=STEPS, output_type="pt", **options)[0]
    assert np.std(as_images(expected)) > 0.1
    np.testing.assert_allclose(actual[:, 0], as_images(expected), atol=1e-3)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_images_are_those_of_the_pipeline_of_stage_one(guidance, pipelines, workdirs, monkeypatch):
    stage, params = load(workdirs["t2i"])
    text, null = deepfloyd.embeddings(2)
    null = null[:1].expand(2, -1, -1)
    keys, shape = sample_keys([5, 6], 0), (2, 1, deepfloyd.SIZE, deepfloyd.SIZE, 3)
    options = SamplingOptions.from_config(stage.config, num_steps=STEPS, guidance_scale=guidance)
    assert options.sampler == "ddpm" and options.threshold_max == 1.5
    inputs = Inputs(text.numpy(), np.ones(text.shape[:2], bool), keys)
    actual = StageSampler(with_null_text(stage, null), options, 1).program(params, inputs)
    modules = ["pipelines.deepfloyd_if.pipeline_if", "schedulers.scheduling_ddpm"]
    _Recorded(monkeypatch, modules, [draw(keys, i, shape) for i in range(STEPS)])
    assert_same_images(actual, pipelines["t2i"], text, null, guidance_scale=guidance)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
def test_other_samplers_take_the_noise_alone(name, workdirs):
    stage, params = load(workdirs["t2i"])
    text, null = deepfloyd.embeddings(1)
    options = SamplingOptions.from_config(stage.config, num_steps=3, sampler=name)
    inputs = Inputs(text.numpy(), np.ones(text.shape[:2], bool), sample_keys([5], 0))
    video = StageSampler(with_null_text(stage, null), options, 1).program(params, inputs)
    assert video.shape == (1, 1, deepfloyd.SIZE, deepfloyd.SIZE, 3)
    assert np.all(np.abs(video) <= 1) and np.std(video) > 0.1


def test_images_are_those_of_the_pipeline_of_stage_two(pipelines, workdirs, monkeypatch):
    stage, params = load(workdirs["ssr"])
    text, null = deepfloyd.embeddings(2)
    null = null[:1].expand(2, -1, -1)
    low = np.random.default_rng(1).uniform(-1, 1, (2, 1, 8, 8, 3)).astype("f4")
    keys, shape = sample_keys([5, 6], 1), (2, 1, deepfloyd.SIZE, deepfloyd.SIZE, 3)
    options = SamplingOptions.from_config(stage.config, num_steps=STEPS)
    assert options.guidance_scale == 4.0 and stage.config.ssr.factor == 4
    inputs = Inputs(text.numpy(), np.ones(text.shape[:2], bool), keys, video=low)
    actual = StageSampler(with_null_text(stage, null), options).program(params, inputs)
    modules = ["pipelines.deepfloyd_if.pipeline_if_superresolution", "schedulers.scheduling_ddpm"]
    streams = [0, 2**31, *range(1, STEPS)]  # the image, the augmentation, the steps
    _Recorded(monkeypatch, modules, [draw(keys, i, shape) for i in streams])
    assert_same_images(actual, pipelines["ssr"], text, null, image=as_tensor(low[:, 0]))
