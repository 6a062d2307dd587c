import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.diffusion import parameterization
from lumiere_jax.diffusion.parameterization import KINDS
from lumiere_jax.runtime.errors import UserError


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def noisy_sample(log_snr, seed):
    """x0, noise, z and the three predictions, by NumPy."""
    random = np.random.default_rng(seed)
    x0, noise = random.normal(size=(2, 2, 3, 4, 5, 1))
    snr = np.exp(log_snr)[:, None, None, None, None]
    alpha, sigma = np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))
    predictions = {"x0": x0, "epsilon": noise, "v": alpha * noise - sigma * x0}
    return x0, noise, alpha * x0 + sigma * noise, predictions


levels = st.lists(st.floats(-10, 10), min_size=2, max_size=2).map(np.array)


@settings(max_examples=15)
@given(levels, st.integers(0, 1000))
def test_every_conversion_against_numpy(log_snr, seed):
    x0, noise, z, predictions = noisy_sample(log_snr, seed)
    np.testing.assert_allclose(parameterization.add_noise(x0, noise, log_snr), z, atol=1e-12)
    for source in KINDS:
        actual = parameterization.target(source, x0, noise, log_snr)
        np.testing.assert_allclose(actual, predictions[source], atol=1e-12)
        for target in KINDS:
            actual = parameterization.convert(predictions[source], z, log_snr, source, target)
            np.testing.assert_allclose(actual, predictions[target], atol=1e-9)


@settings(max_examples=15)
@given(levels, st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_round_trips_of_any_prediction(log_snr, source, target):
    prediction, z = np.random.default_rng(0).normal(size=(2, 2, 3))
    there = parameterization.convert(prediction, z, log_snr, source, target)
    back = parameterization.convert(there, z, log_snr, target, source)
    np.testing.assert_allclose(back, prediction, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_data_and_noise_are_found_again(kind):
    log_snr = np.array([-2.0, 3.0])
    x0, noise, z, predictions = noisy_sample(log_snr, 0)
    np.testing.assert_allclose(
        parameterization.to_x0(kind, predictions[kind], z, log_snr), x0, atol=1e-12
    )
    epsilon = parameterization.convert(predictions[kind], z, log_snr, kind, "epsilon")
    np.testing.assert_allclose(epsilon, noise, atol=1e-12)


def test_a_scalar_noise_level_holds_for_the_whole_batch():
    x0, noise, z, _ = noisy_sample(np.array([0.7, 0.7]), 0)
    np.testing.assert_allclose(parameterization.add_noise(x0, noise, jnp.array(0.7)), z, atol=1e-12)


def test_unknown_kinds_are_refused(without_annotations):
    x = jnp.zeros((1, 2))
    with pytest.raises(UserError, match="unknown parameterization 'eps'.*v, epsilon, x0"):
        parameterization.target("eps", x, x, jnp.zeros(1))
    with pytest.raises(UserError, match="unknown parameterization 'score'"):
        parameterization.convert(x, x, jnp.zeros(1), "v", "score")
