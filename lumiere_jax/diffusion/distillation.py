"""Distillation: a student whose one DDIM step does what its teacher does in several.

"progressive" is Salimans & Ho, arXiv 2202.00512, whose teacher takes two steps for one of the
student's: one estimate is to stand for all of the teacher's. "parallel" predicts them all at once,
each by output channels of its own, the idea of parallel decoding distillation (arXiv 2607.26004).
There the teacher is asked in one of its steps alone, at the place that the student's own estimates
of the steps before it lead to, so that it corrects what the student really does, and a training
step costs the same whatever number of steps one call stands for.

Where the teacher's estimates are guided, the student learns guidance as well (Meng et al., arXiv
2210.03142, here for one guidance scale) and needs none of its own.

In units of `r = alpha / sigma` a deterministic DDIM step is a straight line, `z / sigma` moves by
`(r_next - r) x0`. Hence the one estimate that leads from the first noise level to the last in one
step is the mean of the teacher's estimates, weighted by how far r rises in each of its steps. That
is exact, needs no division by small numbers, and stays in the range of the teacher's estimates; in
the last step, to clean data, where r is infinite, it is the teacher's last estimate.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from lumiere_jax.diffusion import parameterization
from lumiere_jax.diffusion.parameterization import Kind, expand_to, to_x0
from lumiere_jax.diffusion.samplers import ddim_step
from lumiere_jax.diffusion.schedule import Schedule, alpha_sigma
from lumiere_jax.runtime.errors import UserError

Method = Literal["progressive", "parallel"]
StudentWeighting = Literal["plain", "truncated_snr"]
STUDENT_WEIGHTINGS: tuple[str, ...] = get_args(StudentWeighting)


def visited_log_snrs(
    schedule: Schedule, teacher_steps: int, student_steps: int
) -> Float[Array, "student per_student_and_1"]:
    """Log-SNRs that student and teacher visit in their DDIM steps from noise to data.

    Row i holds those from the beginning of the student's step i to its end, which is infinite in
    the last row. A teacher that does not visit the student's noise levels is a `UserError`. Call it
    outside of a trace.
    """
    if student_steps < 1 or teacher_steps % student_steps:
        raise UserError(
            f"a student of {student_steps} steps cannot learn from {teacher_steps} steps of its "
            f"teacher; use a multiple of {student_steps}."
        )
    stride = teacher_steps // student_steps
    teacher = _visited(schedule, teacher_steps)
    student = _visited(schedule, student_steps)
    if not np.allclose(teacher[:-1:stride], student[:-1], rtol=0, atol=1e-3):
        raise UserError(
            f"{student_steps} steps of this schedule do not begin where every step number "
            f"{stride} of {teacher_steps} does; use sampling.timestep_spacing='trailing' with the "
            'schedule "discrete", and sampling.last_log_snr=0 with "cosine".'
        )
    inside = teacher[:-1].reshape(student_steps, stride)[:, 1:]
    table = np.concatenate([student[:-1, None], inside, student[1:, None]], axis=1)
    return jnp.asarray(table)


def _visited(schedule: Schedule, num_steps: int) -> np.ndarray:
    log_snr = np.asarray(schedule.sampling_log_snrs(num_steps))
    return np.append(log_snr, np.asarray(np.inf, log_snr.dtype))


def estimate_weights(
    log_snrs: Float[Array, " k_and_1 *batch"],
) -> Float[Array, " k_and_1-1 *batch"]:
    """How much each of the teacher's estimates counts, see the head of this file.

    It is `(r[j + 1] - r[j]) / (r[k] - r[0])`: positive, and of sum 1. The log-SNRs rise along the
    first axis; the last may be infinite.
    """
    # Relative to the last one, so that an infinite one is like any other.
    ratio = jnp.exp(0.5 * (log_snrs[:-1] - log_snrs[-1:]))
    ratio = jnp.concatenate([ratio, jnp.ones_like(ratio[:1])])
    return jnp.diff(ratio, axis=0) / (1.0 - ratio[0])


def teacher_target(
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
    z: Float[Array, " batch *axes"],
    log_snrs: Float[Array, "k_and_1 batch"],
) -> tuple[Float[Array, " batch *axes"], Float[Array, " batch *axes"]]:
    """Runs the teacher, and solves for the x0 that takes the student to the same place in one step.

    Args:
      denoise: the teacher, `denoise(z, log_snr)`: its estimate of clean data, guided and
        thresholded as at sampling.
      z: noisy samples, in float32 or wider.
      log_snrs: where the teacher's k steps begin, and where the last one ends; rising.

    Returns:
      That x0, and the place where the teacher ends.
    """
    steps = (log_snrs[:-1], log_snrs[1:], estimate_weights(log_snrs))

    def step(carry: tuple[jax.Array, jax.Array], now: tuple[jax.Array, ...]):
        z, mean = carry
        log_snr, log_snr_next, weight = now
        x0 = denoise(z, log_snr).astype(z.dtype)
        mean = mean + expand_to(weight.astype(z.dtype), z) * x0
        return (ddim_step(z, x0, log_snr, log_snr_next).astype(z.dtype), mean), None

    (end, target), _ = jax.lax.scan(step, (z, jnp.zeros_like(z)), steps)
    return target, end


def student_steps(
    table: Float[Array, "steps k_and_1"], time: Float[Array, " batch"]
) -> Float[Array, "k_and_1 batch"]:
    """The noise levels of the teacher's k steps within the student's step that a sample learns.

    The table is of `visited_log_snrs`, and times are uniform in [0, 1), so each step is as likely.
    """
    step = jnp.floor(time * len(table)).astype(int)
    return table[jnp.minimum(step, len(table) - 1)].T


def student_and_teacher_steps(
    table: Float[Array, "steps k_and_1"], time: Float[Array, " batch"]
) -> tuple[Float[Array, "k_and_1 batch"], Int[Array, " batch"]]:
    """Those of `student_steps`, and the one of the k steps that the teacher is asked in.

    Stratified times meet every pair of them as often.
    """
    steps, k = len(table), table.shape[1] - 1
    inside = jnp.floor(time * steps * k).astype(int) % k
    return student_steps(table, time), inside


def step_estimates(
    prediction: Shaped[Array, " *axes_and_channels"], k: int
) -> Shaped[Array, " k *axes_and_fewer_channels"]:
    """A prediction of k steps at once, in channels one step after the other, taken apart."""
    return jnp.stack(jnp.split(prediction, k, axis=-1))


def mean_estimate(
    estimates: Float[Array, " k batch *axes"],
    table: Float[Array, "steps k_and_1"],
    log_snr: Float[Array, " batch"],
) -> Float[Array, " batch *axes"]:
    """The one estimate that stands for those of k steps, see the head of this file.

    They may be predictions of any kind, as all are at one `z`. The table is of `visited_log_snrs`;
    elsewhere than where a student's step begins, the weights are those of the next one.
    """
    step = jnp.argmin(jnp.abs(table[:, :1] - log_snr), axis=0)
    weights = estimate_weights(table.T)[:, step].astype(estimates.dtype)
    return jnp.sum(expand_to(weights, estimates) * estimates, axis=0)


def own_place(
    estimates: Float[Array, " k batch *axes"],
    z: Float[Array, " batch *axes"],
    log_snrs: Float[Array, "k_and_1 batch"],
    number: Int[Array, " batch"],
) -> tuple[Float[Array, " batch *axes"], Float[Array, " batch"]]:
    """Where the first `number` of k estimates of clean data lead by DDIM, and the log-SNR there.

    Each sample of `z`, at the first of the log-SNRs, has a number of its own, from 0 to k - 1.
    """
    log_snr = jnp.take_along_axis(log_snrs, number[None], axis=0)[0]
    is_before = jnp.arange(len(estimates))[:, None] < number
    # Relative to where they lead; what comes later may be infinite, and does not count.
    ratio = jnp.exp(0.5 * jnp.minimum(log_snrs - log_snr, 0.0))
    rise = jnp.where(is_before, jnp.diff(ratio, axis=0), 0.0).astype(z.dtype)
    (alpha, sigma), (_, sigma_first) = alpha_sigma(log_snr), alpha_sigma(log_snrs[0])
    moved = jnp.sum(expand_to(rise, estimates) * estimates, axis=0)
    kept = expand_to((sigma / sigma_first).astype(z.dtype), z)
    return kept * z + expand_to(alpha.astype(z.dtype), z) * moved, log_snr


def student_loss(
    prediction: Float[Array, " batch *axes"],
    target: Float[Array, " batch *axes"],
    z: Float[Array, " batch *axes"],
    log_snr: Float[Array, " batch"],
    *,
    kind: Kind,
    weighting: StudentWeighting = "truncated_snr",
) -> Float[Array, " batch"]:
    """Scores the student's raw prediction of `kind` at `z` by the x0 of `teacher_target`.

    The weighting "plain" is the mean squared error of the predicted kind; "truncated_snr" that of
    x0, times the signal-to-noise ratio but at least 1 (arXiv 2202.00512, section 4).
    An unknown kind or weighting is a `UserError`.
    """
    if weighting not in STUDENT_WEIGHTINGS:
        raise UserError(
            f"distillation.weighting {weighting!r} is unknown; use one of "
            f"{', '.join(STUDENT_WEIGHTINGS)}."
        )
    target, prediction = jax.lax.stop_gradient(target), prediction.astype(z.dtype)
    if weighting == "plain":
        goal = parameterization.convert(target, z, log_snr, "x0", kind)
        return _mean_square(prediction - goal)
    weight = jnp.maximum(jnp.exp(log_snr), 1.0)
    return weight * _mean_square(to_x0(kind, prediction, z, log_snr) - target)


def _mean_square(error: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
