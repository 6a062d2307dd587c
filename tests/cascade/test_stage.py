import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.stage import Stage, as_floats, create_network
from lumiere_jax.data.pipeline import train_batches
from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.diffusion.low_resolution import downsample, upsample_low_resolution
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.step import training_loss
from tests.tiny_runs import tiny_config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "vit"}, "model.name 'vit' is unknown.*unet.*stunet.*ssr"),
        ({"dtype": "float8"}, "model.dtype 'float8' is unknown.*bfloat16"),
        ({"width": 8}, r"unknown fields \['width'\].*widths"),
        ({"temporal_depth": 2}, r"unknown fields \['temporal_depth'\].*'unet' knows"),
        ({"parent": 1}, r"unknown fields \['parent'\]"),
    ],
)
def test_network_that_cannot_be_made(fields, message):
    config = tiny_config("t2i").model
    config.update(fields)
    with pytest.raises(UserError, match=message):
        create_network(config)


def test_network_has_the_fields_of_the_config():
    config = tiny_config("stunet", model__dtype="bfloat16").model
    config.widths = [8, 16]  # as a checkpoint's JSON has it
    network = create_network(config)
    assert network.widths == (8, 16)
    assert network.dtype == jnp.bfloat16
    assert network.temporal_initialization == "nearest"


DISCRETE = {"diffusion__schedule": "discrete", "diffusion__log_snr_shift": 0.0}
LEARNED = DISCRETE | {
    "diffusion__prediction": "epsilon", "diffusion__learned_variance": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "fields", "message"),
    [
        ("t2i", {"stage": "vae"}, "stage 'vae' is unknown.*t2i_ssr"),
        ("t2i", {"train__trainable": "some"}, "train.trainable 'some'.*all or temporal"),
        ("t2i", {"train__trainable": "temporal"}, "'t2i' has no temporal parameters"),
        ("t2i_ssr", {"train__trainable": "temporal"}, "'t2i_ssr' has no temporal parameters"),
        ("t2i", {"train__num_steps": 0}, "train.num_steps=0"),
        ("t2i", {"optimizer__name": "sgd"}, "optimizer.name 'sgd'.*adamw, adafactor or muon"),
        ("t2i", {"optimizer__decay": "step"}, "optimizer.decay 'step'.*constant or cosine"),
        ("t2i", {"diffusion__weighting": "snr"}, "weighting 'snr'.*plain, sigmoid or balanced"),
        ("t2i", {"diffusion__prediction": "score"}, "prediction 'score'.*v, epsilon or x0"),
        ("t2i", {"diffusion__text_dropout": 1.5}, "text_dropout=1.5 must be between 0 and 1"),
        ("t2i", {"sampling__sampler": "euler"}, "sampling.sampler 'euler' is unknown.*ddim"),
        ("t2i", {"data__num_frames": 8}, "data.num_frames=8 must be 1"),
        ("t2i", {"text__name": "bert"}, "text encoder 'bert'"),
        ("ssr", {"ssr__crop": 128}, "ssr.crop=128 and data.resolution=64"),
        ("ssr", {"ssr__factor": 3}, "ssr.factor=3"),
        ("ssr", {"ssr__overlap": 4}, "overlap=4.*window=4"),
        ("ssr", {"ssr__weights": "cubic"}, "'cubic'"),
        ("t2i", {"diffusion__schedule": "linear"}, "'linear' is unknown; use cosine or discrete"),
        ("t2i", {"diffusion__schedule": "discrete"}, "log_snr_shift=-4.0: the steps"),
        ("t2i", DISCRETE | {"diffusion__weighting": "sigmoid"}, "'sigmoid' needs a schedule"),
        ("t2i", DISCRETE | {"model__out_channels": 6}, "out_channels=6 with.*=False"),
        ("t2i", DISCRETE | {"diffusion__learned_variance": True}, "needs.*'epsilon'; got.*'x0'"),
        ("t2i", LEARNED | {"model__out_channels": 3}, "out_channels=3 with.*=True"),
        ("t2i", DISCRETE | {"sampling__sampler": "ddpm"}, "'ddpm' needs"),
        ("t2i", DISCRETE | {"sampling__timestep_spacing": "even"}, "'even' is unknown"),
        (
            "t2i",
            DISCRETE | {"sampling__time_power": 2.0},
            "time_power=2.0 and .* of the schedule 'cos",
        ),
        ("t2i", {"sampling__time_power": 0.0}, "time_power=0.0 must be above 0"),
        ("t2i", {"sampling__last_log_snr": 40.0}, "last_log_snr=40.0 must be between 0"),
    ],
)
def test_config_that_makes_no_sense(stage, fields, message):
    with pytest.raises(UserError, match=message):
        Stage.from_config(tiny_config(stage, **fields))


def test_freezing_rule():
    stage = Stage.from_config(tiny_config("stunet"))
    assert stage.is_trainable(("temporal_mid_1", "projection", "kernel"))
    assert not stage.is_trainable(("conv_in", "kernel"))
    everything = Stage.from_config(tiny_config("stunet", train__trainable="all"))
    assert everything.is_trainable(("conv_in", "kernel"))


def test_training_crops_are_aligned_and_all_of_them_are_drawn():
    config = tiny_config("ssr", ssr__crop=8, data__resolution=16, ssr__window=4, data__num_frames=6)
    stage, batch = Stage.from_config(config), 256
    assert config.ssr.factor == 4
    # A pixel's three values say where it is.
    where = np.stack(np.meshgrid(np.arange(6), np.arange(16), np.arange(16), indexing="ij"), -1)
    # Whole numbers below 256 and their means over 16 pixels are exact in float32.
    whole = jnp.asarray(where, jnp.float32)
    high = jnp.stack([stage.crop(np.asarray(whole), seed) for seed in range(batch)])
    low = stage.shown(downsample(high, 4), jnp.zeros(batch), jnp.zeros)
    starts = np.asarray(high[:, 0, 0, 0]).astype(int)
    for clip, (time, row, column) in zip(high, starts, strict=True):
        np.testing.assert_array_equal(
            clip, where[time : time + 4, row : row + 8, column : column + 8]
        )
    assert set(starts[:, 0]) == {0, 1, 2}
    assert set(starts[:, 1]) == set(starts[:, 2]) == {0, 4, 8}
    assert len({tuple(start) for start in starts}) == 27
    np.testing.assert_array_equal(low, upsample_low_resolution(downsample(high, 4), (8, 8)))
    # Aligned: a crop of the low-resolution clip, as sampling will see it.
    whole = np.asarray(downsample(whole[None], 4))[0]
    for clip, (time, row, column) in zip(downsample(high, 4), starts, strict=True):
        row, column = row // 4, column // 4
        np.testing.assert_array_equal(
            clip, whole[time : time + 4, row : row + 2, column : column + 2]
        )


@pytest.mark.parametrize(("noise_on", "left"), [("upsampled", 1 / 8), ("low_resolution", 1.0)])
def test_noise_that_is_left_on_the_low_resolution(noise_on, left):
    """Averaging undoes noise between the pixels that were there, but not noise on those."""
    stage = Stage.from_config(tiny_config("ssr", ssr__factor=8, ssr__noise_on=noise_on))
    level, rng = jnp.full(2, 0.1), np.random.default_rng(0)
    shown = stage.shown(jnp.zeros((2, 4, 16, 16, 3)), level, rng.standard_normal)
    sigma = np.sin(np.pi / 2 * 0.1)
    if noise_on == "upsampled":
        assert float(shown.std()) == pytest.approx(sigma, rel=0.02)
        assert float(downsample(shown, 8).std()) == pytest.approx(sigma * left, rel=0.1)
    else:  # the noise itself, enlarged: as a network sees a frame, nothing averages it away
        centres = np.asarray(shown)[:, :, 3::8, 3::8]
        assert centres.std() == pytest.approx(sigma * left, rel=0.15)


class Recorder:
    """Stands in for a network: remembers what it is given, and predicts the mean of the text."""

    def apply(self, variables, z, time, text, **condition):
        self.call = {"z": z, "time": time, "text": text, **condition}
        return jnp.zeros_like(z) + text.mean((1, 2))[:, None, None, None, None]


def recorded_loss(config, batch_size=8, seed=0):
    stage = dataclasses.replace(Stage.from_config(config), network=Recorder())
    rng = np.random.default_rng(seed)
    size = (batch_size, *stage.clip_shape())
    text, mask = stage.text_encoder(["a red circle moving up"] * batch_size)
    batch = {"video": rng.uniform(-1, 1, size).astype("f4"), "text": text, "text_mask": mask}
    loss = training_loss(stage, {}, jax.tree.map(jnp.asarray, batch), jax.random.key(seed))
    return float(loss), stage, stage.network.call, batch


def test_bytes_become_the_floats_of_the_host_on_the_device():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(jax.jit(as_floats)(values), to_float(values), atol=1e-7)
    half = jnp.asarray([0.25, -1.0])
    assert as_floats(half) is half


def test_the_device_gets_a_crop_of_bytes_and_not_a_clip_of_floats(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        frames = rng.integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
        write_lossless(tmp_path / f"{number}.mkv", to_float(frames), 8.0)
        (tmp_path / f"{number}.txt").write_text("noise")
    fields = {"data__name": "video_folder", "data__folder": str(tmp_path)}
    config = tiny_config("ssr", ssr__crop=32, ssr__window=4, data__num_frames=8, **fields)
    stage = Stage.from_config(config)
    source = create_source(stage.config.data, "train")
    batch = next(train_batches(source, stage.text_encoder, batch_size=2, seed=0, crop=stage.crop))[
        "video"
    ]
    whole = np.stack([source.example(number)[0] for number in range(2)])
    assert whole.nbytes >= 16 * batch.nbytes
    for crop in batch:  # as it is somewhere in one of the clips
        places = (
            clip[time : time + 4, row : row + 32, column : column + 32]
            for clip in whole for time in range(5)
            for row in range(0, 33, 4) for column in range(0, 33, 4)
        )  # fmt: skip
        assert any(np.array_equal(to_float(crop), place) for place in places)


def test_loss_drops_the_text_at_its_rate():
    config = tiny_config("stunet", diffusion__text_dropout=0.0)
    _, _, call, batch = recorded_loss(config)
    np.testing.assert_array_equal(call["text"], batch["text"])
    np.testing.assert_array_equal(call["text_mask"], batch["text_mask"])
    config.diffusion.text_dropout = 1.0
    _, stage, call, batch = recorded_loss(config)
    null_text, null_mask = stage.null_text()
    np.testing.assert_array_equal(call["text"], np.broadcast_to(null_text, batch["text"].shape))
    np.testing.assert_array_equal(
        call["text_mask"], np.broadcast_to(null_mask, batch["text_mask"].shape)
    )


def test_loss_of_the_base_is_the_mean_squared_error_of_the_noise():
    config = tiny_config("stunet", diffusion__prediction="epsilon")
    loss, _, call, batch = recorded_loss(config)
    angle = np.pi / 2 * np.asarray(call["time"], np.float64) / 1000  # of the cosine schedule
    alpha, sigma = (f(angle)[:, None, None, None, None] for f in (np.cos, np.sin))
    noise = (np.asarray(call["z"], np.float64) - alpha * batch["video"]) / sigma
    guess = np.asarray(call["text"]).mean((1, 2))[:, None, None, None, None]
    # At the least noise, sigma is small and the division loses digits.
    np.testing.assert_allclose(loss, np.mean((guess - noise) ** 2), rtol=1e-3)


def test_super_resolution_sees_an_augmented_low_resolution_crop():
    config = tiny_config("ssr")
    _, _, call, _ = recorded_loss(config, batch_size=16)
    crop, level = config.ssr.crop, np.asarray(call["augmentation_level"])
    assert call["z"].shape == call["low_resolution"].shape == (16, 4, crop, crop, 3)
    assert level.shape == (16,) and 0 <= level.min() < 0.3 < 0.7 < level.max() <= 1
    # Uniform pixels averaged over 16 and up-sampled are almost 0, so what is left is the noise.
    deviation = np.asarray(call["low_resolution"]).std(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(deviation, np.sin(np.pi / 2 * level), atol=0.15)
