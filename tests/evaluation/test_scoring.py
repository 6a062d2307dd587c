import numpy as np
import pytest

from lumiere_jax.evaluation import scoring
from lumiere_jax.metrics.frechet import Moments, frechet_distance, kernel_distance
from lumiere_jax.metrics.inception_score import inception_score


def normal(n: int, seed: int, dim: int = 5, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, dim)) + shift).astype(np.float32)


def test_scores_of_sets():
    real, sets = normal(60, 0), [normal(60, 1, shift=0.5), normal(60, 2, shift=1.0)]
    fvd = scoring.fvd(Moments.of(real), real, sets, 1, bootstrap=8)
    for value, features in zip(fvd.values, sets, strict=True):
        assert value == frechet_distance(Moments.of(real), Moments.of(features))
    assert fvd.mean == pytest.approx(sum(fvd.values) / 2)
    assert fvd.deviation == pytest.approx(abs(fvd.values[0] - fvd.values[1]) / 2**0.5)
    assert len(fvd.errors) == 2 and min(fvd.errors) > 0
    kvd = scoring.kvd(real, sets)
    distances = [kernel_distance(real, features) for features in sets]
    assert list(zip(kvd.values, kvd.errors, strict=True)) == distances
    assert scoring.kvd(real, sets[:1]).deviation is None
    assert scoring.kvd(real, [sets[0], sets[1][:2]]).errors == ()  # two videos have none


def test_bootstrap_error_is_the_spread_of_fresh_sets():
    """Against the truth: the deviation of FVD over sets drawn anew."""
    rng = np.random.default_rng(3)

    def draw(shift):
        return rng.normal(size=(200, 4)) + shift

    fresh = [frechet_distance(Moments.of(draw(0)), Moments.of(draw(1)), 1) for _ in range(60)]
    real, generated = draw(0), draw(1)
    error = scoring.bootstrap_error(Moments.of(real), real, generated, 1, 60)
    assert 0.6 < error / np.std(fresh, ddof=1) < 1.7
    part = scoring.bootstrap_error(Moments.of(real), None, generated, 1, 60)
    assert 0 < part < error


def test_inception_scores_shuffle_before_they_split():
    logits = np.repeat(np.eye(4) * 6, 10, axis=0)  # sorted by class: each part has one class only
    (split,) = scoring.inception_scores("IS", [logits], 4, 0.0).values
    assert inception_score(logits, 4)[0] == pytest.approx(1, abs=1e-6)
    assert 2 < split < scoring.inception_scores("IS", [logits], 1, 0.0).mean


def told(*arguments) -> str:
    return "\n".join(scoring.warnings(*arguments))


def test_warnings():
    rates = {"real": (25.0, 25.0), "generated": (16.0, 16.0)}
    same = {"real": (25.0, 25.0), "generated": (25.0, 25.1)}
    assert told(2048, [2048, 2048], same, False) == ""
    assert told(2048, [2048], rates, True) == ""
    assert "real 25 to 25, generated 16 to 16" in told(2048, [2048], rates, False)
    assert "400 generated videos are not more than" in told(2048, [400], same, False)
    assert "2048 real and 401 generated" in told(2048, [401], same, False)
    assert "sets differ in size: 2048, 2047" in told(None, [2048, 2047], same, False)
