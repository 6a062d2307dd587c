import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.diffusion import thresholding


def percentile_of(values, percentile):
    """By one program for all percentiles."""
    return _percentile_of(values, thresholding.Rank.of(percentile, values[0].size))


_percentile_of = jax.jit(thresholding.magnitude_percentile)


@settings(max_examples=20)
@given(
    st.sampled_from([1, 2, 7, 200]),
    st.sampled_from([0.0, 50.0, 99.5, 100.0]),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_percentile_against_numpy(size, percentile, seed, ties):
    values = np.random.default_rng(seed).normal(0, 2, (2, size)).astype(np.float32)
    values = values.round() if ties else values
    np.testing.assert_allclose(
        percentile_of(values, percentile),
        np.quantile(np.abs(values).astype(np.float64), percentile / 100, axis=1),
        rtol=1e-5,
        atol=1e-7,
    )


def test_percentile_of_a_large_clip_against_torch():
    values = np.random.default_rng(0).standard_t(3, size=(2, 5, 64, 64, 3)).astype(np.float32)
    expected = torch.quantile(torch.tensor(values).abs().flatten(1), 0.995, dim=1)
    np.testing.assert_allclose(percentile_of(values, 99.5), expected, rtol=1e-5)


def test_percentile_in_float64():
    with jax.enable_x64(True):
        values = np.random.default_rng(0).normal(size=(3, 501)) * np.array([[1e-300], [1], [1e9]])
        actual = thresholding.magnitude_percentile(jnp.asarray(values), 97.3)
    np.testing.assert_allclose(actual, np.quantile(np.abs(values), 0.973, axis=1), rtol=1e-12)


@pytest.mark.parametrize("max_value", [1.0, 1.5, 100.0])
def test_dynamic_threshold_against_diffusers(max_value):
    # The first sample is in range, the second far outside.
    x0 = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    x0 *= np.array([0.2, 3.0], np.float32)[:, None, None, None]
    reference = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.995, sample_max_value=max_value
    )
    expected = reference._threshold_sample(torch.tensor(x0))
    actual = thresholding.dynamic_threshold(jnp.asarray(x0), 99.5, max_value)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_array_equal(actual[0], x0[0])


def test_dynamic_threshold_without_maximum():
    x0 = np.random.default_rng(0).normal(0, 3, (2, 500)).astype(np.float32)
    limit = np.quantile(np.abs(x0), 0.9, axis=1, keepdims=True)
    actual = thresholding.dynamic_threshold(jnp.asarray(x0), 90.0)
    np.testing.assert_allclose(actual, np.clip(x0, -limit, limit) / limit, atol=1e-6)
    assert np.abs(actual).max() == 1.0
