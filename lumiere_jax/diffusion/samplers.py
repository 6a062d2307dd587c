"""From noise to data: DDIM, DDPM and DPM-Solver++(2M), each as a pair of pure functions.

A loop over the steps carries the samples and the sampler's state; see
`inference.sampling.StageSampler.sample`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from lumiere_jax.diffusion.discrete import log_variance
from lumiere_jax.diffusion.parameterization import expand_to
from lumiere_jax.diffusion.sampler_names import SamplerName
from lumiere_jax.diffusion.schedule import Schedule, alpha_sigma
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime.errors import UserError

Samples = Float[Array, " batch *shape"]
Keys = Shaped[Array, "batch *raw"]
"""A PRNG key for each sample, typed `[batch]` or raw `[batch, 2]`."""


class Step(NamedTuple):
    """One step from the noise level "now" to "next"; `[num_steps, …]` before the scan.

    Levels are of all samples, or `[batch]`.
    """

    number: Int[Array, "*steps"]
    log_snr: Float[Array, "*steps_and_batch"]
    log_snr_next: Float[Array, "*steps_and_batch"]
    correction: Float[Array, "*steps_and_batch"]  # Weight of DPM-Solver++(2M)'s second-order term.

    def levels(self, z: Samples) -> tuple[Array, Array]:
        """The log-SNRs "now" and "next", to be broadcast to samples."""
        return expand_to(self.log_snr, z), expand_to(self.log_snr_next, z)


class Estimate(NamedTuple):
    """What a denoiser makes of noisy samples, both of their shape."""

    x0: Samples  # clean data
    fraction: Samples | None = None  # of a learned variance, see `discrete.log_variance`


class Sampler(NamedTuple):
    """A sampler, as a pair of pure functions.

    `init(z)` gives the state before the first step, and `step(z, state, estimate, step, keys)` the
    samples at the next noise level and the next state. A sample's randomness comes from its own key
    and the step's number.
    """

    init: Callable[[Samples], Any]
    step: Callable[[Samples, Any, Estimate, Step, Keys], tuple[Samples, Any]]


def create(name: SamplerName, eta: jax.typing.ArrayLike | None = None) -> Sampler:
    """The sampler of that name.

    `eta` is of "ddim" alone: the share of fresh noise, which may be traced; None is deterministic
    and draws none, 1 equals "ancestral".
    """
    if name == "dpmpp_2m":  # its state is the estimate of the step before
        return Sampler(jnp.zeros_like, _dpmpp_2m)
    moves: dict[str, Callable[..., Samples]] = {
        "ddim": functools.partial(_ddim, eta=eta), "ancestral": _ancestral, "ddpm": _ddpm,
    }  # fmt: skip
    return _stateless(moves[name])


def sampling_steps(
    schedule: Schedule,
    num_steps: int,
    start_time: jax.typing.ArrayLike = 1.0,
    spacing: Spacing | None = None,
) -> Step:
    """All steps from `start_time` on; the last one ends at infinite SNR, where z is x0.

    The time and the spacing may be traced, see `Schedule.sampling_log_snrs`.
    """
    return steps_at(schedule.sampling_log_snrs(num_steps, start_time, spacing))


def steps_at(log_snr: Float[Array, " num_steps"]) -> Step:
    """The steps that begin at rising log-SNRs; the last one ends at infinite SNR."""
    width = jnp.diff(log_snr)
    # 1 / (2 r), r the ratio of the step before to this one; first order at both ends, and after
    # the repeated levels of a discrete schedule.
    moved = width[:-1] > 0
    ratio = jnp.where(moved, width[1:] / jnp.where(moved, width[:-1], 1.0), 0.0)
    correction = jnp.zeros_like(log_snr).at[1:-1].set(0.5 * ratio)
    log_snr_next = jnp.append(log_snr[1:], jnp.inf)
    return Step(jnp.arange(len(log_snr)), log_snr, log_snr_next, correction)


def normal(keys: Keys, stream: jax.typing.ArrayLike, shape: tuple[int, ...]) -> Samples:
    """Standard normal noise of `shape`, each sample from its own key and the stream's number.

    Stream 0 is the starting noise, i + 1 that of step i.
    """
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, stream)
    return jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(keys)


def ddim_step(
    z: Samples, x0: Samples, log_snr: Float[Array, "*level"], log_snr_next: Float[Array, "*level"]
) -> Samples:
    """One deterministic DDIM step (arXiv 2010.02502, equation 12 with sigma 0).

    From `z` and the estimate of clean data there to the samples at `log_snr_next`, which is
    infinite for clean data.
    """
    alpha, sigma = alpha_sigma(expand_to(log_snr, z))
    alpha_next, sigma_next = alpha_sigma(expand_to(log_snr_next, z))
    epsilon = (z - alpha * x0) / sigma
    return alpha_next * x0 + sigma_next * epsilon


def _stateless(move: Callable[[Samples, Estimate, Step, Keys], Samples]) -> Sampler:
    """A sampler that remembers nothing from step to step."""
    return Sampler(
        init=lambda z: (),
        step=lambda z, state, estimate, step, keys: (move(z, estimate, step, keys), state),
    )


def _ddim(
    z: Samples, estimate: Estimate, step: Step, keys: Keys, *, eta: jax.typing.ArrayLike | None
) -> Samples:
    """DDIM (arXiv 2010.02502, equations 12 and 16).

    It keeps the implied noise but for a fresh part of standard deviation `eta` times DDPM's. In
    log-SNRs the posterior variance is `sigma_next^2 fresh` with
    `fresh = 1 - exp(log_snr - log_snr_next)`.
    """
    if eta is None:
        return ddim_step(z, estimate.x0, step.log_snr, step.log_snr_next)
    log_snr, log_snr_next = step.levels(z)
    alpha, sigma = alpha_sigma(log_snr)
    alpha_next, sigma_next = alpha_sigma(log_snr_next)
    epsilon = (z - alpha * estimate.x0) / sigma
    fresh = -jnp.expm1(log_snr - log_snr_next) * jnp.square(expand_to(eta, z))
    epsilon = jnp.sqrt(1.0 - fresh) * epsilon
    epsilon += jnp.sqrt(fresh) * normal(keys, step.number + 1, z.shape)
    return alpha_next * estimate.x0 + sigma_next * epsilon


def _ancestral(z: Samples, estimate: Estimate, step: Step, keys: Keys) -> Samples:
    """DDPM (arXiv 2006.11239, equations 6 and 7): a draw from the posterior given z and x0."""
    log_snr, log_snr_next = step.levels(z)
    _, sigma_next = alpha_sigma(log_snr_next)
    fresh = -jnp.expm1(log_snr - log_snr_next)
    noise = normal(keys, step.number + 1, z.shape)
    return _posterior_mean(z, estimate.x0, step) + sigma_next * jnp.sqrt(fresh) * noise


def _ddpm(z: Samples, estimate: Estimate, step: Step, keys: Keys) -> Samples:
    """DDPM with the variance that the network has learned (arXiv 2102.09672, equation 15)."""
    if estimate.fraction is None:
        raise UserError("sampler 'ddpm' needs a learned variance; use 'ancestral' without.")
    mean = _posterior_mean(z, estimate.x0, step)
    # The last step has no variance, nor has one to the same level; another level keeps NaN out.
    log_snr, log_snr_next = step.levels(z)
    is_exact = jnp.isinf(log_snr_next) | (log_snr_next == log_snr)
    finite = jnp.where(is_exact, log_snr + 1.0, log_snr_next)
    fraction = estimate.fraction.astype(z.dtype)
    deviation = jnp.exp(0.5 * log_variance(fraction, log_snr, finite))
    noise = normal(keys, step.number + 1, z.shape)
    return mean + jnp.where(is_exact, 0.0, deviation * noise)


def _posterior_mean(z: Samples, x0: Samples, step: Step) -> Samples:
    log_snr, log_snr_next = step.levels(z)
    alpha, sigma = alpha_sigma(log_snr)
    alpha_next, sigma_next = alpha_sigma(log_snr_next)
    fresh = -jnp.expm1(log_snr - log_snr_next)
    return alpha * jnp.square(sigma_next / sigma) / alpha_next * z + alpha_next * fresh * x0


def _dpmpp_2m(
    z: Samples, previous_x0: Samples, estimate: Estimate, step: Step, keys: Keys
) -> tuple[Samples, Samples]:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2), first order in the first and last step.

    The x0 estimate is extrapolated linearly in log-SNR from two steps.
    """
    log_snr, log_snr_next = step.levels(z)
    _, sigma = alpha_sigma(log_snr)
    alpha_next, sigma_next = alpha_sigma(log_snr_next)
    x0 = estimate.x0 + expand_to(step.correction, z) * (estimate.x0 - previous_x0)
    # exp(-h) - 1 with h the step in log(alpha / sigma), half of the log-SNR.
    decay = jnp.expm1(0.5 * (log_snr - log_snr_next))
    return sigma_next / sigma * z - alpha_next * decay * x0, estimate.x0
