"""Diffusion in steps, with a variance that the network predicts: how DeepFloyd IF is trained.

1000 steps of the squared-cosine schedule (Nichol & Dhariwal, Improved DDPM, arXiv 2102.09672,
section 3.2), ε-prediction, and a variance that lies between two bounds (section 3.1). The network's
last axis holds the prediction and then, in as many channels, where between them.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from lumiere_jax.diffusion.parameterization import Clip, expand_to
from lumiere_jax.diffusion.schedule import LogSnr, Same, Time, alpha_sigma
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

NUM_TIMESTEPS = 1000
MAX_BETA = 0.999
SPACINGS = ("leading", "trailing")
VARIATIONAL_WEIGHT = 0.001  # λ of equation 16 of arXiv 2102.09672


@functools.cache
def log_snr_table() -> Float64[np.ndarray, "1000"]:
    """Log-SNRs of all steps, falling (arXiv 2102.09672, equation 17)."""

    times = np.arange(NUM_TIMESTEPS + 1) / NUM_TIMESTEPS
    signal = np.array([math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2 for time in times])
    ratios = signal[1:] / signal[:-1]
    log_alpha_bar = np.cumsum(np.log(np.maximum(ratios, 1.0 - MAX_BETA)))
    return log_alpha_bar - np.log(-np.expm1(log_alpha_bar))


@dataclasses.dataclass(frozen=True)
class DiscreteSchedule:
    """The squared-cosine schedule in 1000 steps; step t lasts from time t / 1000 to (t + 1) / 1000.

    The spacing says which steps a sampler takes, as `diffusers` names it: "leading" (0 and
    multiples of the stride) or "trailing" (999 and multiples of the stride below); any other is a
    `UserError`.
    """

    spacing: str = "leading"

    def __post_init__(self):
        if self.spacing not in SPACINGS:
            raise UserError(
                f"timestep_spacing {self.spacing!r} is unknown; use one of {', '.join(SPACINGS)}."
            )

    def log_snr(self, time: Time) -> Same:
        """Log-SNR of the step at a time."""
        step = jnp.floor(NUM_TIMESTEPS * jnp.asarray(time, float)).astype(int)
        return jnp.asarray(log_snr_table(), float)[jnp.clip(step, 0, NUM_TIMESTEPS - 1)]

    def time(self, log_snr: LogSnr) -> Same:
        """The middle of the step whose log-SNR is nearest."""
        return (self.network_time(log_snr) + 0.5) / NUM_TIMESTEPS

    def network_time(self, log_snr: LogSnr) -> Same:
        """The number of the step whose log-SNR is nearest, a whole number in [0, 999]."""
        table = log_snr_table()
        borders = jnp.asarray(0.5 * (table[1:] + table[:-1]), float)
        return jnp.searchsorted(-borders, -jnp.asarray(log_snr, float)).astype(float)

    def previous_log_snr(self, log_snr: LogSnr) -> Same:
        """Log-SNR one step nearer to clean data; infinite before the first step."""
        table = jnp.asarray(np.append(np.inf, log_snr_table()), float)
        return table[self.network_time(log_snr).astype(int)]

    def sampling_log_snrs(
        self, num_steps: int, start_time: Time = 1.0, spacing: Spacing | None = None
    ) -> Float[Array, " {num_steps}"]:
        """Log-SNRs of a sampler's steps, rising; more than 1000 are a `UserError`.

        The steps are those of training, so they are not spread otherwise.
        """
        del spacing
        if num_steps > NUM_TIMESTEPS:
            raise UserError(f"steps={num_steps}: this schedule has {NUM_TIMESTEPS} steps.")
        if self.spacing == "leading":
            steps = (NUM_TIMESTEPS // num_steps) * np.arange(num_steps)[::-1]
        else:
            steps = np.round(np.arange(num_steps, 0, -1) * (NUM_TIMESTEPS / num_steps)) - 1
        number = jnp.floor(steps * jnp.asarray(start_time, float))
        return self.log_snr((number + 0.5) / NUM_TIMESTEPS)

    def augment(
        self, image: Float[Array, "*clip"], level: Float[Array, " batch"], noise: Array
    ) -> Float[Array, "*clip"]:
        """Noise-conditioning augmentation with the noise of step 1000 · level, below 1."""
        alpha, sigma = alpha_sigma(expand_to(self.log_snr(level + 0.5 / NUM_TIMESTEPS), image))
        return alpha * image + sigma * noise

    def round_level(self, level: Float[Array, "*shape"]) -> Same:
        """The augmentation level of a step, a multiple of 1 / 1000, at or below `level`."""
        step = jnp.floor(NUM_TIMESTEPS * level)
        return jnp.clip(step, 0, NUM_TIMESTEPS - 1) / NUM_TIMESTEPS


def split_variance(
    prediction: Float[Array, "*clip channels"],
) -> tuple[Float[Array, "*clip channels//2"], Float[Array, "*clip channels//2"]]:
    """The two halves of the last axis: the prediction proper, and the variance's interpolation."""
    first, second = jnp.split(prediction, 2, axis=-1)
    return first, second


def log_variance(
    fraction: Clip, log_snr: Float[Array, "*batch"], log_snr_next: Float[Array, "*batch"]
) -> Clip:
    """Log-variance of a reverse step (arXiv 2102.09672, equation 15).

    It lies between that of the posterior q(z_next | z, x0), `fraction` -1, and that of the forward
    step from "next" to "now", `fraction` 1; "next" is one step nearer to clean data, and finite.
    """
    lower, upper = _bounds(expand_to(log_snr, fraction), expand_to(log_snr_next, fraction))
    share = 0.5 * (fraction + 1.0)
    return share * upper + (1.0 - share) * lower


def _bounds(log_snr: Array, log_snr_next: Array) -> tuple[Array, Array]:
    """Logarithms of the posterior's variance and of beta, 1 - alpha² / alpha_next²."""
    # 1 - exp(log_snr - log_snr_next) is beta / sigma²: no difference of numbers near one.
    fresh = jnp.log(-jnp.expm1(log_snr - log_snr_next))
    return jax.nn.log_sigmoid(-log_snr_next) + fresh, jax.nn.log_sigmoid(-log_snr) + fresh


def variational_bound(
    x0: Clip,
    epsilon: Clip,
    prediction: Clip,
    fraction: Clip,
    log_snr: Float[Array, " batch"],
    log_snr_next: Float[Array, " batch"],
) -> Float[Array, " batch"]:
    """One term of the variational bound, in bits a dimension (arXiv 2102.09672, equations 4 to 6).

    The divergence of the posterior from the network's reverse step or, in the step to clean data,
    the negative log-likelihood of 8-bit pixels. There the posterior has no variance, and the one of
    the step before stands in for it, as in the authors' code.

    Clean data is in [-1, 1], `epsilon` the noise that was added and `prediction` what was predicted
    of it; `fraction` as of `log_variance`. "next" is one step nearer to clean data, where it is
    infinite.
    """
    table = jnp.asarray(log_snr_table()[:2], log_snr.dtype)
    is_last = expand_to(jnp.isinf(log_snr_next), x0)
    now = expand_to(log_snr, x0)
    next_ = jnp.where(is_last, jnp.inf, expand_to(log_snr_next, x0))
    finite = jnp.where(is_last, now + 1.0, next_)  # of the branch that is not taken
    lower, upper = _bounds(now, finite)
    lower = jnp.where(is_last, _bounds(table[1], table[0])[0], lower)
    upper = jnp.where(is_last, jax.nn.log_sigmoid(-now), upper)
    share = 0.5 * (fraction + 1.0)
    variance = share * upper + (1.0 - share) * lower
    # The means differ by the errors of x0, that is of the noise, alone.
    alpha, sigma = alpha_sigma(now)
    alpha_next = jnp.sqrt(jax.nn.sigmoid(next_))
    error = (epsilon - prediction) * sigma / alpha  # predicted x0 - x0
    weight = jnp.where(is_last, 1.0, -jnp.expm1(now - next_) * alpha_next)
    difference = weight * error
    divergence = 0.5 * (
        variance - lower - 1.0 + jnp.exp(lower - variance)
        + jnp.square(difference) * jnp.exp(-variance)
    )  # fmt: skip
    surprise = -_log_likelihood(x0, x0 + difference, 0.5 * variance)
    bits = jnp.where(is_last, surprise, divergence) / math.log(2.0)
    return jnp.mean(bits, axis=tuple(range(1, bits.ndim)))


def _log_likelihood(x0: Clip, mean: Clip, log_scale: Clip) -> Clip:
    """Log-probability of 8-bit pixels under a Gaussian; the outer bins hold its tails."""
    inverse, half_bin = jnp.exp(-log_scale), 1.0 / 255.0
    above = jax.scipy.stats.norm.cdf((x0 - mean + half_bin) * inverse)
    below = jax.scipy.stats.norm.cdf((x0 - mean - half_bin) * inverse)
    probability = jnp.where(x0 > 0.999, 1.0 - below, jnp.where(x0 < -0.999, above, above - below))
    return jnp.log(jnp.maximum(probability, 1e-12))
