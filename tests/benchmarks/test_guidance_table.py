"""The measures and the table of benchmarks/guidance.py, on clips of which all is known."""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # it imports its neighbour

from benchmarks import guidance


def test_measures_of_stripes():
    stripes = np.zeros((2, 4, 6, 8, 3))
    stripes[..., ::2, :] = 1.0  # every second column
    assert guidance.saturation(stripes) == 0.5
    assert guidance.saturation(stripes * 0.97) == 0.0
    assert guidance.sharpness(stripes) == 0.5  # 1 along rows, 0 along columns
    assert guidance.diversity([stripes]) == 0.0
    # One caption's pairs are at 1, 1 and 2; the other's two are equal.
    sets = [np.array([-1.0, 0.0, 1.0]), np.array([0.3, 0.3])]
    sets = [values[:, None, None, None, None] + stripes[:1] for values in sets]
    np.testing.assert_allclose(guidance.diversity(sets), (1 + 1 + 2 + 0) / 4)


def test_table_and_rows_that_are_kept(tmp_path):
    row = dict.fromkeys(guidance.ORACLE, 0.5) | {"saturation": 0.125, "sharpness": 0.25}
    rows = {"true clips": row, "none": row | {"diversity": 0.75, "predictions": 30}}
    *_, first, second = guidance.table(rows).splitlines()
    assert first == "| true clips | - |" + " 50.0% |" * 5 + " 12.5% | 0.2500 | - |"
    assert second.startswith("| none | 30 |") and second.endswith("| 0.2500 | 0.750 |")
    made = []
    for seeds in (4, 4, 5):
        kept = guidance.kept(tmp_path / "x.json", {"seeds": seeds}, lambda: made.append(1) or row)
        assert kept == row
    assert len(made) == 2


def test_every_sample_has_a_seed_of_its_own_and_sets_are_of_one_caption(monkeypatch):
    asked = []

    def pipeline(captions, *, seeds, **options):
        asked.extend(zip(captions, seeds, strict=True))
        return np.array(seeds, float)[:, None, None, None, None] + np.zeros((1, 2, 2, 2, 3))

    monkeypatch.setattr(guidance, "measured", lambda *found: found)
    clips, captions, sets = guidance.sampled(pipeline, ["a", "b", "c"], 2, 3)
    assert len(set(seed for _, seed in asked)) == 7 and captions == ["a", "b", "c"]
    assert clips[:, 0, 0, 0, 0].tolist() == [0, 1, 2]
    by_seed = {seed: caption for caption, seed in asked}
    for caption, one in zip("ab", sets, strict=True):
        assert [by_seed[seed] for seed in one[:, 0, 0, 0, 0]] == [caption] * 3
