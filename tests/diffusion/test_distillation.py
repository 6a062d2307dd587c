import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiere_jax.diffusion.discrete import DiscreteSchedule
from lumiere_jax.diffusion.distillation import (
    estimate_weights,
    mean_estimate,
    own_place,
    step_estimates,
    student_and_teacher_steps,
    student_loss,
    student_steps,
    teacher_target,
    visited_log_snrs,
)
from lumiere_jax.diffusion.losses import stratified_times
from lumiere_jax.diffusion.samplers import ddim_step, sampling_steps
from lumiere_jax.diffusion.schedule import CosineSchedule
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime.errors import UserError
from tests.diffusion.loop import sample

MEAN, DEVIATION = 0.3, 0.5


@pytest.fixture(name="float64")
def fixture_float64():
    with jax.enable_x64(True):
        yield


def amplitudes(log_snr):
    """alpha and sigma in NumPy; infinite log-SNRs are clean data."""
    return np.sqrt(1 / (1 + np.exp(-log_snr))), np.sqrt(1 / (1 + np.exp(log_snr)))


def best_estimate(z, log_snr, np=np):
    """The exact denoiser of data N(MEAN, DEVIATION^2), of NumPy or jax.numpy."""
    alpha, sigma = np.sqrt(1 / (1 + np.exp(-log_snr))), np.sqrt(1 / (1 + np.exp(log_snr)))
    gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
    return MEAN + gain * (z - alpha * MEAN)


def denoise(z, log_snr):
    return best_estimate(z, log_snr.reshape(-1, *(1,) * (z.ndim - 1)), jnp)


def reference(z, log_snrs, estimate=best_estimate):
    """The teacher's steps one by one, then arXiv 2202.00512, algorithm 2: the target and the end.

    Args:
      z: of one noise level.
      log_snrs: [k + 1].
      estimate: `estimate(z, log_snr)`.
    """
    end = z
    for now, after in zip(log_snrs[:-1], log_snrs[1:], strict=True):
        (alpha, sigma), (alpha_next, sigma_next) = amplitudes(now), amplitudes(after)
        x0 = estimate(end, now)
        end = alpha_next * x0 + sigma_next / sigma * (end - alpha * x0)
    (alpha, sigma), (alpha_end, sigma_end) = amplitudes(log_snrs[0]), amplitudes(log_snrs[-1])
    ratio = sigma_end / sigma
    return (end - ratio * z) / (alpha_end - ratio * alpha), end


@pytest.mark.parametrize("log_snrs", [(-9.0, -4.0, -1.0), (-3.0, 0.0, 2.0, np.inf), (1.0, np.inf)])
def test_target_of_gaussian_data_is_that_of_the_paper(float64, log_snrs):
    z = np.random.default_rng(0).normal(size=(3, 4, 2))
    levels = np.repeat(np.array(log_snrs)[:, None], 3, axis=1)
    target, end = jax.jit(lambda z: teacher_target(denoise, z, jnp.asarray(levels)))(z)
    expected_target, expected_end = reference(z, log_snrs)
    np.testing.assert_allclose(target, expected_target, rtol=1e-9)
    np.testing.assert_allclose(end, expected_end, rtol=1e-9)


def test_each_sample_has_noise_levels_of_its_own():
    z = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    levels = np.array([[-6.0, -2.0, 1.0], [-1.0, 2.0, np.inf]], np.float32)
    target, end = teacher_target(denoise, jnp.asarray(z), jnp.asarray(levels.T))
    for i in range(2):
        expected = reference(z[i].astype(np.float64), levels[i].astype(np.float64))
        np.testing.assert_allclose(target[i], expected[0], atol=2e-6)
        np.testing.assert_allclose(end[i], expected[1], atol=2e-6)
    # In the last step it is what the teacher saw there, bit for bit.
    seen = []
    levels = jnp.asarray(levels.T[:, 1:])

    def remember(z, log_snr):
        x0 = denoise(z, log_snr)
        jax.debug.callback(seen.append, x0)
        return x0

    target, end = teacher_target(remember, jnp.asarray(z[1:]), levels)
    jax.effects_barrier()
    np.testing.assert_array_equal(target, seen[-1])
    np.testing.assert_array_equal(end, seen[-1])


@jax.jit
def one_step_and_many(z, estimates, levels):
    """Where the student and its teacher end, with estimates [k, ...] that are given."""

    def denoise(z, log_snr):
        return estimates[jnp.argmin(abs(levels - log_snr[0]))][None]

    target, end = teacher_target(denoise, z, levels[:, None])
    return target, end, ddim_step(z, target, levels[:1], levels[-1:])


@given(
    start=st.floats(-20, 5),
    gaps=st.lists(st.floats(0.05, 8), min_size=1, max_size=4),
    to_data=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_one_step_with_the_target_lands_where_the_teacher_does(start, gaps, to_data, seed):
    """Whatever the teacher estimates, and whatever the noise levels."""
    levels = np.cumsum([start, *gaps])
    levels[-1] = np.inf if to_data else levels[-1]
    generator = np.random.default_rng(seed)
    estimates = generator.uniform(-1, 1, (len(gaps), 6))
    z = generator.normal(size=(1, 6))
    with jax.enable_x64(True):
        target, end, landed = one_step_and_many(z, estimates, levels)
    queue = iter(estimates)
    _, expected = reference(z, levels, lambda z, log_snr: next(queue))
    np.testing.assert_allclose(end, expected, atol=1e-9)
    np.testing.assert_allclose(landed, expected, atol=1e-9)
    assert (np.asarray(target) <= estimates.max(axis=0) + 1e-12).all()
    assert (np.asarray(target) >= estimates.min(axis=0) - 1e-12).all()


def test_weights_are_a_mean(float64):
    levels = jnp.asarray([[-21.0, -3.0], [-20.0, 4.0], [9.0, jnp.inf]])
    weights = np.asarray(estimate_weights(levels))
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-12)
    assert (weights >= 0).all()
    np.testing.assert_array_equal(weights[:, 1], [0, 1])


@pytest.mark.parametrize(
    "schedule",
    [
        CosineSchedule(shift=-6.0),
        CosineSchedule(),
        CosineSchedule(spacing=Spacing(2.0)),
        DiscreteSchedule("trailing"),
    ],
)
@pytest.mark.parametrize(("teacher", "student"), [(8, 4), (12, 3), (4, 4), (2, 1)])
def test_table_holds_what_the_samplers_visit(schedule, teacher, student):
    table = np.asarray(visited_log_snrs(schedule, teacher, student))
    assert table.shape == (student, teacher // student + 1)
    np.testing.assert_allclose(
        table[:, :-1].ravel(), sampling_steps(schedule, teacher).log_snr, atol=1e-4
    )
    np.testing.assert_allclose(table[:, 0], sampling_steps(schedule, student).log_snr, atol=1e-6)
    np.testing.assert_array_equal(table[:-1, -1], table[1:, 0])
    assert np.isposinf(table[-1, -1])


def test_steps_that_do_not_meet_are_refused():
    with pytest.raises(UserError, match="3 steps cannot learn from 8 steps.*a multiple of 3"):
        visited_log_snrs(CosineSchedule(), 8, 3)
    with pytest.raises(UserError, match="student of 0 steps"):
        visited_log_snrs(CosineSchedule(), 8, 0)
    with pytest.raises(UserError, match="use sampling.timestep_spacing='trailing'"):
        visited_log_snrs(DiscreteSchedule("leading"), 8, 4)
    with pytest.raises(UserError, match="sampling.last_log_snr=0"):
        visited_log_snrs(CosineSchedule(spacing=Spacing(1.0, 10.0)), 8, 4)


def test_a_perfect_student_samples_what_its_teacher_does_in_more_steps(float64):
    schedule = CosineSchedule(shift=-2.0)
    table = visited_log_snrs(schedule, 12, 3)

    def student(z, log_snr):
        row = table[jnp.argmin(abs(table[:, 0] - log_snr[0]))]
        return teacher_target(denoise, z, jnp.repeat(row[:, None], len(z), axis=1))[0]

    keys = jax.random.split(jax.random.key(1), 4)
    few = sample(student, keys, (4, 6), schedule=schedule, num_steps=3)[-1]
    many = sample(denoise, keys, (4, 6), schedule=schedule, num_steps=12)[-1]
    np.testing.assert_allclose(few, many, atol=1e-9)
    teacher = sample(denoise, keys, (4, 6), schedule=schedule, num_steps=3)[-1]
    assert np.abs(few - teacher).max() > 0.01


@given(
    start=st.floats(-20, 5),
    gaps=st.lists(st.floats(0.05, 8), min_size=4, max_size=4),
    to_data=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_several_estimates_lead_where_ddim_does_one_by_one(start, gaps, to_data, seed):
    levels = np.cumsum([start, *gaps])
    levels[-1] = np.inf if to_data else levels[-1]
    generator = np.random.default_rng(seed)
    estimates, z = generator.uniform(-1, 1, (4, 6)), generator.normal(size=(1, 6))
    with jax.enable_x64(True):
        places = jax.vmap(own_place, (None, None, None, 0))
        rows, numbers = jnp.asarray(estimates)[:, None], jnp.arange(4)[:, None]
        led, log_snr = places(rows, jnp.asarray(z), jnp.asarray(levels)[:, None], numbers)
        mean = mean_estimate(rows, jnp.asarray(levels)[None], jnp.asarray(levels)[:1])
    np.testing.assert_allclose(log_snr[:, 0], levels[:4])
    for number in range(4):
        end = z
        if number:
            given_one_by_one = iter(estimates).__next__
            _, end = reference(z, levels[: number + 1], lambda *_, x=given_one_by_one: x())
        np.testing.assert_allclose(led[number], end, atol=1e-9)
    queue = iter(estimates)
    target, _ = reference(z, levels, lambda z, log_snr: next(queue))
    np.testing.assert_allclose(mean, target, atol=1e-7)


def test_every_step_of_the_teacher_is_learnt_as_often():
    table = visited_log_snrs(CosineSchedule(), 12, 3)
    log_snrs, number = student_and_teacher_steps(table, stratified_times(jax.random.key(0), 24))
    assert log_snrs.shape == (5, 24)
    met = np.asarray(log_snrs)[np.asarray(number), np.arange(24)]
    np.testing.assert_allclose(np.sort(met), np.sort(np.repeat(np.asarray(table)[:, :-1], 2)))


def test_a_student_that_says_what_its_teacher_does_has_no_loss_in_any_step(float64):
    """Its four estimates are the teacher's in turn, so at each place that they lead to."""
    table = visited_log_snrs(CosineSchedule(shift=1.0), 8, 2)
    log_snrs, number = student_and_teacher_steps(table, stratified_times(jax.random.key(1), 16))
    z, estimates = jnp.asarray(np.random.default_rng(2).normal(size=(16, 5))), []
    end = z
    for now, after in zip(log_snrs[:-1], log_snrs[1:], strict=True):
        estimates.append(denoise(end, now))
        end = ddim_step(end, estimates[-1], now, after)
    said = step_estimates(jnp.concatenate(estimates, axis=-1), 4)
    target = denoise(*own_place(said, z, log_snrs, number))
    np.testing.assert_allclose(said[number, jnp.arange(16)], target, rtol=1e-8)
    mean = mean_estimate(said, table, log_snrs[0])
    np.testing.assert_allclose(mean, teacher_target(denoise, z, log_snrs)[0], rtol=1e-8)


def numpy_predicted(kind, x0, z, alpha, sigma):
    return {"x0": x0, "epsilon": (z - alpha * x0) / sigma, "v": (alpha * z - x0) / sigma}[kind]


@pytest.mark.parametrize("kind", ["x0", "v", "epsilon"])
@pytest.mark.parametrize("weighting", ["plain", "truncated_snr"])
def test_loss_by_hand(float64, kind, weighting):
    """Eight samples meet each of the student's four steps twice."""
    table = visited_log_snrs(CosineSchedule(shift=1.0), 8, 4)
    log_snrs = student_steps(table, stratified_times(jax.random.key(3), 8))
    log_snr = np.asarray(log_snrs[0])
    np.testing.assert_array_equal(np.sort(log_snr), np.repeat(np.asarray(table)[:, 0], 2))
    z = jnp.asarray(np.random.default_rng(2).normal(size=(8, 5)))
    target, _ = teacher_target(denoise, z, log_snrs)
    loss = student_loss(
        0.4 * z - 0.2, target, jnp.asarray(z), log_snrs[0], kind=kind, weighting=weighting
    )
    for i in range(8):
        row = np.asarray(table)[np.argmin(abs(np.asarray(table)[:, 0] - log_snr[i]))]
        alpha, sigma = amplitudes(row[0])
        target, _ = reference(z[i], row)
        made = 0.4 * z[i] - 0.2
        if weighting == "plain":
            expected = np.mean((made - numpy_predicted(kind, target, z[i], alpha, sigma)) ** 2)
        else:
            back = {
                "x0": made,
                "epsilon": (z[i] - sigma * made) / alpha,
                "v": alpha * z[i] - sigma * made,
            }
            expected = max(np.exp(row[0]), 1) * np.mean((back[kind] - target) ** 2)
        np.testing.assert_allclose(loss[i], expected, rtol=1e-8)


def test_the_teacher_is_no_part_of_the_gradient_and_its_own_student_has_no_loss():
    log_snrs = student_steps(visited_log_snrs(CosineSchedule(), 4, 4), jnp.arange(4) / 4)
    z = jax.random.normal(jax.random.key(0), (4, 3))

    def loss(gain, student_gain):
        target, _ = teacher_target(lambda z, log_snr: gain * denoise(z, log_snr), z, log_snrs)
        prediction = student_gain * denoise(z, log_snrs[0])
        return student_loss(prediction, target, z, log_snrs[0], kind="x0").mean()

    assert jax.grad(loss)(1.1, 0.7) == 0
    assert abs(jax.grad(loss, 1)(1.1, 0.7)) > 0.01
    np.testing.assert_allclose(loss(0.9, 0.9), 0, atol=1e-8)


def test_unknown_weighting(without_annotations):
    x = jnp.zeros((1, 2))
    with pytest.raises(UserError, match="weighting 'snr' is unknown; use one of plain, truncated"):
        student_loss(x, x, x, jnp.zeros(1), kind="x0", weighting="snr")
