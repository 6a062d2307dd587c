import ast
import json
from itertools import islice

import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.cascade.config import default_config
from lumiere_jax.data import pipeline, sources
from lumiere_jax.data.mixture import SLOTS, Mixture
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.order import batch_order
from lumiere_jax.runtime.errors import UserError


class Numbered:
    """Clips of one value, `first` + index."""

    def __init__(self, first, size):
        self.first, self.size, self.fingerprint = first, size, f"numbered-{first}-{size}"

    def __len__(self):
        return self.size

    def example(self, index, seed=0):
        assert 0 <= index < self.size
        return np.full((1, 1, 1, 3), self.first + index, np.float32), "a caption"


def no_text(captions):
    return np.zeros((len(captions), 1, 1), np.float32), np.ones((len(captions), 1), bool)


def values(mixture, steps, **options):
    read = islice(pipeline.train_batches(mixture, no_text, **options), steps)
    return np.concatenate([batch["video"][:, 0, 0, 0, 0] for batch in read]).astype(int)


@settings(deadline=None, max_examples=20)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    seed=st.integers(0, 2**40),
    size=st.integers(1, 400),
)
def test_shares_are_exact_in_every_cycle_and_epochs_of_each_source_complete(weights, seed, size):
    sizes = [size + 3 * number for number in range(len(weights))]
    mixture = Mixture([Numbered(0, size) for size in sizes], weights)
    assert sum(mixture.slots) == SLOTS
    np.testing.assert_allclose(mixture.slots, SLOTS * np.array(weights) / sum(weights), atol=1)
    order, _ = batch_order(
        0, sizes=mixture.sizes, slots=mixture.slots, batch_size=2 * SLOTS, seed=seed
    )
    which = np.searchsorted(np.cumsum(sizes), order.numpy(), side="right")
    for cycle in (which[:SLOTS], which[SLOTS:]):
        np.testing.assert_array_equal(np.bincount(cycle, minlength=len(sizes)), mixture.slots)
    for number, size in enumerate(sizes):
        seen = order.numpy()[which == number] - sum(sizes[:number])
        times = np.bincount(seen, minlength=size)
        assert times.min() == len(seen) // size and times.max() == -(-len(seen) // size)


def test_the_sources_alternate_at_random():
    order, _ = batch_order(0, sizes=(5, 5), slots=(500, 500), batch_size=2000, seed=0)
    which = order.numpy() >= 5
    changes = (which[1:] != which[:-1]).sum()
    assert 900 < changes < 1100
    assert (which[:1000] != which[1000:]).sum() > 400


def test_a_mixture_resumes_and_is_shared_like_any_source():
    mixture = Mixture([Numbered(0, 7), Numbered(100, 5), Numbered(200, 300)], [1, 2, 3])
    whole = values(mixture, 40, batch_size=6, seed=5)
    np.testing.assert_array_equal(
        whole[60:], values(mixture, 30, batch_size=6, seed=5, start_step=10)
    )
    parts = [
        values(mixture, 40, batch_size=6, seed=5, process_index=p, process_count=2).reshape(40, 3)
        for p in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1).ravel(), whole)
    shares = [(whole < 100).mean(), ((whole >= 100) & (whole < 200)).mean(), (whole >= 200).mean()]
    np.testing.assert_allclose(shares, [1 / 6, 2 / 6, 3 / 6], atol=0.1)


def test_the_fingerprint_changes_with_sources_and_weights():
    one, other = Numbered(0, 7), Numbered(1, 7)
    prints = [
        Mixture(*arguments).fingerprint
        for arguments in [([one, other], [1, 1]), ([other, one], [1, 1]), ([one, other], [1, 2])]
    ]
    assert len(set(prints)) == 3
    assert Mixture([one, other], [2, 2]).fingerprint == prints[0]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2"])
def test_weights_that_mean_nothing_are_refused(weight):
    with pytest.raises(UserError, match="a weight is"):
        Mixture([Numbered(0, 7), Numbered(1, 7)], [1, weight])


def test_a_weight_of_no_clip_is_refused():
    with pytest.raises(UserError, match="less than one clip of 1000"):
        Mixture([Numbered(0, 7), Numbered(1, 7)], [1e6, 1])


MIXTURE = (
    {"name": "moving_shapes", "weight": 3, "size": 70},
    {"name": "moving_shapes", "size": 30, "max_objects": 2},
)


def test_a_config_names_a_mixture_and_json_gives_it_back():
    config = default_config("t2i").data
    config.name, config.mixture, config.num_frames = "mixture", MIXTURE, 1
    source = sources.create_source(config, "test")
    assert isinstance(source, Mixture) and (source.sizes, source.slots) == ((70, 30), (750, 250))
    assert all(isinstance(s, MovingShapes) and s.num_frames == 1 for s in source.sources)
    saved = ml_collections.ConfigDict(json.loads(json.dumps(config.to_dict())))
    assert sources.create_source(saved, "test").fingerprint == source.fingerprint
    assert source.fingerprint != sources.create_source(saved, "train").fingerprint
    config.mixture = ast.literal_eval(str(MIXTURE))
    assert sources.create_source(config, "test").fingerprint == source.fingerprint


@pytest.mark.parametrize(
    "mixture, message",
    [
        ((), "needs at least one source"),
        (({"weight": 1},), r"mixture\[0\] is .*use a dict"),
        (("moving_shapes",), "use a dict"),
        (({"name": "moving_shapes", "sise": 1},), r"mixture\[0\] sets sise"),
        (({"name": "mixture"},), "another mixture"),
        (({"name": "nothing"},), "no data source 'nothing'"),
    ],
)
def test_a_config_that_is_wrong_is_told(mixture, message):
    config = default_config("t2i").data
    config.name, config.mixture = "mixture", mixture
    with pytest.raises(UserError, match=message):
        sources.create_source(config, "train")
