"""The discrete schedule and its learned variance against NumPy in float64, and `diffusers`."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.stats import norm

from lumiere_jax.diffusion import discrete, losses
from lumiere_jax.diffusion.discrete import DiscreteSchedule
from lumiere_jax.diffusion.schedule import alpha_sigma
from lumiere_jax.runtime.errors import UserError

SCHEDULE = DiscreteSchedule()
ALL_STEPS = np.arange(1000)


def reference_alpha_bar():
    """Cumulative products of 1 - beta, from the formula of the paper (equation 17)."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


def ddpm_scheduler(**fields):
    return diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", **fields
    )


def middle(steps):
    return (np.asarray(steps) + 0.5) / 1000


def test_table_is_the_formula_and_that_of_diffusers():
    alpha_bar = reference_alpha_bar()
    np.testing.assert_allclose(
        discrete.log_snr_table(), np.log(alpha_bar / (1 - alpha_bar)), rtol=1e-9
    )
    theirs = ddpm_scheduler().alphas_cumprod.numpy()
    alpha, sigma = alpha_sigma(SCHEDULE.log_snr(middle(ALL_STEPS)))
    np.testing.assert_allclose(np.square(alpha), theirs, rtol=1e-4)
    np.testing.assert_allclose(np.square(sigma), 1 - theirs, rtol=2e-3)  # theirs cancels


def test_every_step_is_told_by_its_number():
    log_snr = jax.jit(SCHEDULE.log_snr)(middle(ALL_STEPS))
    assert log_snr.dtype == jnp.float32
    np.testing.assert_array_equal(SCHEDULE.network_time(log_snr), ALL_STEPS)
    np.testing.assert_allclose(SCHEDULE.time(log_snr), middle(ALL_STEPS), rtol=1e-6)
    nearly = log_snr + 0.3 * np.append(np.diff(log_snr), 0)
    np.testing.assert_array_equal(SCHEDULE.network_time(nearly), ALL_STEPS)


def test_times_lead_to_every_step_equally_often():
    times = (np.arange(100_000) + 0.5) / 100_000
    steps = np.asarray(SCHEDULE.network_time(SCHEDULE.log_snr(times))).astype(int)
    counts = np.bincount(steps, minlength=1000)
    assert counts.min() >= 99 and counts.max() <= 101
    np.testing.assert_array_equal(
        SCHEDULE.network_time(SCHEDULE.log_snr(np.array([0.0, 1.0]))), [0, 999]
    )


def test_previous_step():
    log_snr = SCHEDULE.log_snr(middle(ALL_STEPS))
    previous = np.asarray(SCHEDULE.previous_log_snr(log_snr))
    assert np.isinf(previous[0])
    np.testing.assert_array_equal(previous[1:], log_snr[:-1])


@pytest.mark.parametrize("num_steps", [1, 3, 50, 100, 1000])
@pytest.mark.parametrize("spacing", discrete.SPACINGS)
def test_steps_of_a_sampler_are_those_of_diffusers(spacing, num_steps):
    theirs = ddpm_scheduler(timestep_spacing=spacing)
    theirs.set_timesteps(num_steps)
    schedule = DiscreteSchedule(spacing)
    steps = schedule.network_time(schedule.sampling_log_snrs(num_steps))
    np.testing.assert_array_equal(steps, theirs.timesteps.numpy())


def test_sampling_from_a_later_start():
    schedule = DiscreteSchedule("trailing")
    steps = schedule.network_time(schedule.sampling_log_snrs(4, 0.5))
    np.testing.assert_array_equal(steps, [499, 374, 249, 124])


def test_settings_that_cannot_be():
    with pytest.raises(UserError, match="'linspace' is unknown; use one of leading, trailing"):
        DiscreteSchedule("linspace")
    with pytest.raises(UserError, match="steps=1001: this schedule has 1000"):
        SCHEDULE.sampling_log_snrs(1001)


def test_augmentation_is_the_noise_of_a_step():
    image, noise = np.random.default_rng(0).normal(size=(2, 3, 1, 4, 4, 3)).astype("f4")
    levels = SCHEDULE.round_level(jnp.array([0.0, 0.2509, 1.0]))
    steps = np.round(1000 * np.asarray(levels)).astype(int)
    np.testing.assert_array_equal(steps, [0, 250, 999])
    theirs = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(
        torch.tensor(image), torch.tensor(noise), torch.tensor(steps)
    )
    np.testing.assert_allclose(SCHEDULE.augment(image, levels, noise), theirs, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1000, 50])
def test_log_variance_is_that_of_diffusers(num_steps):
    theirs = ddpm_scheduler()
    theirs.set_timesteps(num_steps)
    fraction = np.random.default_rng(0).uniform(-1.2, 1.2, (5, 4)).astype("f4")
    steps, before = theirs.timesteps[:-1].numpy(), theirs.timesteps[1:].numpy()
    for i in np.linspace(0, len(steps) - 1, 5).astype(int):
        expected = theirs._get_variance(torch.tensor(steps[i]), torch.tensor(fraction))
        now, previous = SCHEDULE.log_snr(middle([steps[i], before[i]]))
        actual = discrete.log_variance(jnp.asarray(fraction), now, previous)
        np.testing.assert_allclose(actual, expected, atol=2e-2)  # their betas cancel in float32
    # Ours, in float32, against float64.
    alpha_bar = reference_alpha_bar()
    now, previous = alpha_bar[steps], alpha_bar[before]
    upper = np.log(1 - now / previous)
    lower = upper + np.log((1 - previous) / (1 - now))
    rows = np.linspace(-1, 1, len(steps))
    expected = (rows + 1) / 2 * upper + (1 - rows) / 2 * lower
    actual = discrete.log_variance(
        jnp.asarray(rows), SCHEDULE.log_snr(middle(steps)), SCHEDULE.log_snr(middle(before))
    )
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def reference_bound(x0, epsilon, prediction, fraction, step):
    """Equations 4 to 6 in bits, float64, from the posterior's moments (2006.11239, equation 7)."""
    alpha_bar = reference_alpha_bar()
    now, previous = alpha_bar[step], alpha_bar[step - 1] if step else 1.0
    beta = 1 - now / previous
    posterior = beta * (1 - previous) / (1 - now)
    if step == 0:  # as in the authors' code
        posterior = (1 - alpha_bar[1] / now) * (1 - now) / (1 - alpha_bar[1])
    variance = np.exp(
        (fraction + 1) / 2 * np.log(beta) + (1 - (fraction + 1) / 2) * np.log(posterior)
    )
    z = np.sqrt(now) * x0 + np.sqrt(1 - now) * epsilon

    def mean(x0):
        first = np.sqrt(previous) * beta / (1 - now) * x0
        return first + np.sqrt(1 - beta) * (1 - previous) / (1 - now) * z

    predicted = mean((z - np.sqrt(1 - now) * prediction) / np.sqrt(now))
    if step:
        gap = np.square(mean(x0) - predicted)
        nats = 0.5 * (np.log(variance / posterior) - 1 + (posterior + gap) / variance)
    else:
        pixel = norm(predicted, np.sqrt(variance))
        above = np.where(x0 > 0.999, 1.0, pixel.cdf(x0 + 1 / 255))
        below = np.where(x0 < -0.999, 0.0, pixel.cdf(x0 - 1 / 255))
        nats = -np.log(np.maximum(above - below, 1e-12))
    return nats.mean() / np.log(2)


def bound_inputs(seed=0):
    rng = np.random.default_rng(seed)
    x0 = np.round(rng.uniform(-1.2, 1.2, (2, 4, 4, 3)).clip(-1, 1) * 127.5) / 127.5
    epsilon = rng.normal(size=x0.shape)
    prediction = epsilon + 0.3 * rng.normal(size=x0.shape)
    return x0, epsilon, prediction, rng.uniform(-1, 1, x0.shape)


@pytest.mark.parametrize("step", [0, 1, 2, 100, 500, 998, 999])
def test_variational_bound_against_float64(step):
    inputs = bound_inputs()
    expected = [reference_bound(*(x[i] for x in inputs), step) for i in range(2)]
    log_snr = SCHEDULE.log_snr(middle([step] * 2))
    actual = discrete.variational_bound(
        *(jnp.asarray(x, jnp.float32) for x in inputs), log_snr, SCHEDULE.previous_log_snr(log_snr)
    )
    np.testing.assert_allclose(actual, expected, rtol=2e-3)


def hybrid_loss(x0, seed, outputs):
    """Loss and its gradient to the network's output, of a network that gives `outputs`."""

    keys = jax.random.split(jax.random.key(seed))
    time, noise = losses.stratified_times(keys[0], len(x0)), jax.random.normal(keys[1], x0.shape)

    def loss(outputs):
        value = losses.diffusion_loss(
            outputs, x0, noise, time, schedule=SCHEDULE, kind="epsilon", learned_variance=True
        )
        return value.sum(), value

    (_, value), gradient = jax.value_and_grad(loss, has_aux=True)(outputs)
    return value, noise, SCHEDULE.log_snr(time), gradient


def test_hybrid_loss_against_float64():
    x0, _, prediction, fraction = bound_inputs(3)
    batch = 16  # so that a step near clean data is among them
    x0, prediction, fraction = (np.resize(x, (batch, 4, 4, 3)) for x in (x0, prediction, fraction))
    outputs = jnp.asarray(np.concatenate([prediction, fraction], -1), jnp.float32)
    value, noise, log_snr, gradient = hybrid_loss(jnp.asarray(x0, jnp.float32), 0, outputs)
    steps = np.asarray(SCHEDULE.network_time(log_snr)).astype(int)
    assert len(set(steps)) == batch
    for i, step in enumerate(steps):
        epsilon = np.asarray(noise[i], np.float64)
        simple = np.square(epsilon - prediction[i]).mean()
        bound = reference_bound(x0[i], epsilon, prediction[i], fraction[i], step)
        np.testing.assert_allclose(value[i], simple + bound, rtol=5e-3)
        # The mean learns from the squared error alone.
        expected = 2 * (prediction[i] - epsilon) / epsilon.size
        np.testing.assert_allclose(gradient[i, ..., :3], expected, atol=2e-5)
    assert np.all(np.isfinite(gradient)) and np.all(gradient[..., 3:] != 0)


def test_bound_is_least_where_the_variance_is_the_true_one():
    # For data of one Gaussian the reverse step is Gaussian, its moments are known in closed form.
    rng, step, deviation = np.random.default_rng(0), 3, 0.01
    x0, noise = rng.normal(size=(2, 4, 50_000))
    x0 = deviation * x0
    now, previous = reference_alpha_bar()[[step, step - 1]]
    log_snr = SCHEDULE.log_snr(middle([step] * 4))
    z = np.sqrt(now) * x0 + np.sqrt(1 - now) * noise
    spread = now * deviation**2 + 1 - now
    best = np.sqrt(1 - now) / spread * z  # E[noise | z]
    beta = 1 - now / previous
    lower = beta * (1 - previous) / (1 - now)
    left = deviation**2 * (1 - now) / spread  # variance of x0 given z
    true = lower + previous * (beta / (1 - now)) ** 2 * left
    fraction = 2 * np.log(true / lower) / np.log(beta / lower) - 1
    assert -0.7 < fraction < 0.7

    def bound(fraction):
        inputs = (x0, noise, best, np.full_like(x0, fraction))
        inputs = [jnp.asarray(x, jnp.float32) for x in inputs]
        before = SCHEDULE.previous_log_snr(log_snr)
        return float(discrete.variational_bound(*inputs, log_snr, before).mean())

    assert bound(fraction) < min(bound(fraction - 0.1), bound(fraction + 0.1))
