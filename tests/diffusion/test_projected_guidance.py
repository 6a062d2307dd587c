import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedGuidance
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

from lumiere_jax.diffusion.projected_guidance import Projection, first_average, guide
from tests.diffusion import gaussian

SHAPE = (3, 2, 5)
LOG_SNR = np.array([-3.0, 0.0, 2.0])


@pytest.fixture(autouse=True)
def fixture_float64():
    with jax.enable_x64(True):
        yield


def test_every_step_agrees_with_diffusers():
    """It multiplies the norm where this is told the root mean square, and the scale less 1."""
    parallel, limit, momentum, scale = 0.3, 1.5, -0.6, 4.0
    guider = AdaptiveProjectedGuidance(
        guidance_scale=scale - 1, adaptive_projected_guidance_rescale=limit * np.sqrt(10),
        eta=parallel, use_original_formulation=True,
    )  # fmt: skip
    guider.momentum_buffer = MomentumBuffer(momentum)
    program = jax.jit(guide)
    average, limited = first_average(jnp.zeros(SHAPE)), []
    for step in range(3):
        conditional, null = np.random.default_rng(step).normal(size=(2, *SHAPE))
        expected = guider.forward(torch.tensor(conditional), torch.tensor(null))[0]
        actual, average = program(
            jnp.asarray(conditional), jnp.asarray(null), average, jnp.full(3, scale),
            Projection(parallel, limit, momentum),
        )  # fmt: skip
        np.testing.assert_allclose(actual, expected, rtol=1e-10)
        np.testing.assert_allclose(average, guider.momentum_buffer.running_average, rtol=1e-10)
        limited += (np.sqrt(np.square(average).mean((1, 2))) > limit).tolist()
    assert True in limited and False in limited


def estimates():
    """Of two Gaussians of the same width: their difference does not depend on the samples."""
    text, none = np.random.default_rng(0).normal(0, 0.5, (2, *SHAPE))
    z = np.random.default_rng(1).normal(size=SHAPE)
    alpha, sigma = gaussian.levels(LOG_SNR, 3)
    shrunk = sigma**2 / (0.16 * alpha**2 + sigma**2)  # of what a mean adds to an estimate
    found = [gaussian.denoised(z, LOG_SNR, mean, 0.4) for mean in (text, none)]
    return z, text, none, shrunk, *found


def guided(conditional, null, scales, projection, average=None):
    average = jnp.zeros(SHAPE) if average is None else average
    arrays = map(jnp.asarray, (conditional, null, average, scales))
    return guide(*arrays, Projection(*projection))


def test_without_its_numbers_it_moves_the_mean_of_a_gaussian():
    z, text, none, _, conditional, null = estimates()
    scales = np.array([0.5, 2.0, 6.0])
    actual, _ = guided(conditional, null, scales, (1.0, np.inf, 0.0))
    mean = none + scales[:, None, None] * (text - none)
    np.testing.assert_allclose(actual, gaussian.denoised(z, LOG_SNR, mean, 0.4), rtol=1e-10)


def test_what_is_added_to_a_gaussian_is_at_right_angles_and_has_a_length():
    _, text, none, shrunk, conditional, null = estimates()
    scales, axes = np.array([1.0, 2.0, 6.0]), (1, 2)
    actual, _ = guided(conditional, null, scales, (0.0, np.inf, 0.0))
    added, shift = np.asarray(actual) - conditional, shrunk * (text - none)
    np.testing.assert_allclose((added * conditional).sum(axes), 0, atol=1e-12)
    # Pythagoras: the shift of the mean, less its part along the estimate.
    along = (shift * conditional).sum(axes) / np.linalg.norm(conditional, axis=axes)
    length = np.sqrt(np.square(shift).sum(axes) - along**2)
    np.testing.assert_allclose(
        np.linalg.norm(added, axis=axes), (scales - 1) * length, atol=1e-12, rtol=1e-10
    )
    limited, _ = guided(conditional, null, scales, (1.0, 1e-3, 0.0))
    rms = np.sqrt(np.square(limited - conditional).mean(axes))
    np.testing.assert_allclose(rms, (scales - 1) * 1e-3, rtol=1e-8, atol=1e-15)


def test_momentum_sums_a_constant_difference_like_a_series_and_only_where_it_guides():
    _, text, none, shrunk, conditional, null = estimates()
    scales, average = np.array([1.0, 2.0, 3.0]), None
    for _ in range(4):
        actual, average = guided(conditional, null, scales, (1.0, np.inf, -0.5), average)
    series = (1 - (-0.5) ** 4) / 1.5
    shift = np.array([0, 1, 1])[:, None, None] * shrunk * (text - none) * series
    np.testing.assert_allclose(average, shift, rtol=1e-10, atol=1e-12)
    expected = conditional + (scales - 1)[:, None, None] * shift
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_estimates_that_are_equal_or_zero_stay():
    zero = np.zeros(SHAPE)
    for conditional, null in [(zero, zero), (zero + 0.3, zero + 0.3)]:
        actual, _ = guided(conditional, null, np.full(3, 5.0), (0.0, np.inf, -0.5))
        np.testing.assert_array_equal(actual, conditional)
