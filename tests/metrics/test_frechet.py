import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from lumiere_jax.metrics.frechet import Moments, frechet_distance, kernel_distance, symmetric_root
from lumiere_jax.runtime.errors import UserError


def features(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dim, dim))
    return (rng.normal(size=(n, dim)) @ mixing + shift).astype(np.float32)


def textbook_distance(first: np.ndarray, second: np.ndarray, ddof: int) -> float:
    """By SciPy's root of the product, from NumPy's covariances."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    c1, c2 = (np.cov(x, rowvar=False, ddof=ddof) for x in (first, second))
    difference = first.mean(axis=0) - second.mean(axis=0)
    root = linalg.sqrtm(c1 @ c2).real
    return difference @ difference + np.trace(c1 + c2 - 2 * root)


@pytest.mark.parametrize("ddof", [0, 1])
def test_distance_equals_the_textbook_formula(ddof):
    first, second = features(90, 12, 0), features(70, 12, 1, shift=0.5)
    got = frechet_distance(Moments.of(first), Moments.of(second), ddof)
    np.testing.assert_allclose(got, textbook_distance(first, second, ddof), rtol=1e-6)


def test_distance_of_one_dimension_by_hand():
    first, second = np.array([[0.0], [2.0]]), np.array([[5.0], [13.0]])
    # Means 1 and 9, standard deviations √2 and √32: 8² + (√32 - √2)².
    got = frechet_distance(Moments.of(first), Moments.of(second))
    assert got == pytest.approx(64 + 18, rel=1e-12)


def test_distance_with_fewer_videos_than_features_is_finite_and_symmetric():
    first, second = features(5, 40, 2), features(7, 40, 3)
    one, two = Moments.of(first), Moments.of(second)
    assert np.isfinite(frechet_distance(one, two))
    assert frechet_distance(one, two) == pytest.approx(frechet_distance(two, one), rel=1e-6)
    assert abs(frechet_distance(one, one)) < 1e-5


def test_moments_equal_numpys():
    x = features(200, 9, 4)
    moments = Moments.of(x)
    assert moments.count == 200
    np.testing.assert_allclose(moments.mean, x.astype(np.float64).mean(axis=0), atol=5e-7)
    np.testing.assert_allclose(
        moments.covariance(), np.cov(x.astype(np.float64), rowvar=False), atol=2e-5
    )


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.integers(0, 100),
)
def test_moments_do_not_depend_on_order_or_batches_to_the_last_bit(sizes, random, seed):
    x = features(sum(sizes), 6, seed) * 40
    parts = np.split(x[random.sample(range(len(x)), len(x))], np.cumsum(sizes)[:-1])
    merged = Moments.none(6)
    for part in random.sample(parts, len(parts)):
        merged += Moments.of(part)
    whole = Moments.of(x)
    assert merged.mean.tobytes() == whole.mean.tobytes()
    if len(x) > 1:
        assert merged.covariance().tobytes() == whole.covariance().tobytes()


def test_moments_keep_small_variance_beside_a_large_mean():
    x = 1000 + 2.0**-10 * np.arange(64)[:, None]
    # Exact: multiples of 2^-20, while a difference of float64 squares loses 7 of 16 digits.
    assert Moments.of(x).covariance()[0, 0] == np.var(np.arange(64), ddof=1) * 2.0**-20


def test_moments_are_saved_and_read_back(tmp_path):
    moments = Moments.of(features(30, 5, 6))
    moments.save(tmp_path / "reference.npz", network="i3d", resize="tf1")
    back, notes = Moments.load(tmp_path / "reference.npz")
    assert notes == {"network": "i3d", "resize": "tf1"}
    assert back.covariance().tobytes() == moments.covariance().tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["reference.npz"]


def test_unusable_statistics_are_told(tmp_path):
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.save(tmp_path / "one_array.npy", np.zeros(3))
    for name in ("text.npz", "other.npz", "one_array.npy", "absent.npz"):
        with pytest.raises(UserError, match=name):
            Moments.load(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1024.0])
def test_features_out_of_range_are_told(value):
    with pytest.raises(UserError, match="finite"):
        Moments.of(np.array([[0.0, value]]))


def test_one_video_has_no_covariance():
    with pytest.raises(UserError, match="2 videos"):
        Moments.of(np.zeros((1, 3))).covariance()


def test_root_squares_to_the_matrix():
    matrix = np.cov(features(50, 8, 7), rowvar=False)
    root = symmetric_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, rtol=1e-9, atol=1e-9)


def test_kernel_distance_equals_a_sum_over_pairs():
    first, second = features(7, 4, 8), features(9, 4, 9, shift=1.0)

    def k(x, y):
        return (float(np.dot(x.astype(np.float64), y.astype(np.float64))) / 4 + 1) ** 3

    def within(x):
        pairs = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
        return np.mean(pairs)

    expected = (
        within(first) + within(second) - 2 * np.mean([k(a, b) for a in first for b in second])
    )
    value, error = kernel_distance(first, second)
    assert value == pytest.approx(expected, rel=1e-9)
    variance = 0.0
    for left_out in (
        [kernel_distance(np.delete(first, i, 0), second).value for i in range(7)],
        [kernel_distance(first, np.delete(second, i, 0)).value for i in range(9)],
    ):
        variance += (len(left_out) - 1) * np.var(left_out)
    assert error == pytest.approx(variance**0.5, rel=1e-9)
    assert kernel_distance(first, first).value < 0 and kernel_distance(first[:2], second)[1] is None
    with pytest.raises(UserError, match="2 videos"):
        kernel_distance(first[:1], second)


def test_error_of_the_kernel_distance_is_the_spread_of_fresh_sets():
    rng = np.random.default_rng(4)
    for shift in (0.3, 1.0):
        draws = [
            kernel_distance(rng.normal(size=(80, 4)), rng.normal(size=(60, 4)) + shift)
            for _ in range(60)
        ]
        values, errors = np.array(draws).T
        assert 0.7 < np.mean(errors) / np.std(values, ddof=1) < 1.6
