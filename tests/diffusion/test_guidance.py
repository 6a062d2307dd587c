import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.diffusion import guidance, parameterization

Z = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
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


@pytest.mark.parametrize("scale", [0.0, 1.5, 7.0, np.float32(2), jnp.array([1.0, 2.0, 3.0])])
def test_guidance_algebra_in_one_call(scale):
    network = Network()
    actual = guidance.guided(network, TEXT, NULL, scale)(Z, LOG_SNR)
    assert network.batches == [6]
    conditional, null = network(Z, LOG_SNR, TEXT), network(Z, LOG_SNR, NULL)
    weight = np.broadcast_to(np.asarray(scale), (3,))[:, None, None]
    expected = (1 - weight) * np.asarray(null) + weight * np.asarray(conditional)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_learned_variance_is_that_of_the_conditional_branch(scale):
    network = Network()
    actual = guidance.guided(network, TEXT, NULL, scale, learned_variance=True)(Z, LOG_SNR)
    conditional, null = network(Z, LOG_SNR, TEXT), network(Z, LOG_SNR, NULL)
    expected = null + scale * (conditional - null)
    np.testing.assert_allclose(actual[..., :2], expected[..., :2], atol=1e-5)
    np.testing.assert_array_equal(actual[..., 2:], conditional[..., 2:])
    assert np.abs(expected - conditional)[..., 2:].max() > 0.01 or scale == 1


@pytest.mark.parametrize("scale", [1, 1.0])
def test_scale_one_is_a_single_conditional_call(scale):
    network = Network()
    actual = guidance.guided(network, TEXT, NULL, scale)(Z, LOG_SNR)
    assert network.batches == [3]
    np.testing.assert_array_equal(actual, network(Z, LOG_SNR, TEXT))


def test_scale_may_be_traced():
    network = Network()

    @jax.jit
    def run(scale):
        return guidance.guided(network, TEXT, NULL, scale)(Z, LOG_SNR)

    at_one, at_five = run(1.0), run(5.0)
    assert network.batches == [6]  # Traced once for both.
    np.testing.assert_allclose(at_one, network(Z, LOG_SNR, TEXT), atol=1e-6)
    assert np.abs(at_five - at_one).max() > 0.1


@pytest.mark.parametrize("kind", ["epsilon", "x0"])
def test_guidance_commutes_with_conversion(kind):
    def converted(z, log_snr, condition):
        return parameterization.convert(network(z, log_snr, condition), z, log_snr, "v", kind)

    network = Network()
    guided_v = guidance.guided(network, TEXT, NULL, 4.0)(Z, LOG_SNR)
    np.testing.assert_allclose(
        guidance.guided(converted, TEXT, NULL, 4.0)(Z, LOG_SNR),
        parameterization.convert(guided_v, Z, LOG_SNR, "v", kind),
        atol=2e-4,
    )


percentile_of = jax.jit(guidance.magnitude_percentile, static_argnums=1)


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
    actual = guidance.dynamic_threshold(x0, 99.5, max_value)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_array_equal(actual[0], x0[0])


def test_dynamic_threshold_without_maximum():
    x0 = np.random.default_rng(0).normal(0, 3, (2, 500)).astype(np.float32)
    limit = np.quantile(np.abs(x0), 0.9, axis=1, keepdims=True)
    actual = guidance.dynamic_threshold(x0, 90.0)
    np.testing.assert_allclose(actual, np.clip(x0, -limit, limit) / limit, atol=1e-6)
    assert np.abs(actual).max() == 1.0


def test_static_threshold():
    np.testing.assert_array_equal(
        guidance.static_threshold(jnp.array([-2.0, -0.5, 0.0, 1.0, 9.0])), [-1, -0.5, 0, 1, 1]
    )
