import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm

from lumiere_jax.diffusion import samplers
from lumiere_jax.diffusion.discrete import DiscreteSchedule
from lumiere_jax.diffusion.sampler_names import SAMPLERS
from lumiere_jax.diffusion.schedule import CosineSchedule, alpha_sigma
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime.errors import UserError
from tests.diffusion.loop import sample

MEAN, DEVIATION = 0.3, 0.5
EVEN = Spacing()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def split(batch, seed=0):
    return jax.random.split(jax.random.key(seed), batch)


def gaussian_denoiser(z, log_snr):
    """The exact denoiser of data N(MEAN, DEVIATION^2)."""
    alpha, sigma = (x.reshape(-1, *(1,) * (z.ndim - 1)) for x in alpha_sigma(log_snr))
    gain = DEVIATION**2 * alpha / (DEVIATION**2 * alpha**2 + sigma**2)
    return MEAN + gain * (z - alpha * MEAN)


def mixture_denoiser(z, alpha, sigma, exp=np.exp):
    """The exact denoiser of an even mixture of two Gaussians; not linear in z."""
    numerator = denominator = 0.0
    for mean, variance in ((-0.7, 0.04), (0.6, 0.09)):
        total = alpha**2 * variance + sigma**2
        weight = exp(-0.5 * (z - alpha * mean) ** 2 / total) / total**0.5
        posterior = mean + variance * alpha / total * (z - alpha * mean)
        numerator, denominator = numerator + weight * posterior, denominator + weight
    return numerator / denominator


# Whole runs against diffusers.

TRAIN_STEPS = 1000


def reference_scheduler(name, schedule):
    """A scheduler of diffusers whose discrete time k is ours at (k + 1) / 1000."""
    common = dict(prediction_type="sample", timestep_spacing="trailing")
    if name == "dpmpp_2m":
        scheduler = DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++", solver_order=2, **common
        )
    elif name == "ancestral":
        scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small", **common)
    else:
        scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **common)
    log_snr = schedule.log_snr((np.arange(TRAIN_STEPS) + 1.0) / TRAIN_STEPS)
    scheduler.alphas_cumprod = torch.tensor(np.asarray(jax.nn.sigmoid(log_snr)))
    return scheduler


def reference_run(name, schedule, z, num_steps, eta, step_noise, monkeypatch):
    """States after every step of diffusers' scheduler, fed the same noise."""
    scheduler = reference_scheduler(name, schedule)
    if schedule.spacing == Spacing():
        scheduler.set_timesteps(num_steps)
    else:
        log_snr = np.asarray(schedule.sampling_log_snrs(num_steps))
        times = np.asarray(schedule.time(log_snr))
        steps = np.round(times * TRAIN_STEPS).astype(int) - 1
        scheduler.alphas_cumprod[steps] = torch.tensor(np.asarray(jax.nn.sigmoid(log_snr)))
        scheduler.set_timesteps(timesteps=steps)
    z, states = torch.tensor(z), []
    for index, k in enumerate(scheduler.timesteps):
        noise = torch.tensor(step_noise[index])
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, noise=noise, **__: noise)
        alpha = scheduler.alphas_cumprod[k] ** 0.5
        x0 = mixture_denoiser(z, alpha, (1 - alpha**2) ** 0.5, torch.exp)
        extra = dict(eta=eta, variance_noise=noise) if name == "ddim" else {}
        z = scheduler.step(x0, k, z, **extra).prev_sample
        states.append(z.numpy())
    return np.stack(states)


@pytest.mark.parametrize(
    "name, eta, num_steps, shift, spacing",
    [
        ("ddim", 0.0, 8, 0.0, EVEN),
        ("ddim", 0.6, 50, -2.0, EVEN),
        ("ancestral", 0.0, 50, -2.0, EVEN),
        ("ancestral", 0.0, 10, -2.0, Spacing(2.0)),
        ("dpmpp_2m", 0.0, 8, 0.0, EVEN),
        ("dpmpp_2m", 0.0, 50, -2.0, EVEN),
        ("dpmpp_2m", 0.0, 10, -2.0, Spacing(2.0)),
        ("dpmpp_2m", 0.0, 10, -2.0, Spacing(last_log_snr=6.0)),
    ],
)
def test_every_step_agrees_with_diffusers(
    name, eta, num_steps, shift, spacing, float64, monkeypatch
):
    schedule = CosineSchedule(shift=shift, spacing=spacing)
    keys, shape = split(4), (4, 3, 5)

    def denoise(z, log_snr):
        alpha, sigma = (x[:, None, None] for x in alpha_sigma(log_snr))
        return mixture_denoiser(z, alpha, sigma, jnp.exp)

    states = sample(
        denoise, keys, shape, schedule=schedule, num_steps=num_steps, sampler=name, eta=eta or None
    )
    draw = jax.jit(jax.vmap(lambda stream: samplers.normal(keys, stream, shape)))
    start, *step_noise = np.asarray(draw(jnp.arange(num_steps + 1)))
    expected = reference_run(name, schedule, start, num_steps, eta, step_noise, monkeypatch)
    assert states.shape == (num_steps, *shape)
    # Multistep sigmas are float32 in diffusers.
    np.testing.assert_allclose(states, expected, atol=1e-5)


# Closed forms: data N(MEAN, DEVIATION^2).


def flow_state(noise, schedule, time):
    """Exact solution at `time` of the probability-flow ODE from `noise` at time 1."""
    alpha, sigma = (float(x) for x in alpha_sigma(schedule.log_snr(1.0)))
    quantile = (noise - alpha * MEAN) / np.hypot(alpha * DEVIATION, sigma)
    if time == 0:
        return MEAN + DEVIATION * quantile
    alpha, sigma = (float(x) for x in alpha_sigma(schedule.log_snr(time)))
    return alpha * MEAN + np.hypot(alpha * DEVIATION, sigma) * quantile


def flow_errors(sampler, schedule, num_steps):
    """Largest errors at time 1/4 and at the end."""
    noise = np.linspace(-2, 2, 9)[:, None]
    states = sample(
        gaussian_denoiser, split(9), noise.shape,
        schedule=schedule, num_steps=num_steps, sampler=sampler, noise=jnp.asarray(noise),
    )  # fmt: skip
    return (
        np.abs(states[3 * num_steps // 4 - 1] - flow_state(noise, schedule, 0.25)).max(),
        np.abs(states[-1] - flow_state(noise, schedule, 0.0)).max(),
    )


@pytest.mark.parametrize("sampler, order", [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence_inside(sampler, order, float64):
    # A schedule that does not start at almost infinite noise keeps every log-SNR step small.
    schedule = CosineSchedule(log_snr_min=-4.0)
    errors = np.array([flow_errors(sampler, schedule, n)[0] for n in (128, 256, 512)])
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), order, atol=0.06)


@pytest.mark.parametrize(
    "sampler, order, largest", [("ddim", 0.95, 0.007), ("dpmpp_2m", 1.7, 0.0002)]
)
def test_order_of_convergence_at_the_end(sampler, order, largest, float64):
    # The second-order error is log(n) / n^2 here, as log-SNR steps near clean data stay wide.
    errors = [flow_errors(sampler, CosineSchedule(), n)[1] for n in (256, 512)]
    assert np.log2(errors[0] / errors[1]) > order
    assert errors[1] < largest


@pytest.mark.parametrize("sampler, eta", [("ddim", 0.5), ("ancestral", 0.0)])
def test_stochastic_samplers_land_on_mean_and_deviation(sampler, eta):
    batch, size = 4, 20_000

    def moments(num_steps):
        x = sample(
            gaussian_denoiser, split(batch), (batch, size),
            schedule=CosineSchedule(), num_steps=num_steps, sampler=sampler, eta=eta,
        )[-1]  # fmt: skip
        return float(x.mean()), float(x.std())

    (_, coarse), (mean, fine) = moments(48), moments(96)
    assert mean == pytest.approx(MEAN, abs=5 * DEVIATION / np.sqrt(batch * size))
    # First order: a doubling halves the error, and extrapolation removes most of it.
    assert (DEVIATION - coarse) / (DEVIATION - fine) == pytest.approx(2.0, abs=0.3)
    assert 2 * fine - coarse == pytest.approx(DEVIATION, abs=0.006)


def test_ddim_with_eta_one_is_ancestral(float64):
    def run(**options):
        schedule = CosineSchedule(shift=-1.0)
        return sample(
            gaussian_denoiser, split(3), (3, 7), schedule=schedule, num_steps=20, **options
        )

    ancestral = run(sampler="ancestral")
    np.testing.assert_allclose(run(sampler="ddpm"), ancestral, atol=1e-10)
    np.testing.assert_allclose(run(sampler="ddim", eta=1.0), ancestral, atol=1e-10)
    assert np.abs(run(sampler="ddim", eta=0.5) - ancestral).max() > 0.01


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    def run(keys):
        return sample(
            gaussian_denoiser, keys, (len(keys), 2, 3),
            schedule=CosineSchedule(), num_steps=6, sampler=sampler, eta=0.7,
        )[-1]  # fmt: skip

    keys = split(4)
    together = np.asarray(run(keys))
    np.testing.assert_allclose(run(keys[2:3])[0], together[2], atol=1e-6)
    # Raw keys are the same keys.
    np.testing.assert_array_equal(run(jax.random.key_data(keys)), together)
    assert np.abs(together[0] - together[1]).max() > 0.01


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_levels_that_a_discrete_schedule_repeats_change_nothing(sampler, spacing):
    """100 steps from the 50th of 1000 on are 50, half of them twice."""
    states = sample(
        gaussian_denoiser, split(400), (400, 3), schedule=DiscreteSchedule(spacing), num_steps=100,
        sampler=sampler, eta=0.5, start_time=0.05, fraction=0.3,
        noise=MEAN + DEVIATION * jax.random.normal(jax.random.key(1), (400, 3)),
    )  # fmt: skip
    assert np.isfinite(states).all()
    log_snr = samplers.sampling_steps(DiscreteSchedule(spacing), 100, 0.05).log_snr
    repeated = np.flatnonzero(np.diff(log_snr) == 0)
    assert len(repeated) > 45
    np.testing.assert_allclose(states[1:][repeated - 1], states[repeated - 1], atol=1e-5)
    assert np.std(states[-1]) == pytest.approx(DEVIATION, rel=0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_last_step_returns_the_last_estimate(sampler):
    states = sample(
        lambda z, log_snr: jnp.full_like(z, 0.25), split(2), (2, 3),
        schedule=CosineSchedule(), num_steps=5, sampler=sampler, eta=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(states[-1], 0.25, rtol=1e-6)


def test_steps_are_even_in_time_and_end_at_clean_data():
    schedule = CosineSchedule(shift=-1.0)
    steps = samplers.sampling_steps(schedule, 4, start_time=0.8)
    np.testing.assert_allclose(schedule.time(steps.log_snr), [0.8, 0.6, 0.4, 0.2], atol=1e-5)
    np.testing.assert_array_equal(steps.log_snr_next, [*steps.log_snr[1:], np.inf])


def test_a_sampler_without_its_variance_is_refused():
    step = jax.tree.map(lambda x: x[0], samplers.sampling_steps(CosineSchedule(), 4))
    with pytest.raises(UserError, match="'ddpm' needs a learned variance; use 'ancestral'"):
        z = jnp.zeros((1, 1))
        samplers.create("ddpm").step(z, (), samplers.Estimate(z), step, split(1))
