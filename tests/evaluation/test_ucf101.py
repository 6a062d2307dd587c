import collections
from pathlib import Path

import pytest
from tensorflow_datasets.video import ucf101 as builder_module

from lumiere_jax.evaluation import ucf101
from lumiere_jax.runtime.errors import UserError


def test_classes_are_those_of_tfds():
    listed = Path(builder_module.__file__).parent / "ucf101_labels.txt"
    assert [action.name for action in ucf101.classes()] == listed.read_text().split()


@pytest.mark.parametrize(
    ("column", "total"),
    [
        ("clips_total", 13_320),
        ("clips_train_split1", 9_537),
        ("clips_test_split1", 3_783),
        ("videos_of_10000_by_train_split1", 10_000),
        ("videos_of_2048_by_total", 2_048),
    ],
)
def test_counts_add_up(column, total):
    assert sum(action.counts[column] for action in ucf101.classes()) == total


def test_requests_are_unique_and_follow_the_preset():
    for preset, total in (("lumiere", 10_000), ("svd", 13_320)):
        made = ucf101.requests(preset)
        assert len(made) == total
        assert len({request.name for request in made}) == total
        assert len({request.seed for request in made}) == total
        counts = collections.Counter(request.name.split("/")[0] for request in made)
        wanted = ucf101.PRESETS[preset].counts
        assert counts == {a.name: a.counts[wanted] for a in ucf101.classes() if a.counts[wanted]}
    assert ucf101.requests("lumiere")[0].prompt == "applying eye makeup"
    assert ucf101.requests("svd")[0].prompt == "apply eye makeup"


def test_seeds_of_two_sets_do_not_meet():
    first, second = (ucf101.requests("lumiere", seed, most=3) for seed in (0, 39))
    assert not {r.seed for r in first} & {r.seed for r in second}
    assert max(r.seed for r in second) < 2**32
    assert not {r.name for r in first} & {r.name for r in second}
    for seed in (-1, 40):
        with pytest.raises(UserError, match="between 0 and 39"):
            ucf101.requests("lumiere", seed)
    with pytest.raises(UserError, match="'emu' is unknown; choose from lumiere"):
        ucf101.requests("emu")
