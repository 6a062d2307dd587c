import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from lumiere_jax.metrics.inception_score import inception_score
from lumiere_jax.runtime.errors import UserError


def textbook_score(p: np.ndarray) -> float:
    return np.exp(np.mean([entropy(row, p.mean(axis=0)) for row in p]))


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_score_equals_scipys_relative_entropy(splits):
    logits = np.random.default_rng(0).normal(0, 3, (100, 17))
    scores = [textbook_score(p) for p in np.array_split(softmax(logits, axis=1), splits)]
    mean, deviation = inception_score(logits, splits)
    np.testing.assert_allclose(mean, np.mean(scores), rtol=1e-12)
    np.testing.assert_allclose(deviation, np.std(scores), rtol=1e-6, atol=1e-12)


def test_splitting_lowers_the_score():
    logits = np.random.default_rng(1).normal(0, 2, (1000, 101))
    assert inception_score(logits, 10)[0] < inception_score(logits, 1)[0]


@given(st.integers(1, 20), st.integers(1, 4))
def test_sure_and_even_predictions_score_the_number_of_classes(classes, copies):
    logits = np.tile(1e4 * np.eye(classes), (copies, 1))  # probabilities of 0 underflow
    assert inception_score(logits)[0] == pytest.approx(classes, rel=1e-9)
    assert inception_score(logits, epsilon=1e-20)[0] == pytest.approx(classes, rel=1e-9)


def test_equal_predictions_score_one():
    logits = np.tile(np.random.default_rng(2).normal(size=(1, 9)), (20, 1))
    assert inception_score(logits)[0] == pytest.approx(1, rel=1e-12)


def test_epsilon_is_added_inside_of_the_logarithm():
    p = softmax(np.random.default_rng(3).normal(0, 3, (50, 7)), axis=1)
    log_ratio = np.log(p + 1e-2) - np.log(p.mean(axis=0) + 1e-2)
    expected = np.exp((p * log_ratio).sum(axis=1).mean())
    assert inception_score(np.log(p), epsilon=1e-2)[0] == pytest.approx(expected, rel=1e-12)


def test_bad_input_is_told():
    with pytest.raises(UserError, match="splits=5.*number of videos, 4"):
        inception_score(np.zeros((4, 3)), 5)
    with pytest.raises(UserError, match="not finite"):
        inception_score(np.array([[0, np.nan]]))
