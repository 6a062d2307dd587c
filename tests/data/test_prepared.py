import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lumiere_jax.cascade.config import default_config
from lumiere_jax.data import pixels, video_io
from lumiere_jax.data.pipeline import train_batches
from lumiere_jax.data.prepared import Prepared
from lumiere_jax.data.source import HoldsFrames, StoresText
from lumiere_jax.data.sources import create_source
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import HashedTextEncoder, T5TextEncoder
from tests.preparation.videos import moving, prepare, write
from tests.text.tiny_t5 import write_tiny_t5

ENCODER = HashedTextEncoder(dim=8, max_length=6)
STORED = {"num_frames": 8, "resolution": 16, "fps": 8}
CAPTIONS = ("a short one", "another, which is too long to be kept", "x")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    lines = []
    for n in range(9):
        write(folder / f"{n}.mp4", moving(16 + 8 * (n % 2), seed=n))
        lines += [f'{n}.mp4,"{n}: {caption}"' for caption in CAPTIONS]
    (folder / "list.csv").write_text("path,caption\n" + "\n".join(lines) + "\n")
    return folder / "list.csv"


@pytest.fixture(scope="module")
def folder(videos, tmp_path_factory):
    """Eleven or so clips of nine videos in shards of two, with embeddings; not to be changed."""
    path = tmp_path_factory.mktemp("prepared") / "out"
    prepare(videos, path, encoder=ENCODER, videos_per_shard=2, test_fraction=0.35)
    return path


def all_examples(source, seed=0):
    return [source.frames(index, seed) for index in range(len(source))]


def test_clips_are_those_of_the_videos_in_order(videos, folder):
    found = {}
    for split in ("train", "test"):
        for frames, caption in all_examples(Prepared(folder, **STORED, split=split)):
            assert frames.shape == (8, 16, 16, 3) and frames.dtype == np.uint8
            number, text = caption.split(": ")
            assert text in CAPTIONS
            found.setdefault(int(number), (split, []))[1].append(frames)
    assert {split for split, _ in found.values()} == {"train", "test"}
    for number, (_, clips) in found.items():
        whole = video_io.read_video(videos.parent / f"{number}.mp4", fps=8, size=(16, 16))
        np.testing.assert_array_equal(np.concatenate(clips), whole[: 8 * len(clips)])
        assert len(clips) == len(whole) // 8
    assert sorted(found) == list(range(9))


def test_examples_depend_on_index_and_seed_only(folder):
    source = Prepared(folder, **STORED | {"num_frames": 3})
    draws = [(index, seed) for seed in range(8) for index in range(len(source))]
    first = [source.frames(*draw) for draw in draws]
    with ThreadPoolExecutor(8) as pool:  # as tf.data calls it
        second = list(pool.map(lambda draw: source.frames(*draw), draws[::-1]))[::-1]
    for (frames, caption), (again, same_caption) in zip(first, second, strict=True):
        np.testing.assert_array_equal(frames, again)
        assert caption == same_caption
    video, caption = source.example(1, 5)
    assert video.dtype == np.float32
    np.testing.assert_array_equal(video, pixels.to_float(source.frames(1, 5)[0]))
    with pytest.raises(IndexError):
        source.frames(len(source))


def test_of_longer_clips_every_part_is_taken(folder):
    whole = Prepared(folder, **STORED).frames(0)[0]
    shorter = STORED | {"num_frames": 3}
    starts, captions = set(), set()
    for seed in range(80):
        frames, caption = Prepared(folder, **shorter).frames(0, seed)
        starts |= {n for n in range(6) if np.array_equal(whole[n : n + 3], frames)}
        captions.add(caption.split(": ")[1])
    assert starts == set(range(6)) and captions == set(CAPTIONS)
    center = Prepared(folder, **shorter, clip="center")
    np.testing.assert_array_equal(center.frames(0, 9)[0], whole[2:5])


def test_stored_text_is_what_the_encoder_says_of_the_caption(folder):
    source = Prepared(folder, **STORED)
    assert isinstance(source, StoresText) and isinstance(source, HoldsFrames)
    assert source.text_fingerprint == ENCODER.fingerprint
    for index in range(len(source)):
        for seed in range(5):
            (text, mask), caption = source.stored_text(index, seed), source.frames(index, seed)[1]
            expected, expected_mask = ENCODER([caption])
            assert text.dtype == np.float32 and mask.dtype == bool
            np.testing.assert_array_equal(text, expected[0])
            np.testing.assert_array_equal(mask, expected_mask[0])


@pytest.mark.parametrize("keep_padding", [False, True])
def test_stored_text_of_t5_is_what_it_says_later(videos, tmp_path, keep_padding):
    write_tiny_t5(tmp_path / "t5")
    encoder = T5TextEncoder(str(tmp_path / "t5"), 16, 12, "float32", keep_padding=keep_padding)
    prepare(videos, tmp_path / "out", encoder=encoder)
    source = Prepared(tmp_path / "out", **STORED)
    captions = [source.frames(index, seed=4)[1] for index in range(len(source))]
    expected, expected_mask = encoder(captions)
    for index, (text, mask) in enumerate(zip(expected, expected_mask, strict=True)):
        stored, stored_mask = source.stored_text(index, seed=4)
        np.testing.assert_array_equal(stored, text)
        np.testing.assert_array_equal(stored_mask, mask)


def test_batches_with_stored_text_are_those_of_the_encoder(videos, folder, tmp_path):
    prepare(videos, tmp_path / "plain", videos_per_shard=2, test_fraction=0.35)
    plain = Prepared(tmp_path / "plain", **STORED)
    assert plain.text_fingerprint is None and plain.stored_text(0) is None
    calls = []

    class Counting(HashedTextEncoder):
        def __call__(self, prompts):
            calls.extend(prompts)
            return super().__call__(prompts)

    encoder = Counting(dim=8, max_length=6)
    batches = [
        [batch for batch, _ in zip(train_batches(s, encoder, batch_size=4, seed=3), range(3))]  # noqa: B905
        for s in (plain, Prepared(folder, **STORED))
        if calls.clear() is None
    ]
    assert not calls  # the second time
    for with_encoder, stored in zip(*batches, strict=True):
        for key, value in with_encoder.items():
            assert value.dtype == stored[key].dtype
            np.testing.assert_array_equal(value, stored[key])
    with pytest.raises(UserError, match="stores text embeddings of hashed.*dim=8"):
        other = HashedTextEncoder(dim=16, max_length=6)
        train_batches(Prepared(folder, **STORED), other, batch_size=4, seed=3)


def test_fingerprint_names_what_the_clips_depend_on(videos, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    name = Prepared(folder, **STORED).fingerprint
    assert Prepared(tmp_path / "moved", **STORED).fingerprint == name
    prepare(videos, tmp_path / "other", max_clips_per_video=1, test_fraction=0.35)
    others = {
        Prepared(folder, **STORED, split="test").fingerprint,
        Prepared(folder, **STORED, clip="center").fingerprint,
        Prepared(folder, **STORED | {"num_frames": 7}).fingerprint,
        Prepared(tmp_path / "other", **STORED).fingerprint,
    }
    assert len(others | {name}) == 5


def test_a_config_names_it(folder):
    config = default_config("stunet").data
    config.update(STORED | {"name": "prepared", "folder": str(folder), "num_frames": 5})
    assert create_source(config, "test").frames(0)[0].shape == (5, 16, 16, 3)
    config.folder = ""
    with pytest.raises(UserError, match="say where: --config.data.folder"):
        create_source(config, "train")


def test_without_clips_to_test_with_both_splits_are_the_same(videos, tmp_path):
    prepare(videos, tmp_path / "out", test_fraction=0.0)
    train, test = (Prepared(tmp_path / "out", **STORED, split=s) for s in ("train", "test"))
    assert len(train) == len(test) and train.fingerprint == test.fingerprint


def test_mistakes_are_told(folder, tmp_path):
    for changes in ({"resolution": 32}, {"fps": 16}, {"num_frames": 9}, {"num_frames": 0}):
        with pytest.raises(UserError, match="holds clips of 8 frames of 16 x 16 pixels at 8 fps"):
            Prepared(folder, **STORED | changes)
    with pytest.raises(UserError, match="nowhere holds no prepared data"):
        Prepared(tmp_path / "nowhere", **STORED)
    with pytest.raises(UserError, match="clip is 'middle'"):
        Prepared(folder, **STORED, clip="middle")
    with pytest.raises(UserError, match="split is 'validation'"):
        Prepared(folder, **STORED, split="validation")
    shutil.copytree(folder, tmp_path / "copy")
    first, second = sorted((tmp_path / "copy").glob("prepared-train*"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:70_000])
    source = Prepared(tmp_path / "copy", **STORED)
    lengths = json.loads((folder / "index.json").read_text())["shard_lengths"]["train"]
    for index, path in ((0, first), (lengths[0], second)):
        with pytest.raises(UserError, match=f"{path.name} is missing or damaged"):
            source.frames(index)
    assert source.frames(sum(lengths[:2]))
    for damage in ("{", '{"format": 0}'):
        (tmp_path / "copy" / "index.json").write_text(damage)
        with pytest.raises(UserError, match="prepared data|another version"):
            Prepared(tmp_path / "copy", **STORED)
