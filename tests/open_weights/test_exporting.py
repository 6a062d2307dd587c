"""The way back: what is exported is what was imported, and `diffusers` samples from it."""

import json

import diffusers
import jax
import numpy as np
import optax
import pytest
import torch

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import create_state
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.open_weights.exporting import export_weights
from lumiere_jax.runtime.errors import UserError
from tests.open_weights import deepfloyd
from tests.tiny_runs import tiny_config

PIPELINES = {"t2i": diffusers.IFPipeline, "ssr": diffusers.IFSuperResolutionPipeline}


def images(pipeline, name):
    text, null = deepfloyd.embeddings(1)
    low = {"image": torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)} if name == "ssr" else {}
    return pipeline(
        prompt_embeds=text, negative_prompt_embeds=null, num_inference_steps=3,
        generator=torch.Generator().manual_seed(3), output_type="pt", **low,
    )[0]  # fmt: skip


@pytest.mark.parametrize("name", ["t2i", "ssr"])
def test_diffusers_loads_and_samples_the_same(name, pipelines, sources, workdirs, tmp_path):
    export_weights(workdirs[name], tmp_path / "exported", quiet=True)
    loaded = PIPELINES[name].from_pretrained(tmp_path / "exported")
    original = pipelines[name]
    state, expected = loaded.unet.state_dict(), original.unet.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    for part in ("scheduler", "image_noising_scheduler"):
        if hasattr(original, part):
            configs = [dict(getattr(pipeline, part).config) for pipeline in (loaded, original)]
            for config in configs:
                config.pop("_diffusers_version", None)
                config.pop("_use_default_values", None)
            assert configs[0] == configs[1]
    ours = json.loads((tmp_path / "exported" / "unet" / "config.json").read_text())
    theirs = json.loads((sources[name] / "unet" / "config.json").read_text())
    ours, theirs = (
        {k: v for k, v in c.items() if k != "_diffusers_version"} for c in (ours, theirs)
    )
    for config in (ours, theirs):
        config["time_embedding_dim"] = config["time_embedding_dim"] or 4 * 32
    assert ours == theirs
    torch.testing.assert_close(images(loaded, name), images(original, name), rtol=0, atol=0)


def random_checkpoint(workdir, **fields):
    """A checkpoint of a network that starts at random, as training would save it."""
    stage = Stage.from_config(tiny_config(fields.pop("stage", "t2i"), **fields))
    params = jax.jit(stage.init_params)(jax.random.key(0))
    saver = checkpoint.Checkpointer(workdir, keep_last=1, keep_best=0)
    saver.save(create_state(params, {}, optax.sgd(0.1)), stage.config)
    saver.close()
    return stage, params


def test_network_that_was_trained_here(tmp_path):
    stage, params = random_checkpoint(
        tmp_path / "run", diffusion__schedule="discrete", diffusion__prediction="epsilon",
        diffusion__learned_variance=True, diffusion__log_snr_shift=0.0, model__out_channels=6,
        model__widths=(32, 32), model__text_features=32, model__attention_levels=(False, True),
    )  # fmt: skip
    export_weights(tmp_path / "run", tmp_path / "out", quiet=True)
    loaded = diffusers.IFPipeline.from_pretrained(tmp_path / "out").unet
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 1, 16, 16, 3)).astype("f4")
    text = rng.normal(size=(2, 9, stage.config.text.dim)).astype("f4")
    time = np.array([3.0, 500.0], "f4")
    actual = jax.jit(stage.network.apply)({"params": params}, z, time, text)
    with torch.no_grad():
        inputs = torch.tensor(z[:, 0].transpose(0, 3, 1, 2)), torch.tensor([3, 500])
        expected = loaded(*inputs, torch.tensor(text)).sample.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(actual[:, 0], expected, atol=1e-4)


def test_what_diffusers_cannot_have_is_refused(workdirs, cascade, tmp_path):
    for workdir, message in [
        (cascade["stunet"], "'stunet' of stage 'stunet' has no counterpart"),
        (cascade["t2i_ssr"], "'ssr' of stage 't2i_ssr' has no counterpart"),
        (cascade["t2i"], "schedule='cosine' and no learned variance"),
        (tmp_path, "there is no checkpoint"),
    ]:
        with pytest.raises(UserError, match=message):
            export_weights(workdir, tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="exists already"):
        export_weights(workdirs["t2i"], tmp_path, quiet=True)
