import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.evaluation import clips
from lumiere_jax.evaluation import features as feature_blocks
from lumiere_jax.evaluation.clips import ClipRule, choose
from lumiere_jax.evaluation.features import extract
from lumiere_jax.evaluation.networks import FeatureNetwork
from lumiere_jax.runtime.errors import UserError

RULE = ClipRule(num_frames=4)


class Counting(FeatureNetwork):
    """Mean of each channel and of its square; counts the clips that it saw."""

    def __init__(self):
        super().__init__(
            "Means",
            "0",
            {},
            lambda clip: clip.astype(jnp.float32).mean(axis=(0, 1, 2)) / 255,
            lambda params, x: jnp.concatenate([x, x * x * params["scale"]], axis=-1),
            {"scale": np.float32(1)},
        )
        self.seen = 0

    def __call__(self, clips):
        self.seen += len(clips)
        return super().__call__(clips)


@pytest.fixture(name="videos")
def fixture_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_blocks, "BLOCK", 4)
    rng = np.random.default_rng(0)
    for i in range(10):
        shape = (6, 8 + 2 * (i % 2), 8, 3)
        write_lossless(tmp_path / f"{i}.mkv", rng.uniform(-1, 1, shape), 8)
    return choose("real", tmp_path).examined(RULE)


def test_features_are_those_of_the_clips_in_order(videos, tmp_path):
    network = Counting()
    got = extract(videos, RULE, network, tmp_path / "cache")
    clips = [RULE.read(videos.folder / name, name).astype(float) / 255 for name in videos.names]
    means = np.stack([clip.mean(axis=(0, 1, 2)) for clip in clips])
    np.testing.assert_allclose(got.logits, np.concatenate([means, means**2], axis=1), rtol=1e-5)
    assert got.sizes == ("10×8", "8×8") and got.darkest == 0 and got.brightest == 255
    assert not got.is_dark and network.seen == 10


def test_what_is_done_is_not_done_again(videos, tmp_path):
    first, polls = Counting(), []

    def interrupt():
        polls.append(None)
        if len(polls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(videos, RULE, first, tmp_path / "cache", interrupt)
    assert first.seen == 8
    second = Counting()
    whole = extract(videos, RULE, second, tmp_path / "cache")
    assert second.seen == 2
    alone = extract(videos, RULE, Counting(), tmp_path / "other")
    assert whole.logits.tobytes() == alone.logits.tobytes()
    (block,) = (tmp_path / "cache").glob("*/000001.npz")
    block.write_bytes(block.read_bytes()[:50])  # a damaged one is made again
    third = Counting()
    mended = extract(videos, RULE, third, tmp_path / "cache")
    assert third.seen == 4 and mended.logits.tobytes() == alone.logits.tobytes()


def test_other_rules_and_networks_have_other_features(videos, tmp_path):
    network = Counting()
    for rule in (RULE, dataclasses.replace(RULE, position="first")):
        extract(videos, rule, network, tmp_path / "cache")
    network.options = {"resize": "torch"}
    extract(videos, RULE, network, tmp_path / "cache")
    assert network.seen == 30 and len(list((tmp_path / "cache").iterdir())) == 3


def test_video_that_is_lost_on_the_way(videos, tmp_path):
    (videos.folder / videos.names[5]).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"5.mkv.*it was fine at the start"):
        extract(videos, RULE, Counting(), tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/*.npz"))) == 1


@pytest.mark.parametrize("error", [ValueError("frames of two sizes"), IndexError(), MemoryError()])
def test_whatever_a_file_does_is_one_message(videos, tmp_path, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(clips, "read_video", fail)
    kind = type(error).__name__
    with pytest.raises(UserError, match=f"cannot read video .*0.mkv: {kind}: .*repair it"):
        extract(videos, RULE, Counting(), tmp_path / "cache")
    monkeypatch.setattr(clips, "probe_video", fail)
    with pytest.raises(UserError, match=f"10 of 10 .* cannot be used .0.mkv: {kind}: "):
        choose("real", tmp_path).examined(RULE)
