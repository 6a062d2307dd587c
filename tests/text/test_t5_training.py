"""A stage that is trained with T5: its batches, its checkpoints, and where its weights are."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax import text
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.sources import create_source
from lumiere_jax.evaluation.generation import Generator
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.planning.flops import training_flops
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.step import training_loss
from lumiere_jax.training.train import train
from tests.text.tiny_t5 import write_tiny_t5
from tests.tiny_runs import SMALLEST, example_config, metric, tiny_config


def t5_config(folder, stage="t2i", **fields):
    fields = {
        "text__name": "t5",
        "text__folder": str(folder),
        "text__dim": 16,
        "text__max_length": 12,
        "train__num_steps": 2,
    } | fields
    return tiny_config(stage, **SMALLEST | fields)


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    """A folder of weights, and a workdir that was trained with them."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_t5(folder / "t5")
    train(t5_config(folder / "t5", train__eval_every=2, train__sample_every=2), folder / "t2i")
    return folder


def test_a_run_trains_evaluates_and_samples(run):
    losses = metric(run / "t2i", "loss")
    assert list(losses) == [1, 2] and all(np.isfinite(loss) for loss in losses.values())
    assert len(metric(run / "t2i", "eval_loss")) == 1
    assert list((run / "t2i" / "samples").glob("*/samples.png"))


def test_embeddings_on_the_fly_are_those_computed_before(run):
    config = t5_config(run / "t5")
    encoder = Stage.from_config(config).text_encoder
    source = create_source(config.data, "train")

    def batches(text_encoder):
        return data_pipeline.train_batches(source, text_encoder, batch_size=4, seed=3)

    on_the_fly = text.device_part(batches(text.host_part(encoder)), encoder)
    captions = []

    def recorded(prompts):
        captions.append(list(prompts))
        return encoder(prompts)

    for batch, expected in zip(range(3), batches(recorded), strict=False):
        got = next(on_the_fly)
        # One prompt at a time, in another order, as if each had been stored by itself.
        stored = {caption: encoder([caption])[0][0] for caption in sorted(captions[batch])}
        by_caption = np.stack([stored[caption] for caption in captions[batch]])
        np.testing.assert_array_equal(got["text"], by_caption)
        assert got.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])
            assert got[name].dtype == expected[name].dtype


class Storing:
    """A source with the embeddings of its captions at hand."""

    def __init__(self, source, encoder):
        self._source, self._encoder = source, encoder
        self.fingerprint, self.text_fingerprint = "storing", encoder.fingerprint

    def __len__(self):
        return len(self._source)

    def example(self, index, seed=0):
        return self._source.example(index, seed)

    def stored_text(self, index, seed=0):
        embeddings, mask = self._encoder([self.example(index)[1]])
        return embeddings[0], mask[0]


def test_stored_embeddings_and_captions_in_one_batch(run):
    config = t5_config(run / "t5")
    encoder = Stage.from_config(config).text_encoder
    source = create_source(config.data, "train")

    def batches(first, text_encoder):
        mixture = Mixture([first, source], [1, 1])
        return data_pipeline.train_batches(mixture, text_encoder, batch_size=8, seed=3)

    mixed = batches(Storing(source, encoder), text.host_part(encoder))
    marked = next(mixed)["text"]
    assert 0 < np.isnan(marked[:, 0, -1]).sum() < 8
    expected = next(batches(source, encoder))
    mixed = batches(Storing(source, encoder), text.host_part(encoder))
    got = next(text.device_part(mixed, encoder))
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


def test_null_text_of_the_loss_is_that_of_the_encoder(run, monkeypatch):
    config = t5_config(run / "t5", diffusion__text_dropout=1.0, text__dtype="float32")
    stage = Stage.from_config(config)
    expected, mask = stage.null_text()
    seen = []

    def predict(stage, params, z, log_snr, condition):
        seen.append(condition)
        return z

    monkeypatch.setattr(Stage, "predict", predict)
    data = config.data
    prompts = stage.text_encoder(["a large red circle"] * 2)
    video = np.zeros((2, 1, data.resolution, data.resolution, 3), np.float32)
    batch = {"video": video, "text": prompts[0], "text_mask": prompts[1]}
    training_loss(stage, {}, jax.tree.map(jnp.asarray, batch), jax.random.key(0))
    np.testing.assert_array_equal(seen[0]["text"], np.repeat(expected, 2, 0))
    np.testing.assert_array_equal(seen[0]["text_mask"], np.repeat(mask, 2, 0))


def test_other_weights_are_refused(run, tmp_path):
    write_tiny_t5(tmp_path / "other", seed=1)
    message = r"trained with other weights of the text encoder .*other holds .*another --workdir"
    shutil.copytree(run / "t2i", tmp_path / "resumed")
    with pytest.raises(UserError, match=message):
        train(t5_config(tmp_path / "other", train__num_steps=3), tmp_path / "resumed")
    with pytest.raises(UserError, match=r"has text.dim=16, but this run asks for \d+"):
        train(tiny_config("t2i", **SMALLEST), tmp_path / "resumed")
    inflated = t5_config(tmp_path / "other", "stunet", init_from=str(run / "t2i"))
    with pytest.raises(UserError, match="other weights of the text encoder.*--config.init_from"):
        train(inflated, tmp_path / "stunet")


def test_same_weights_in_another_place(run, tmp_path):
    shutil.copytree(run / "t5", tmp_path / "moved")
    shutil.copytree(run / "t2i", tmp_path / "t2i")
    config = t5_config(tmp_path / "moved", text__dtype="float32")
    assert int(train(config, tmp_path / "t2i").step) == 2  # restored, as nothing is left to do


def test_checkpoint_on_another_machine(run, tmp_path):
    shutil.copytree(run / "t2i", tmp_path / "t2i")
    shutil.move(run / "t5", tmp_path / "t5")
    text.creation._created.clear()  # as in another process
    try:
        pipeline = LumierePipeline.from_checkpoints(tmp_path / "t2i", show_progress=False)
        with pytest.raises(UserError, match="config.json cannot be read.*give the folder"):
            pipeline(["a large red circle"])
    finally:
        shutil.move(tmp_path / "t5", run / "t5")
    expected = pipeline(["a large red circle"])
    shutil.copytree(run / "t5", tmp_path / "here")
    moved = LumierePipeline.from_checkpoints(
        tmp_path / "t2i", show_progress=False, text_folder=tmp_path / "here"
    )
    np.testing.assert_array_equal(moved(["a large red circle"]), expected)
    pipeline = Generator(base=tmp_path / "t2i", text_folder=tmp_path / "here").load().pipeline
    assert pipeline.base[0].text_encoder is moved.base[0].text_encoder
    write_tiny_t5(tmp_path / "other", seed=1)
    other = LumierePipeline.from_checkpoints(
        tmp_path / "t2i", show_progress=False, text_folder=tmp_path / "other"
    )
    with pytest.raises(UserError, match="other holds another text encoder.*--text_folder"):
        other(["a large red circle"])


@pytest.mark.parametrize("stage", ["t2i", "ssr"])
def test_full_config_is_planned_without_weights(stage):
    config = example_config(stage, "full")
    assert config.text.name == "t5" and config.text.folder == ""
    shapes_only = Stage.from_config(config, shapes_only=True)
    assert shapes_only.text_encoder([""])[0].shape == (1, 128, 4096)
    params = Stage.from_config(config).param_shapes
    assert jax.tree.leaves(params)
    tiny = t5_config("/absent")
    assert training_flops(Stage.from_config(tiny), 2).total > 0
