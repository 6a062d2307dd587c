"""The example configs: `tiny` trains, `full` has the paper's size."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.stage import STAGES, Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.sources import create_source
from lumiere_jax.models.parameters import count, partition
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.step import training_loss
from tests.tiny_runs import STEPS, example_config, metric, write_pictures

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", STAGES)
def test_tiny_variant_trains(cascade, stage):
    losses = metric(cascade[stage], "loss")
    assert list(losses) == list(range(1, STEPS + 1))
    assert all(0 < loss < 10 for loss in losses.values())
    assert all(norm > 0 for norm in metric(cascade[stage], "gradient_norm").values())
    config, params, step = checkpoint.load(cascade[stage])
    assert (config.stage, step) == (stage, STEPS)
    fresh = Stage.from_config(config).init_params
    shapes = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(fresh, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == shapes


@pytest.mark.parametrize(("stage", "before"), [("stunet", "t2i"), ("ssr", "t2i_ssr")])
def test_inflated_stage_changes_nothing_but_its_temporal_parameters(cascade, stage, before):
    image = flatten_dict(checkpoint.load(cascade[before])[1])
    video = flatten_dict(checkpoint.load(cascade[stage])[1])
    assert image.keys() == {path for path in video if not is_temporal(path)}
    for path, leaf in image.items():
        assert np.asarray(leaf).tobytes() == np.asarray(video[path]).tobytes(), path
    trained = [leaf for path, leaf in video.items() if "projection" in path or "conv" in path]
    assert any(np.any(leaf) for leaf in trained)


def test_from_takes_over_clips_and_optimizer_of_a_run_of_this_project():
    weights = REPOSITORY / "weights" / "small"
    stunet = example_config("stunet", f"from={weights}/t2i")
    conditional = example_config("stunet_conditional", f"from={weights}/stunet")
    assert {stunet.data.name, conditional.data.name} == {"mixture"}
    assert stunet.data.num_frames > 1 and conditional.data.num_frames == 16
    assert stunet.optimizer.name == conditional.optimizer.name == "muon"
    assert stunet.optimizer.warmup_steps < stunet.train.num_steps
    style = example_config("style", f"from={weights}/t2i")
    assert (style.data.name, style.data.folder, style.data.mixture) == ("image_folder", "", ())


def test_a_mixture_of_pictures_and_videos_becomes_one_of_videos(monkeypatch):
    place = REPOSITORY / "weights" / "small" / "t2i"
    saved = checkpoint.load_config(place)
    parts = ({"name": "image_folder", "folder": "a"}, {"name": "video_folder", "folder": "b"})
    saved.data.mixture = parts
    monkeypatch.setattr(checkpoint, "load_config", lambda workdir: saved)
    assert tuple(example_config("stunet", f"from={place}").data.mixture) == parts[1:]


@pytest.mark.parametrize("stage", STAGES)
def test_tiny_variant_as_it_is_takes_its_own_batches(stage, tmp_path):
    config = example_config(stage)
    data = config.data
    if stage == "style":
        data.folder = str(write_pictures(tmp_path / "pictures"))
    source = create_source(data, "train")
    video, caption = source.example(0)
    assert video.shape == (data.num_frames, data.resolution, data.resolution, 3)
    config.allow_untrained_start = True
    model = Stage.from_config(config)
    text, mask = model.text_encoder([caption] * config.train.batch_size)
    batch = {"video": np.stack([video] * config.train.batch_size), "text": text, "text_mask": mask}
    if model.is_conditional:
        batch["mask"] = np.stack([model.draw_mask(video.shape[:3], 0)] * config.train.batch_size)
    params = model.param_shapes
    loss = functools.partial(training_loss, model)
    assert jax.eval_shape(loss, params, batch, jax.random.key(0)).shape == ()


@pytest.mark.parametrize("stage", STAGES)
def test_unknown_variant(stage):
    with pytest.raises(UserError, match=f"configs/{stage}.py has no variant 'huge'.*tiny, .*full"):
        example_config(stage, "huge")


def full_scale(stage, variant="full"):
    """A stage at full scale, the shapes of its parameters, and the number of them."""
    model = Stage.from_config(example_config(stage, variant))
    params = model.param_shapes
    temporal, image = partition(params, is_temporal)
    print(
        f"{stage}:{variant}: {count(params) / 1e9:.3f}B parameters, {count(image) / 1e9:.3f}B of "
        f"the image network, {count(temporal) / 1e9:.3f}B of its inflation"
    )
    return model, params, count(image), count(temporal)


def prediction_shape(model, params, frames, size):
    """What the network predicts for a clip at full scale, in bfloat16, without computing it."""
    text = model.config.text
    clip = jax.ShapeDtypeStruct((1, frames, size, size, 3), jnp.float32)
    number = jax.ShapeDtypeStruct((1,), jnp.float32)
    condition = {
        "text": jax.ShapeDtypeStruct((1, text.max_length, text.dim), jnp.float32),
        "text_mask": jax.ShapeDtypeStruct((1, text.max_length), bool),
    }
    if model.is_super_resolution:
        condition |= {"low_resolution": clip, "augmentation_level": number}
    return jax.eval_shape(model.predict, params, clip, number, condition)


def test_full_space_time_unet():
    model, params, image, temporal = full_scale("stunet")
    assert abs((image + temporal) / 5e9 - 1) < 0.1
    assert model.network.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert prediction_shape(model, params, 80, 128).shape == (1, 80, 128, 128, 3)
    assert image == full_scale("t2i")[2]


def test_inflation_of_deepfloyd_if():
    model, params, image, temporal = full_scale("stunet", "if_xl")
    assert round(image / 1e9, 3) == 4.305
    assert abs((image + temporal) / 5.5e9 - 1) < 0.1
    assert prediction_shape(model, params, 80, 64).shape == (1, 80, 64, 64, 6)
    assert model.learned_variance and model.config.train.frozen_dtype == "bfloat16"


def test_full_super_resolution():
    model, params, image, temporal = full_scale("ssr")
    assert abs((image + temporal) / 1e9 - 1) < 0.1
    # The widest it ever sees: all 80 frames of 1024×1024, though sampling takes windows of 8.
    assert prediction_shape(model, params, 80, 1024).shape == (1, 80, 1024, 1024, 3)
    assert image == full_scale("t2i_ssr")[2]
