"""The stage that is shown some pixels: how it starts, what trains, and what it is shown."""

import functools

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.stage import Stage, known_part
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.training.initialization import initial_params
from lumiere_jax.training.step import training_loss
from tests.tiny_runs import tiny_config


def clips(config, count=2, seed=0):
    generator = np.random.default_rng(seed)
    data = config.data
    return generator.normal(size=(count, data.num_frames, data.resolution, data.resolution, 3))


def test_step_0_predicts_what_the_unconditional_model_does_whatever_is_shown(cascade):
    saved, params, _ = checkpoint.load(cascade["stunet"])
    before = Stage.from_config(saved)
    config = tiny_config("stunet_conditional", cascade["stunet"])
    stage = Stage.from_config(config)
    wider = initial_params(stage, create_mesh(config.mesh))
    assert wider["conv_in"]["kernel"].shape[2] == 7
    assert params["conv_in"]["kernel"].shape[2] == 3

    z, video = clips(config).astype(np.float32), clips(config, seed=1).astype(np.float32)
    text, mask = stage.text_encoder(["a large red circle", "a small blue square"])
    log_snr = np.array([-3.0, 2.0], np.float32)
    condition = {"text": text, "text_mask": mask}
    expected = jax.jit(before.predict)(params, z, log_snr, condition)
    predict = jax.jit(stage.predict)
    predictions = []
    for seed in range(3):
        shown = np.stack([stage.draw_mask(z.shape[1:4], 2 * seed + n) for n in range(2)])
        known = known_part(video, shown)
        predictions.append(np.asarray(predict(wider, z, log_snr, condition | {"known": known})))
    # In one program, kernels of zeros add nothing. That of the unconditional model is another one,
    # which may sum its convolutions in another order.
    for got in predictions:
        np.testing.assert_array_equal(got, predictions[0])
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
    assert not np.any(wider["conv_in"]["kernel"][:, :, 3:]) and np.abs(expected).max() > 0


def test_known_part_holds_the_known_pixels_and_the_mask(cascade):
    config = tiny_config("stunet_conditional", cascade["stunet"])
    video = clips(config).astype(np.float32)
    mask = np.random.default_rng(0).random((*video.shape[:-1], 1)) < 0.5
    known = np.asarray(known_part(video, mask))
    np.testing.assert_array_equal(known[..., :3], np.where(mask, video, 0))
    np.testing.assert_array_equal(known[..., 3:], mask.astype(np.float32))


def test_input_convolution_and_temporal_parameters_train_and_nothing_else(cascade):
    before = flatten_dict(checkpoint.load(cascade["stunet"])[1])
    after = flatten_dict(checkpoint.load(cascade["stunet_conditional"])[1])
    assert before.keys() == after.keys()
    changed = set()
    for path, leaf in after.items():
        was = np.asarray(before[path])
        if path == ("conv_in", "kernel"):
            was = np.pad(was, ((0, 0), (0, 0), (0, 4), (0, 0)))
        if np.asarray(leaf).tobytes() != was.tobytes():
            changed.add(path)
    assert ("conv_in", "kernel") in changed
    assert all(is_temporal(path) or path[0] == "conv_in" for path in changed)
    assert sum(is_temporal(path) for path in changed) > 10
    assert np.abs(np.asarray(after["conv_in", "kernel"])[:, :, 3:]).max() > 0


def test_loss_depends_on_what_is_shown(cascade):
    config, params, _ = checkpoint.load(cascade["stunet_conditional"])
    stage = Stage.from_config(config)
    video = clips(config).astype(np.float32)
    text, text_mask = stage.text_encoder(["a large red circle"] * 2)
    batch = {"video": video, "text": text, "text_mask": text_mask}
    loss = jax.jit(functools.partial(training_loss, stage))
    shape = (*video.shape[:-1], 1)
    losses = [
        float(loss(params, batch | {"mask": mask}, jax.random.key(0)))
        for mask in (np.zeros(shape, bool), np.ones(shape, bool))
    ]
    assert losses[0] != losses[1]
