"""Noise schedules in continuous time, told as log signal-to-noise ratios.

Throughout, time 0 is clean data, time 1 is noise, and a noisy sample is
`z = alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1` and
`log_snr = log(alpha^2 / sigma^2)`. A log-SNR says everything about a noise level, so the rest
of this package speaks of log-SNRs only and a schedule is no more than a path through them.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Real

from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

Time = Real[ArrayLike, "*shape"]
"""In [0, 1]: 0 is clean data, 1 is noise."""

LogSnr = Real[ArrayLike, "*shape"]
Same = Float[Array, "*shape"]
"""As many numbers as were given."""


@runtime_checkable
class Schedule(Protocol):
    """What samplers and losses need of a schedule: the path and its inverse."""

    def log_snr(self, time: Time) -> Same:
        """Log-SNR (natural logarithm) at a time; it falls with time."""

    def time(self, log_snr: LogSnr) -> Same:
        """Time at which the schedule passes `log_snr`."""

    def network_time(self, log_snr: LogSnr) -> Same:
        """The noise level as networks are told it, in [0, 1000]."""

    def sampling_log_snrs(
        self, num_steps: int, start_time: Time = 1.0, spacing: Spacing | None = None
    ) -> Float[Array, " {num_steps}"]:
        """Log-SNRs at which a sampler's steps begin, rising from that of `start_time`.

        A `spacing` replaces the schedule's own, and may be traced.
        """

    def augment(
        self, image: Float[Array, "*clip"], level: Float[Array, " batch"], noise: Array
    ) -> Float[Array, "*clip"]:
        """Noise-conditioning augmentation of a super-resolution network's input.

        The level is in [0, 1], and the noise standard normal, of the shape of `image`.
        """

    def round_level(self, level: Float[Array, "*shape"]) -> Same:
        """The nearest augmentation level that networks are trained on."""


_FLATTEST = 6.0  # the cosine's log-SNR falls by at least 2 pi · 0.9996 for each unit of time


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    """Cosine schedule, `log_snr = -2 log tan(a t + b) + shift`.

    `a` and `b` are set so that the unshifted log-SNR runs exactly from `log_snr_max` at time 0 to
    `log_snr_min` at time 1 (Salimans & Ho, arXiv 2202.00512; Ho & Salimans, arXiv 2207.12598,
    section 2). The shift moves the whole path (Hoogeboom et al., simple diffusion,
    arXiv 2301.11093, section 3.1); a negative one gives more noise at every time. If it is
    interpolated, it grows with time from 0 (the same, equation 7, with no shift at clean data):
    what is large is decided at as much noise, and fine detail gets its share of times.
    Limits that are exchanged, a shift that would make log-SNRs rise with time, and a spacing that
    is out of range are a `UserError`.
    """

    shift: float = 0.0  # added to the log-SNR at time 1
    is_interpolated: bool = False  # whether less is added at earlier times: shift * time
    log_snr_min: float = -15.0  # log-SNR at time 1, before the shift
    log_snr_max: float = 15.0  # log-SNR at time 0, before the shift
    spacing: Spacing = Spacing()  # of a sampler's steps

    def __post_init__(self):
        if not self.log_snr_min < self.log_snr_max:
            raise UserError(
                f"cosine schedule: log_snr_min={self.log_snr_min} must be below "
                f"log_snr_max={self.log_snr_max}; exchange them or use the defaults -15 and 15"
            )
        if self.is_interpolated and self.shift >= _FLATTEST:
            raise UserError(
                f"diffusion.log_snr_shift={self.shift} must be below {_FLATTEST} if it is "
                "interpolated; shifts of large clips are negative."
            )
        self.spacing.check()

    def log_snr(self, time: Time) -> Same:
        """See `Schedule`."""
        time = jnp.asarray(time, float)
        return self._cosine(time) + self.shift * (time if self.is_interpolated else 1.0)

    def time(self, log_snr: LogSnr) -> Same:
        """See `Schedule`."""
        log_snr = jnp.asarray(log_snr, float)
        if not self.is_interpolated:
            return self._cosine_time(log_snr - self.shift)
        ends = jnp.zeros_like(log_snr), jnp.ones_like(log_snr)

        def halve(_: ArrayLike, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            is_later = self.log_snr(middle) > log_snr
            return jnp.where(is_later, middle, low), jnp.where(is_later, high, middle)

        low, high = jax.lax.fori_loop(0, jnp.finfo(log_snr.dtype).nmant + 10, halve, ends)
        return 0.5 * (low + high)

    def network_time(self, log_snr: LogSnr) -> Same:
        """Unshifted cosine time: `1000 (2 / pi) atan(exp(-log_snr / 2))`; 0 is clean, 1000 noise.

        It depends on the noise level alone and not on the schedule that led there, so a network may
        be trained with one shift and sampled with another.
        """
        return (2000.0 / math.pi) * jnp.arctan(jnp.exp(-0.5 * log_snr))

    def sampling_log_snrs(
        self, num_steps: int, start_time: Time = 1.0, spacing: Spacing | None = None
    ) -> Float[Array, " {num_steps}"]:
        """Log-SNRs at which a sampler's steps begin, see `Spacing`."""
        power, last = self.spacing if spacing is None else spacing
        is_even_in_log_snr = jnp.asarray(last) > 0
        position = jnp.arange(num_steps)
        even_in_time = self.log_snr(start_time * (1.0 - position / num_steps) ** power)
        first = self.log_snr(start_time)
        last = jnp.maximum(last, first)  # a start beyond it leaves nothing but repeated levels
        share = (1.0 - position / max(num_steps - 1, 1)) ** power
        return jnp.where(is_even_in_log_snr, last + (first - last) * share, even_in_time)

    def augment(
        self, image: Float[Array, "*clip"], level: Float[Array, " batch"], noise: Array
    ) -> Float[Array, "*clip"]:
        """A variance-preserving blend with noise, `cos(pi level / 2) x + sin(pi level / 2) noise`.

        It is the noise of cosine time `level` without the cut-off of a schedule, so level 0 changes
        nothing. The technique is of cascaded diffusion (arXiv 2106.15282); level ~ U[0, 1] in
        training is Imagen's (arXiv 2205.11487, section 2.4).
        """
        angle = level.reshape(-1, *(1,) * (image.ndim - 1)) * (0.5 * math.pi)
        return jnp.cos(angle) * image + jnp.sin(angle) * noise

    def round_level(self, level: Float[Array, "*shape"]) -> Same:
        """Every augmentation level is one that networks are trained on."""
        return level

    def _cosine(self, time: Same) -> Same:
        """The log-SNR without its shift."""
        scale, offset = self._angles()
        return -2.0 * jnp.log(jnp.tan(scale * time + offset))

    def _cosine_time(self, log_snr: Same) -> Same:
        scale, offset = self._angles()
        return (jnp.arctan(jnp.exp(-0.5 * log_snr)) - offset) / scale

    def _angles(self) -> tuple[float, float]:
        """The constants a and b."""
        offset = math.atan(math.exp(-0.5 * self.log_snr_max))
        return math.atan(math.exp(-0.5 * self.log_snr_min)) - offset, offset


def with_spacing(schedule: Schedule, spacing: Spacing) -> Schedule:
    """The schedule with its sampling steps spread like that.

    A spacing that is out of range, or not the default where steps are fixed, is a `UserError`.
    """
    if isinstance(schedule, CosineSchedule):
        return dataclasses.replace(schedule, spacing=spacing)
    if spacing != Spacing():
        raise UserError(
            f"time_power={spacing.power} and last_log_snr={spacing.last_log_snr} are of the "
            "schedule 'cosine'; this stage has the schedule 'discrete', so leave them at 1 and 0."
        )
    return schedule


def alpha_sigma(log_snr: LogSnr) -> tuple[Same, Same]:
    """Amplitudes `(alpha, sigma)` of signal and noise, with `alpha^2 + sigma^2 = 1`."""
    return jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(jnp.negative(log_snr)))


def resolution_shift(
    height: int, width: int, num_frames: int = 1, *, reference: tuple[int, int, int] = (64, 64, 1)
) -> float:
    """A log-SNR shift for clips of a given size, to be used as `CosineSchedule.shift`.

    Neighbouring pixels are redundant: averaging n of them removes noise but keeps the coarse
    picture, so a larger clip needs more noise before its layout and motion are really undecided.
    The shift of simple diffusion (arXiv 2301.11093, section 3.1, whose reference is 64x64) is
    `-log(pixels / reference pixels)`. That frames count as pixels do is a choice of this project,
    not of the Lumiere paper, which does not give its schedule. It was measured: of clips with the
    spectrum of real ones, a tenth to a half of the variance is known at log-SNRs that fall by 0.83
    to 0.99 log(frames), from 2 to 40 frames, and with this shift, interpolated, the part of the
    training times in which a clip is decided stays between 41 and 45%; half of it would leave 36%
    (benchmarks/noise_levels.md). The result is never positive.

    `reference` is a `(height, width, frames)` that needs no shift.
    """
    size = height * width * num_frames
    return min(0.0, -math.log(size / math.prod(reference)))
