import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.diffusion import guidance, parameterization

Z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4)), jnp.float32)
LOG_SNR = jnp.array([-3.0, 0.0, 2.0])
TEXT = {"text": jnp.arange(1.0, 4.0), "mask": jnp.array([[True, True]] * 3)}
NULL = {"text": jnp.zeros(3), "mask": jnp.array([[True, False]] * 3)}


class Network:
    """A prediction in which every input of every sample leaves its trace; counts its calls."""

    def __init__(self):
        self.batches = []

    def __call__(self, z, log_snr, condition):
        self.batches.append(z.shape[0])
        gain = condition["text"] + 0.1 * log_snr + condition["mask"].sum(axis=1)
        return jnp.tanh(z * gain[:, None, None])


def guided(network, scale, **options):
    """The guided prediction, both branches in one call of the network."""
    pair = guidance.pair
    prediction = network(pair(Z, Z), pair(LOG_SNR, LOG_SNR), pair(TEXT, NULL))
    return guidance.guide(prediction, scale, **options)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 7.0, np.float32(2), jnp.array([1.0, 2.0, 3.0])])
def test_guidance_algebra_in_one_call(scale):
    network = Network()
    actual = jax.jit(lambda scale: guided(network, scale))(scale)  # it may be traced
    assert network.batches == [6]
    conditional, null = network(Z, LOG_SNR, TEXT), network(Z, LOG_SNR, NULL)
    weight = np.broadcast_to(np.asarray(scale), (3,))[:, None, None]
    expected = (1 - weight) * np.asarray(null) + weight * np.asarray(conditional)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_learned_variance_is_that_of_the_conditional_branch():
    network = Network()
    actual = guided(network, 3.0, learned_variance=True)
    conditional, null = network(Z, LOG_SNR, TEXT), network(Z, LOG_SNR, NULL)
    expected = null + 3.0 * (conditional - null)
    np.testing.assert_allclose(actual[..., :2], expected[..., :2], atol=1e-5)
    # Another program may round the network otherwise; the null branch is far away.
    np.testing.assert_allclose(actual[..., 2:], conditional[..., 2:], atol=1e-6)
    assert np.abs(expected - conditional)[..., 2:].max() > 0.01


@pytest.mark.parametrize("kind", ["epsilon", "x0"])
def test_guidance_commutes_with_conversion(kind):
    def converted(z, log_snr, condition):
        return parameterization.convert(network(z, log_snr, condition), z, log_snr, "v", kind)

    network = Network()
    np.testing.assert_allclose(
        guided(converted, 4.0),
        parameterization.convert(guided(network, 4.0), Z, LOG_SNR, "v", kind),
        atol=2e-4,
    )


def percentile_of(values, percentile):
    """By one program for all percentiles."""
    return _percentile_of(values, guidance.Rank.of(percentile, values[0].size))


_percentile_of = jax.jit(guidance.magnitude_percentile)


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
        actual = guidance.magnitude_percentile(jnp.asarray(values), 97.3)
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
    actual = guidance.dynamic_threshold(jnp.asarray(x0), 99.5, max_value)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_array_equal(actual[0], x0[0])


def test_dynamic_threshold_without_maximum():
    x0 = np.random.default_rng(0).normal(0, 3, (2, 500)).astype(np.float32)
    limit = np.quantile(np.abs(x0), 0.9, axis=1, keepdims=True)
    actual = guidance.dynamic_threshold(jnp.asarray(x0), 90.0)
    np.testing.assert_allclose(actual, np.clip(x0, -limit, limit) / limit, atol=1e-6)
    assert np.abs(actual).max() == 1.0
