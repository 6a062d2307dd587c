"""From noise to data: DDIM, DDPM and DPM-Solver++(2M) in one scan over the steps."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lumiere_jax.diffusion.discrete import log_variance
from lumiere_jax.diffusion.parameterization import add_noise, expand_to
from lumiere_jax.diffusion.sampler_names import SAMPLERS, Sampler
from lumiere_jax.diffusion.schedule import Schedule, alpha_sigma
from lumiere_jax.runtime.errors import UserError

Denoise = Callable[[jax.Array, jax.Array], jax.Array | tuple[jax.Array, jax.Array]]


class Step(NamedTuple):
    """One step from noise level "now" to "next"; scalars, or [num_steps] before the scan."""

    index: jax.Array
    log_snr: jax.Array
    log_snr_next: jax.Array
    correction: jax.Array  # Weight of the second-order term of DPM-Solver++(2M).


def sample(
    denoise: Denoise,
    keys: jax.Array,
    shape: tuple[int, ...],
    *,
    schedule: Schedule,
    num_steps: int,
    sampler: Sampler = "ddim",
    eta: jax.typing.ArrayLike = 0.0,
    initial: jax.Array | None = None,
    start_time: jax.typing.ArrayLike = 1.0,
    noise: jax.Array | None = None,
    return_trajectory: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Draws samples with `num_steps` calls of `denoise`, traced once.

    Times are the schedule's `sampling_times`; the last step ends at clean data, that is, it
    returns the last x0 estimate. A sample's randomness comes from its own key alone, so it does
    not depend on the batch it is made in. Meant to be called under `jax.jit` with `keys`, `eta`,
    `initial`, `start_time` and what `denoise` closes over as traced values.

    Args:
      denoise: `denoise(z, log_snr)`, with z of `shape` and log_snr [batch], gives the estimate of
        clean data, thresholded if that is wanted; the shape of z. Or a pair of it and the
        variance's interpolation, see `discrete.log_variance`, that "ddpm" alone looks at.
      keys: [batch] PRNG keys, or raw ones [batch, 2].
      shape: [batch, ...] of the result.
      schedule: from times to log-SNRs.
      num_steps: at least 1.
      sampler: "ddim" (arXiv 2010.02502, equations 12 and 16), "ancestral" (DDPM, arXiv 2006.11239,
        equations 6 and 7, with the posterior variance), "ddpm" (the same with the variance that the
        network has learned, arXiv 2102.09672, equation 15) or "dpmpp_2m" (DPM-Solver++(2M), arXiv
        2211.01095, algorithm 2, first and last step first order).
      eta: DDIM only; 0 is deterministic, 1 equals "ancestral".
      initial: clean data to start from, of `shape`; noised to `start_time` (SDEdit, arXiv
        2108.01073). None starts from pure noise.
      start_time: in (0, 1]; below 1 it needs `initial`.
      noise: starting noise, of `shape`; drawn from `keys` if None.
      return_trajectory: also return the state after every step.

    Returns:
      Clean data of `shape` in the default float type, and the states [num_steps, *shape] if asked
      for.

    Raises:
      UserError: if the sampler is unknown, `num_steps` or `start_time` is out of range, or "ddpm"
        has no learned variance.
    """
    _check(sampler, num_steps, initial, start_time)
    if keys.shape[0] != shape[0]:
        raise ValueError(f"{keys.shape[0]} keys for a batch of {shape[0]}")
    steps = _steps(schedule, num_steps, start_time)
    if noise is None:
        noise = _normal(keys, 0, shape)
    z = noise if initial is None else add_noise(initial, noise, steps.log_snr[0])
    # DPM-Solver++(2M) alone remembers the estimate of the step before.
    memory = jnp.zeros_like(z) if sampler == "dpmpp_2m" else None
    update = {
        "ddim": partial(_ddim, keys=keys, eta=eta),
        "ancestral": partial(_ancestral, keys=keys),
        "dpmpp_2m": _dpmpp_2m,
        "ddpm": partial(_ddpm, keys=keys),
    }[sampler]

    def body(carry: tuple[jax.Array, jax.Array | None], step: Step):
        z, previous_x0 = carry
        estimate = denoise(z, jnp.full(shape[:1], step.log_snr))
        x0, fraction = estimate if isinstance(estimate, tuple) else (estimate, None)
        x0 = x0.astype(z.dtype)
        extra = fraction if sampler == "ddpm" else previous_x0
        z = update(z, x0, extra, step).astype(z.dtype)
        return (z, None if previous_x0 is None else x0), (z if return_trajectory else None)

    (z, _), trajectory = jax.lax.scan(body, (z, memory), steps)
    return (z, trajectory) if return_trajectory else z


def _check(sampler: str, num_steps: int, initial: jax.Array | None, start_time) -> None:
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: use one of {', '.join(SAMPLERS)}")
    if num_steps < 1:
        raise UserError(f"cannot sample with {num_steps} steps: use 1 or more")
    if isinstance(start_time, jax.core.Tracer):
        return
    if not 0 < start_time <= 1:
        raise UserError(f"start_time={start_time} must be above 0 and at most 1 (pure noise)")
    if initial is None and start_time < 1:
        raise UserError(
            f"start_time={start_time} needs an initial video; use 1 to start from noise"
        )


def _steps(schedule: Schedule, num_steps: int, start_time: jax.typing.ArrayLike) -> Step:
    """Noise levels of all steps; the last one goes to infinite SNR, where z is x0."""
    log_snr = schedule.log_snr(schedule.sampling_times(num_steps, start_time))
    width = jnp.diff(log_snr)
    # 1 / (2 r), r the ratio of the step before to this one; first order at both ends.
    correction = jnp.zeros_like(log_snr).at[1:-1].set(0.5 * width[1:] / width[:-1])
    log_snr_next = jnp.append(log_snr[1:], jnp.inf)
    return Step(jnp.arange(num_steps), log_snr, log_snr_next, correction)


def _normal(keys: jax.Array, stream: jax.typing.ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise of `shape`, each sample from its own key and the stream's number."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, stream)
    return jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(keys)


def ddim_step(
    z: jax.Array, x0: jax.Array, log_snr: jax.Array, log_snr_next: jax.Array
) -> jax.Array:
    """One deterministic DDIM step (arXiv 2010.02502, equation 12 with sigma 0).

    Args:
      z: noisy samples, [batch, ...].
      x0: the estimate of clean data there, same shape.
      log_snr: of z, [batch] or a scalar.
      log_snr_next: where the step ends, likewise; infinite for clean data.

    Returns:
      The samples at `log_snr_next`, same shape.
    """
    alpha, sigma = alpha_sigma(expand_to(log_snr, z))
    alpha_next, sigma_next = alpha_sigma(expand_to(log_snr_next, z))
    epsilon = (z - alpha * x0) / sigma
    return alpha_next * x0 + sigma_next * epsilon


def _ddim(z, x0, _, step: Step, *, keys: jax.Array, eta: jax.typing.ArrayLike) -> jax.Array:
    """DDIM: keeps the implied noise but for a fresh part of standard deviation `eta` times DDPM's.

    In log-SNRs the posterior variance is `sigma_next^2 fresh` with
    `fresh = 1 - exp(log_snr - log_snr_next)`.
    """
    if isinstance(eta, int | float) and eta == 0:
        return ddim_step(z, x0, step.log_snr, step.log_snr_next)
    alpha, sigma = alpha_sigma(step.log_snr)
    alpha_next, sigma_next = alpha_sigma(step.log_snr_next)
    epsilon = (z - alpha * x0) / sigma
    fresh = -jnp.expm1(step.log_snr - step.log_snr_next) * jnp.square(eta)
    epsilon = jnp.sqrt(1.0 - fresh) * epsilon
    epsilon += jnp.sqrt(fresh) * _normal(keys, step.index + 1, z.shape)
    return alpha_next * x0 + sigma_next * epsilon


def _ancestral(z, x0, _, step: Step, *, keys: jax.Array) -> jax.Array:
    """DDPM: a draw from the posterior of z_next given z and x0."""
    _, sigma_next = alpha_sigma(step.log_snr_next)
    fresh = -jnp.expm1(step.log_snr - step.log_snr_next)
    noise = _normal(keys, step.index + 1, z.shape)
    return _posterior_mean(z, x0, step) + sigma_next * jnp.sqrt(fresh) * noise


def _ddpm(z, x0, fraction, step: Step, *, keys: jax.Array) -> jax.Array:
    """DDPM with a learned variance."""
    if fraction is None:
        raise UserError("sampler 'ddpm' needs a learned variance; use 'ancestral' without.")
    mean = _posterior_mean(z, x0, step)
    # The last step has no variance; a finite log-SNR in its place keeps NaN out.
    is_last = jnp.isinf(step.log_snr_next)
    finite = jnp.where(is_last, step.log_snr + 1.0, step.log_snr_next)
    deviation = jnp.exp(0.5 * log_variance(fraction.astype(z.dtype), step.log_snr, finite))
    noise = _normal(keys, step.index + 1, z.shape)
    return mean + jnp.where(is_last, 0.0, deviation * noise)


def _posterior_mean(z, x0, step: Step) -> jax.Array:
    alpha, sigma = alpha_sigma(step.log_snr)
    alpha_next, sigma_next = alpha_sigma(step.log_snr_next)
    fresh = -jnp.expm1(step.log_snr - step.log_snr_next)
    return alpha * jnp.square(sigma_next / sigma) / alpha_next * z + alpha_next * fresh * x0


def _dpmpp_2m(z, x0, previous_x0, step: Step) -> jax.Array:
    """DPM-Solver++(2M): the x0 estimate is extrapolated linearly in log-SNR from two steps."""
    _, sigma = alpha_sigma(step.log_snr)
    alpha_next, sigma_next = alpha_sigma(step.log_snr_next)
    x0 = x0 + step.correction * (x0 - previous_x0)
    # exp(-h) - 1 with h the step in log(alpha / sigma), half of the log-SNR.
    decay = jnp.expm1(0.5 * (step.log_snr - step.log_snr_next))
    return sigma_next / sigma * z - alpha_next * decay * x0
