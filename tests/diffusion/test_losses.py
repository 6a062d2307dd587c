import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.diffusion import losses
from lumiere_jax.diffusion.parameterization import KINDS
from lumiere_jax.diffusion.schedule import CosineSchedule
from lumiere_jax.runtime.errors import UserError

SCHEDULE = CosineSchedule(shift=-1.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_times_are_stratified_and_uniform():
    keys = jax.random.split(jax.random.key(0), 2000)
    times = np.asarray(jax.vmap(lambda key: losses.stratified_times(key, 8))(keys))
    assert np.all((times >= 0) & (times < 1))
    # One time in every eighth, whatever the key.
    np.testing.assert_allclose(np.diff(np.sort(times, axis=1), axis=1), 1 / 8, atol=1e-6)
    # Every position of the batch sees all times.
    np.testing.assert_allclose(times.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / 2000))
    np.testing.assert_allclose(times.std(axis=0), np.sqrt(1 / 12), atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_against_numpy(kind):
    rng = np.random.default_rng(0)
    prediction, x0, noise = rng.normal(size=(3, 5, 4, 8, 8, 3))
    time = rng.uniform(size=5)
    angle = np.arctan(np.exp(7.5)) * time + np.arctan(np.exp(-7.5)) * (1 - time)
    log_snr = -2 * np.log(np.tan(angle)) - 1.0
    alpha = np.sqrt(sigmoid(log_snr))[:, None, None, None, None]
    sigma = np.sqrt(sigmoid(-log_snr))[:, None, None, None, None]
    goal = {"x0": x0, "epsilon": noise, "v": alpha * noise - sigma * x0}[kind]
    with jax.enable_x64(True):
        given = map(jnp.asarray, (prediction, x0, noise, time))
        loss = losses.diffusion_loss(*given, schedule=SCHEDULE, kind=kind)
    expected = np.mean((prediction - goal) ** 2, axis=(1, 2, 3, 4))
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


def gaussian_errors(log_snr, deviation):
    """Mean squared errors of the best predictions for data N(mean, deviation^2)."""
    alpha2, sigma2, variance = sigmoid(log_snr), sigmoid(-log_snr), deviation**2
    x0 = variance * sigma2 / (variance * alpha2 + sigma2)
    return {"x0": x0, "epsilon": x0 * alpha2 / sigma2, "v": x0 / sigma2}


@pytest.mark.parametrize("kind", KINDS)
def test_loss_of_the_optimal_denoiser_is_the_closed_form(kind):
    mean, deviation, size = 0.3, 0.5, 20_000
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        time = losses.stratified_times(keys[0], 12)
        log_snr = SCHEDULE.log_snr(time)
        x0 = mean + deviation * jax.random.normal(keys[1], (12, size))
        noise = jax.random.normal(keys[2], (12, size))
        alpha = jnp.sqrt(jax.nn.sigmoid(log_snr))[:, None]
        sigma = jnp.sqrt(jax.nn.sigmoid(-log_snr))[:, None]
        gain = deviation**2 * alpha / (deviation**2 * alpha**2 + sigma**2)
        z = alpha * x0 + sigma * noise
        best = mean + gain * (z - alpha * mean)
        best_noise = (z - alpha * best) / sigma
        prediction = {"x0": best, "epsilon": best_noise, "v": alpha * best_noise - sigma * best}
        loss = losses.diffusion_loss(
            prediction[kind], x0, noise, time, schedule=SCHEDULE, kind=kind
        )
    expected = gaussian_errors(np.asarray(log_snr), deviation)[kind]
    # The mean of `size` squared normals has a relative deviation of sqrt(2 / size).
    np.testing.assert_allclose(loss, expected, rtol=5 * np.sqrt(2 / size))


def test_sigmoid_weight_against_finite_differences():
    with jax.enable_x64(True):
        time = np.linspace(0.05, 0.95, 19)
        log_snr = np.asarray(SCHEDULE.log_snr(time))
        slope = (SCHEDULE.log_snr(time + 1e-6) - SCHEDULE.log_snr(time - 1e-6)) / 2e-6
        slope = np.asarray(slope)
        weight = losses.sigmoid_weight(jnp.asarray(time), SCHEDULE, "epsilon")
    np.testing.assert_allclose(weight, -slope * sigmoid(2.0 - log_snr), rtol=1e-6)


def test_sigmoid_weighted_loss_depends_on_neither_kind_nor_schedule():
    time = (np.arange(20_000) + 0.5) / 20_000
    means = []
    with jax.enable_x64(True):
        for shift in (0.0, -2.0):
            schedule = CosineSchedule(shift=shift)
            errors = gaussian_errors(np.asarray(schedule.log_snr(time)), 0.5)
            for kind in KINDS:
                weight = losses.sigmoid_weight(jnp.asarray(time), schedule, kind)
                means.append(float(jnp.mean(weight * errors[kind])))
    np.testing.assert_allclose(means, means[0], rtol=1e-4)


def test_balanced_weight_is_of_the_error_of_x0_whatever_is_predicted():
    log_snr = np.linspace(-12, 8, 41)
    errors = gaussian_errors(log_snr, 0.5)
    with jax.enable_x64(True):
        for kind in KINDS:
            weight = losses.balanced_weight(jnp.asarray(log_snr), kind)
            expected = np.minimum(1, np.sqrt(np.exp(log_snr))) * errors["x0"]
            np.testing.assert_allclose(weight * errors[kind], expected, rtol=1e-9)


def small_loss(weighting, dtype=jnp.float32):
    """Times, and the loss of zeros that should be ones."""
    time, x0 = jnp.asarray([0.1, 0.4, 0.7, 0.9]), jnp.ones((4, 10))
    return time, losses.diffusion_loss(
        jnp.zeros(x0.shape, dtype), x0, 0 * x0, time, schedule=SCHEDULE, kind="v",
        weighting=weighting,
    )  # fmt: skip


def test_weighted_loss_is_weight_times_squared_error():
    time, plain = small_loss("plain")
    weights = (
        losses.sigmoid_weight(time, SCHEDULE, "v"),
        losses.balanced_weight(SCHEDULE.log_snr(time), "v"),
    )
    for weighting, weight in zip(("sigmoid", "balanced"), weights, strict=True):
        np.testing.assert_allclose(small_loss(weighting)[1], weight * plain, rtol=1e-6)


def test_loss_is_computed_in_the_type_of_the_data():
    assert small_loss("plain", jnp.bfloat16)[1].dtype == jnp.float32


def test_drop_text_replaces_whole_samples_at_the_rate():
    batch = 4000
    text = jnp.arange(1.0, batch + 1)[:, None, None] * jnp.ones((1, 3, 2))
    mask = jnp.ones((batch, 3), bool)
    null_text, null_mask = jnp.full((3, 2), -1.0), jnp.array([True, False, False])
    dropped, dropped_mask = losses.drop_text(
        text, mask, null_text, null_mask, jax.random.key(0), 0.1
    )
    is_null = np.asarray(dropped[:, 0, 0] == -1)
    assert abs(is_null.mean() - 0.1) < 5 * np.sqrt(0.09 / batch)
    np.testing.assert_array_equal(dropped, np.where(is_null[:, None, None], null_text, text))
    np.testing.assert_array_equal(dropped_mask, np.where(is_null[:, None], null_mask, mask))


@pytest.mark.parametrize("rate, kept", [(0.0, 1.0), (1.0, 0.0)])
def test_drop_text_at_the_ends(rate, kept):
    text, mask = jnp.ones((50, 3, 2)), jnp.ones((50, 3), bool)
    # A leading axis of 1, as the encoder returns it, is accepted too.
    dropped, dropped_mask = losses.drop_text(
        text, mask, jnp.zeros((1, 3, 2)), jnp.zeros((1, 3), bool), jax.random.key(0), rate
    )
    assert dropped.dtype == text.dtype and dropped_mask.dtype == bool
    assert np.all(dropped == kept) and np.all(dropped_mask == bool(kept))


def test_augmentation_is_the_noise_of_cosine_time():
    clip, noise = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 4, 3))
    level = np.array([0.0, 0.3, 1.0])
    with jax.enable_x64(True):
        actual = CosineSchedule().augment(clip, level, noise)
        log_snr = CosineSchedule(log_snr_min=-80.0, log_snr_max=80.0).log_snr(0.3)
    np.testing.assert_array_equal(actual[0], clip[0])
    np.testing.assert_allclose(
        actual[1],
        np.sqrt(sigmoid(log_snr)) * clip[1] + np.sqrt(sigmoid(-log_snr)) * noise[1],
        atol=1e-9,
    )
    np.testing.assert_allclose(actual[2], noise[2], atol=1e-12)


def test_unknown_weighting_is_refused(without_annotations):
    x, time = jnp.ones((1, 1)), jnp.ones(1)
    with pytest.raises(UserError, match="unknown loss weighting 'snr'"):
        losses.diffusion_loss(x, x, x, time, schedule=SCHEDULE, kind="v", weighting="snr")
