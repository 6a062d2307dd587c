"""The design and the statistics of the user study."""

import collections
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from lumiere_jax.metrics.user_study import (
    Judgement,
    Pair,
    Study,
    arrange,
    draw,
    left_video,
    merge,
    right_video,
    summarize,
    wilson_interval,
)
from tests.study_page.videos import abstract_study


@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_interval_is_that_of_scipy(successes, failures, confidence):
    total = successes + failures
    if total == 0:
        return
    reference = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, total, confidence)
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-12)
    assert 0 <= found[0] <= successes / total <= found[1] <= 1


def test_wilson_interval_without_trials_knows_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("counts", [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError):
        wilson_interval(*counts)


def test_draw_is_fnv_1a_with_the_finish_of_murmur():
    # FNV-1a of "foobar" is published as 0xbf9cf968; the finish is undone here step by step.
    def undo_shift(value: int, bits: int) -> int:
        result = value
        for _ in range(32 // bits + 1):
            result = value ^ result >> bits
        return result

    value = undo_shift(draw("foobar"), 16)
    value = undo_shift(value * pow(0xC2B2AE35, -1, 2**32) % 2**32, 13)
    assert undo_shift(value * pow(0x85EBCA6B, -1, 2**32) % 2**32, 16) == 0xBF9CF968


def test_a_study_survives_json_with_its_key():
    study = abstract_study(pairs_per_rater=2)
    again = Study.from_dict(json.loads(json.dumps(study.to_dict())))
    assert again == study and again.key == study.key
    assert abstract_study(pairs_per_rater=3).key == study.key  # its answers can be merged
    assert abstract_study(seed=4).key != study.key


def test_sides_are_even_over_raters_pairs_and_seeds():
    study = abstract_study(num_pairs=40)
    ours = [
        left_video(study, f"rater{i}", pair) == pair.ours
        for i in range(100)
        for pair in study.pairs
    ]
    # 4200 fair coins: five standard deviations are 3.9%.
    assert abs(np.mean(ours) - 0.5) < 0.039
    by_rater = np.mean(np.reshape(ours, (100, -1)), axis=1)
    assert by_rater.std() == pytest.approx(0.5 / np.sqrt(42), rel=0.35)  # independent by rater
    other = abstract_study(num_pairs=40, seed=4)
    moved = [left_video(study, "r", p) != left_video(other, "r", p) for p in study.pairs]
    assert 5 < sum(moved) < 37


@given(st.text(min_size=1))
def test_both_videos_of_a_pair_are_shown(rater):
    study = abstract_study()
    for pair in study.pairs:
        sides = {left_video(study, rater, pair), right_video(study, rater, pair)}
        assert sides == {pair.ours, pair.other}


@given(st.integers(1, 12), st.integers(0, 5), st.integers(1, 15) | st.none(), st.text())
def test_every_rater_gets_all_checks_among_the_pairs(num_pairs, num_checks, limit, rater):
    study = abstract_study(num_pairs, num_checks, pairs_per_rater=limit)
    pairs = arrange(study, rater)
    assert pairs == arrange(study, rater)
    assert len(pairs) == len(set(pairs)) == study.num_pairs_per_rater
    assert sum(not pair.is_check for pair in pairs) == min(limit or num_pairs, num_pairs)
    assert sum(pair.is_check for pair in pairs) == num_checks
    assert not pairs[0].is_check
    if num_checks <= len(pairs) - num_checks:  # then there are pairs between any two checks ...
        stretches = [
            len(list(g)) for is_check, g in itertools.groupby(p.is_check for p in pairs) if is_check
        ]
        assert all(length == 1 for length in stretches)


def test_orders_differ_between_raters():
    study = abstract_study(num_pairs=6)
    orders = {tuple(pair.key for pair in arrange(study, f"r{i}")) for i in range(20)}
    assert len(orders) > 15


def test_pairs_with_the_fewest_judgements_come_first():
    study = abstract_study(num_pairs=7, num_checks=1, pairs_per_rater=3)
    counts = collections.Counter()
    for i in range(21):
        counts.update(pair.key for pair in arrange(study, f"r{i}", counts) if not pair.is_check)
        assert max(counts[f"p{n}"] for n in range(7)) - min(counts[f"p{n}"] for n in range(7)) <= 1
    assert set(counts.values()) == {9}


def judge(rater, pair: Pair, chosen, question="quality", at=0) -> Judgement:
    return Judgement(rater, pair.key, question, chosen, pair.ours, at)


def test_the_latest_of_several_answers_counts_in_any_order():
    pair = abstract_study().pairs[0]
    answers = [judge("r", pair, pair.videos[i % 2], at=i) for i in range(4)]
    for order in itertools.permutations(answers):
        assert merge(order) == [answers[3]]


def test_results_with_and_without_inattentive_raters():
    study = abstract_study(num_pairs=2, num_checks=2)
    pairs = {pair.key: pair for pair in study.pairs}
    judgements = []
    for rater, side in (("good", "ours"), ("slip", "ours"), ("bad", "other")):
        for key in ("p0", "p1"):
            judgements.append(judge(rater, pairs[key], getattr(pairs[key], side)))
    judgements += [judge("good", pairs["c0"], pairs["c0"].ours)]
    judgements += [judge("slip", pairs["c0"], pairs["c0"].other)]
    judgements += [judge("slip", pairs["c1"], pairs["c1"].ours)]
    judgements += [judge("bad", pairs[key], pairs[key].other) for key in ("c0", "c1")]
    # Beside something that stands still, a still picture does not move worse.
    judgements += [judge("good", pairs[key], pairs[key].other, "motion") for key in ("c0", "c1")]
    judgements += [judge("new", pairs["p0"], pairs["p0"].other)]
    summary = summarize(study, judgements)
    assert summary["raters"] == {
        "answered": 4,
        "kept": 3,
        "without_check": 1,
        "excluded": {"bad": 2},
    }
    quality = summary["results"][0]
    assert (quality["baseline"], quality["question"]) == ("base", "quality")
    assert (quality["kept"]["ours"], quality["kept"]["baseline"]) == (4, 1)
    assert quality["kept"]["percent_ours"] == 80 and quality["kept"]["raters"] == 3
    reference = binomtest(4, 5).proportion_ci(method="wilson")
    np.testing.assert_allclose(quality["kept"]["interval"], np.multiply(100, reference))
    assert (quality["all"]["ours"], quality["all"]["baseline"]) == (4, 3)
    assert summary["results"][1]["kept"]["percent_ours"] is None
    strict = summarize(study, judgements, max_wrong_checks=0)
    assert strict["raters"]["excluded"] == {"bad": 2, "slip": 1}


def test_baselines_are_told_apart():
    pairs = (Pair("k1", "n", "first", "t", "o", "a"), Pair("k2", "n", "second", "t", "o", "b"))
    study = abstract_study(pairs=pairs, methods=("ours", "first", "second"))
    summary = summarize(study, [judge("r", pairs[0], "o"), judge("r", pairs[1], "b")])
    counts = {
        row["baseline"]: (row["kept"]["ours"], row["kept"]["baseline"])
        for row in summary["results"]
        if row["question"] == "quality"
    }
    assert counts == {"first": (1, 0), "second": (0, 1)}
