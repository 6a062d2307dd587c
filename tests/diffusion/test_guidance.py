import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.guiders import AutoGuidance, ClassifierFreeGuidance

from lumiere_jax.diffusion import guidance, parameterization
from tests.diffusion import gaussian

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


@pytest.mark.parametrize("guider", [ClassifierFreeGuidance, AutoGuidance])
def test_against_diffusers(guider):
    """There AutoGuidance differs from the other in whose the second prediction is."""
    own = {"auto_guidance_layers": [1], "dropout": 1.0} if guider is AutoGuidance else {}
    conditional, null = np.random.default_rng(1).normal(size=(2, 3, 2, 4)).astype(np.float32)
    expected = guider(guidance_scale=3.5, **own).forward(*map(torch.tensor, (conditional, null)))[0]
    both = guidance.pair(jnp.asarray(conditional), jnp.asarray(null))
    np.testing.assert_allclose(guidance.guide(both, 3.5), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_guided_gaussians_are_a_gaussian(scale):
    """Scores of p(z | text)^scale p(z)^(1 - scale), whose factors have precisions that add up."""
    z, text, none = np.asarray(Z, np.float64), (0.6, 0.3), (-0.2, 0.7)
    alpha, sigma = gaussian.levels(LOG_SNR, 3)
    estimates = [gaussian.denoised(z, LOG_SNR, *data) for data in (text, none)]
    with jax.enable_x64(True):
        guided = guidance.guide(guidance.pair(*map(jnp.asarray, estimates)), scale)
    weights = [
        weight / (alpha**2 * deviation**2 + sigma**2)
        for weight, (_, deviation) in zip((scale, 1 - scale), (text, none), strict=True)
    ]
    precision = weights[0] + weights[1]
    mean = alpha * (weights[0] * text[0] + weights[1] * none[0]) / precision
    expected = (z + sigma**2 * precision * (mean - z)) / alpha
    np.testing.assert_allclose(guided, expected, rtol=1e-12, atol=1e-12)
