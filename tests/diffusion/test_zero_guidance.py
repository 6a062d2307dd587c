import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.guiders import ClassifierFreeZeroStarGuidance

from lumiere_jax.diffusion import samplers, zero_guidance
from tests.diffusion import gaussian

SHAPE = (3, 2, 5)
LOG_SNR = np.array([-3.0, 0.0, 2.0])
Z = np.random.default_rng(0).normal(size=SHAPE)
ALPHA, SIGMA = gaussian.levels(LOG_SNR, 3)


@pytest.fixture(autouse=True)
def fixture_float64():
    with jax.enable_x64(True):
        yield


def velocity(x0):
    """Noise less clean data."""
    return (Z - ALPHA * x0) / SIGMA - x0


def guided(conditional, null, scales):
    arrays = map(jnp.asarray, (conditional, null, Z, LOG_SNR, scales))
    return np.asarray(jax.jit(zero_guidance.guide)(*arrays))


def test_velocities_against_diffusers():
    conditional, null = np.random.default_rng(1).normal(size=(2, *SHAPE))
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=3.5, zero_init_steps=1)
    velocities = [torch.tensor(velocity(x0)) for x0 in (conditional, null)]
    guider.set_state(step=1, num_inference_steps=9, timestep=None)
    actual = guided(conditional, null, np.full(3, 3.5))
    np.testing.assert_allclose(
        velocity(actual), guider.forward(*velocities)[0], rtol=1e-5, atol=1e-5
    )

    guider.set_state(step=0, num_inference_steps=9, timestep=None)  # it rests
    still = zero_guidance.at_rest(jnp.asarray(Z), jnp.asarray(LOG_SNR))
    np.testing.assert_allclose(velocity(still), guider.forward(*velocities)[0], atol=1e-12)


def test_gaussians_that_differ_in_width_alone_are_not_guided():
    """Their velocities have one direction, so the null one is made equal to the other."""
    conditional, null = (gaussian.denoised(Z, LOG_SNR, 0.0, width) for width in (0.3, 0.8))
    actual = guided(conditional, null, np.array([0.0, 2.0, 9.0]))
    np.testing.assert_allclose(actual, conditional, rtol=1e-9)
    assert np.abs(null - conditional).min(axis=(1, 2)).max() > 1e-3


def test_gaussians_that_differ_in_their_means():
    """What scale 2 adds is the rest of a least-squares fit, here by NumPy's routine."""
    means = np.random.default_rng(2).normal(0, 0.5, (2, *SHAPE))
    conditional, null = (gaussian.denoised(Z, LOG_SNR, mean, 0.4) for mean in means)
    actual, wanted = guided(conditional, null, np.full(3, 2.0)), velocity(conditional)
    away = velocity(null)
    for u, sample, other in zip(velocity(actual), wanted, away, strict=True):
        (factor,), *_ = np.linalg.lstsq(other.reshape(-1, 1), sample.ravel(), rcond=None)
        np.testing.assert_allclose(u, 2 * sample - factor * other, rtol=1e-9)
    once = guided(conditional, null, np.ones(3))  # no guidance
    np.testing.assert_allclose(once, conditional, rtol=1e-9)


def test_at_rest_a_step_changes_only_the_scale():
    """It is a step of Euler's method for samples over alpha + sigma, by a velocity of 0."""
    later = LOG_SNR + 1.0
    still = zero_guidance.at_rest(jnp.asarray(Z), jnp.asarray(LOG_SNR))
    moved = samplers.ddim_step(jnp.asarray(Z), still, jnp.asarray(LOG_SNR), jnp.asarray(later))
    np.testing.assert_allclose(
        moved / sum(gaussian.levels(later, 3)), Z / (ALPHA + SIGMA), rtol=1e-10
    )


def test_velocities_that_vanish_stay():
    still = Z / (ALPHA + SIGMA)
    np.testing.assert_allclose(guided(still, still, np.full(3, 5.0)), still, rtol=1e-12)
