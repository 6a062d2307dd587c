import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.diffusion.schedule import CosineSchedule, alpha_sigma, resolution_shift
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime.errors import UserError

TIMES = np.linspace(0.0, 1.0, 41)


def test_limits_are_exact():
    with jax.enable_x64(True):
        schedule = CosineSchedule(shift=-1.5, log_snr_min=-12.0, log_snr_max=9.0)
        ends = schedule.log_snr(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(ends, [7.5, -13.5], atol=1e-9)


def test_wide_limits_are_the_cosine_of_time():
    with jax.enable_x64(True):
        schedule = CosineSchedule(log_snr_min=-60.0, log_snr_max=60.0)
        alpha, sigma = alpha_sigma(schedule.log_snr(TIMES[1:-1]))
    np.testing.assert_allclose(alpha, np.cos(np.pi / 2 * TIMES[1:-1]), atol=1e-10)
    np.testing.assert_allclose(sigma, np.sin(np.pi / 2 * TIMES[1:-1]), atol=1e-10)


def test_float32_follows_float64():
    schedule = CosineSchedule(shift=-3.0)
    offset = np.arctan(np.exp(-7.5))
    angle = (np.arctan(np.exp(7.5)) - offset) * TIMES + offset
    actual = schedule.log_snr(jnp.asarray(TIMES))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, -2 * np.log(np.tan(angle)) - 3.0, atol=2e-3)


def test_interpolated_shift_is_that_of_simple_diffusion():
    """Their equation: the shifted log-SNR times t, and the other times 1 - t."""
    with jax.enable_x64(True):
        plain, shifted = CosineSchedule(), CosineSchedule(shift=-3.6)
        actual = CosineSchedule(shift=-3.6, is_interpolated=True).log_snr(TIMES)
        expected = TIMES * shifted.log_snr(TIMES) + (1 - TIMES) * plain.log_snr(TIMES)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
    with pytest.raises(
        UserError, match="log_snr_shift=6.5 must be below 6.0 if it is interpolated"
    ):
        CosineSchedule(shift=6.5, is_interpolated=True)


@settings(max_examples=30)
@given(st.floats(-6, 5.9), st.floats(0, 1), st.booleans())
def test_time_inverts_log_snr(shift, time, is_interpolated):
    with jax.enable_x64(True):
        schedule = CosineSchedule(shift=shift, is_interpolated=is_interpolated)
        assert float(schedule.time(schedule.log_snr(time))) == pytest.approx(time, abs=1e-9)


def test_negative_shift_is_more_noise_at_every_time():
    plain, shifted = CosineSchedule(), CosineSchedule(shift=-2.0)
    assert np.all(alpha_sigma(shifted.log_snr(TIMES))[1] > alpha_sigma(plain.log_snr(TIMES))[1])
    assert np.all(np.diff(plain.log_snr(TIMES)) < 0)


def test_alpha_sigma_against_numpy():
    log_snr = np.linspace(-20, 20, 81)
    with jax.enable_x64(True):
        alpha, sigma = alpha_sigma(jnp.asarray(log_snr))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.log(alpha**2 / sigma**2), log_snr, atol=1e-6)


def test_network_time_is_the_unshifted_cosine_time():
    with jax.enable_x64(True):
        wide = CosineSchedule(log_snr_min=-80.0, log_snr_max=80.0)
        log_snr = CosineSchedule(shift=-2.5).log_snr(TIMES)
        actual = wide.network_time(log_snr)
        np.testing.assert_allclose(actual, 1000 * wide.time(log_snr), atol=1e-9)
        assert np.all((actual >= 0) & (actual <= 1000))
    assert float(CosineSchedule().network_time(jnp.array(0.0))) == pytest.approx(500.0)


def test_resolution_shift_of_simple_diffusion():
    # The image of d x d pixels is shifted by 2 log(64 / d).
    for side in (64, 128, 512):
        assert resolution_shift(side, side) == pytest.approx(2 * np.log(64 / side))


@settings(max_examples=50)
@given(st.integers(8, 1024), st.integers(8, 1024), st.integers(1, 80))
def test_resolution_shift_never_rises_with_size(height, width, frames):
    shift = resolution_shift(height, width, frames)
    assert shift <= 0
    assert resolution_shift(height + 8, width, frames) <= shift
    assert resolution_shift(height, width, frames + 1) <= shift


def test_resolution_shift_counts_frames_as_pixels():
    assert resolution_shift(128, 128, 80) == pytest.approx(resolution_shift(128, 128 * 80))
    assert resolution_shift(128, 128, 16, reference=(128, 128, 4)) == pytest.approx(-np.log(4))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_sampling_times_are_even_ones_to_a_power(power):
    schedule = CosineSchedule(shift=-2.0, spacing=Spacing(power))
    expected = 0.7 * np.array([1.0, 0.8, 0.6, 0.4, 0.2]) ** power
    times = schedule.time(schedule.sampling_log_snrs(5, 0.7))
    np.testing.assert_allclose(times, expected, rtol=1e-4)  # float32, there and back
    assert schedule.log_snr(0.3) == CosineSchedule(shift=-2.0).log_snr(0.3)


@settings(max_examples=50)
@given(st.floats(-8, 2), st.booleans(), st.floats(1, 20), st.integers(2, 64), st.floats(0.05, 1))
def test_steps_even_in_log_snr_end_where_they_are_asked_to(shift, fades, last, count, start):
    with jax.enable_x64(True):
        schedule = CosineSchedule(shift, fades, spacing=Spacing(last_log_snr=last))
        first = float(schedule.log_snr(start))
        expected = np.linspace(first, max(first, last), count)
        actual = schedule.sampling_log_snrs(count, start)
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
        near = schedule.sampling_log_snrs(count, start, Spacing(2.0, last))
        assert np.all(near >= actual - 1e-9)  # more of them near clean data


def test_one_step_begins_at_the_start():
    schedule = CosineSchedule(spacing=Spacing(last_log_snr=10.0))
    assert schedule.sampling_log_snrs(1) == schedule.log_snr(1.0)


@pytest.mark.parametrize("power", [0.0, -1.0, float("nan"), float("inf")])
def test_power_of_time_out_of_range(power):
    with pytest.raises(UserError, match=f"time_power={power} must be above 0"):
        CosineSchedule(spacing=Spacing(power))


@pytest.mark.parametrize("last", [-1.0, 31.0, float("nan")])
def test_last_log_snr_out_of_range(last):
    with pytest.raises(UserError, match=f"last_log_snr={last} must be between 0"):
        CosineSchedule(spacing=Spacing(last_log_snr=last))


def test_exchanged_limits_are_refused():
    with pytest.raises(UserError, match="log_snr_min=3.0 must be below"):
        CosineSchedule(log_snr_min=3.0, log_snr_max=-3.0)
