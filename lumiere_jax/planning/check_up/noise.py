"""Noise levels: where sampling ends, what training sees, and what augmentation hides."""

import itertools
import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.data.config import DataConfig
from lumiere_jax.diffusion.schedule import resolution_shift
from lumiere_jax.planning.check_up.finding import Finding, at_least, at_most
from lumiere_jax.training.held_out import BANDS

GREY_LEVELS = 127.5
"""Levels of 0 to 255 in a unit of pixels in [-1, 1]."""

_TIMES = 1000


def last_step(stage: Stage) -> Iterator[Finding]:
    """The noise that is left where the last estimate of clean data is made.

    A student in a few steps is trained for them, so there the teacher's steps count.
    """
    distillation, sampling = stage.config.distillation, stage.config.sampling
    steps = distillation.start_steps if distillation else sampling.num_steps
    log_snr = float(stage.schedule.sampling_log_snrs(steps)[-1])
    left = GREY_LEVELS / math.sqrt(1.0 + math.exp(log_snr))
    yield Finding(
        "last sampling step" if not distillation else "teacher's last step",
        f"log-SNR {log_snr:.1f} after {steps} steps: noise of {left:.1f} grey levels is left",
        at_least(log_snr, 9.0, 6.0),
        "detail finer than that noise is never made: end nearer to clean data with "
        "--config.sampling.last_log_snr=10, or take more steps",
    )


def training_times(stage: Stage) -> Iterator[Finding]:
    """The share of training times in each band of log-SNR; above 0 detail is learnt."""
    times = (jnp.arange(_TIMES) + 0.5) / _TIMES
    log_snrs = np.asarray(stage.schedule.log_snr(times))
    counts, _ = np.histogram(log_snrs, [-math.inf, *BANDS, math.inf])
    between = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(BANDS)]
    names = [f"below {BANDS[0]:g}", *between, f"above {BANDS[-1]:g}"]
    shares = zip(names, counts / _TIMES, strict=True)
    bands, detail = ", ".join(f"{name}: {share:.0%}" for name, share in shares), log_snrs > 0
    yield Finding(
        "training times",
        f"{detail.mean():.0%} for detail (log-SNR above 0); {bands}",
        at_least(detail.mean(), 0.25, 0.15),
        "fine detail is hardly trained: --config.diffusion.interpolated_shift=True keeps the shift "
        "where motion is decided and gives detail its times",
    )


def shift(stage: Stage, before: StageConfig | None = None) -> Iterator[Finding]:
    """Whether the shift of the noise levels is that of this clip's frames and size.

    `before` is the config of the stage that this one starts from. Super-resolution starts from a
    clip that decides what is large, and discrete steps are fixed, so neither has a row.
    """
    config = stage.config
    if stage.is_super_resolution or config.diffusion.schedule == "discrete":
        return
    has, data = _shift(config), config.data
    needs = _needed_shift(data, before)
    frames = f"{data.num_frames} frames" if data.num_frames > 1 else "images"
    than = f", of which {before.stage} had {_shift(before):g}" if before else ""
    yield Finding(
        "shift",
        f"log-SNR {has:+.1f}; {frames} of {data.resolution}×{data.resolution} need "
        f"{needs:+.1f} or less{than}",
        at_most(has, needs + 0.3, needs + 1.0),
        "motion and layout are decided at more noise than is trained, so their words stay near "
        f"chance: --config.diffusion.log_snr_shift={needs:.1f}",
    )


def _needed_shift(data: DataConfig, before: StageConfig | None) -> float:
    """By the rule for this size and, from what the stage before had, for what was added to it."""
    size = (data.resolution, data.resolution, data.num_frames)
    needed = resolution_shift(*size)
    if before is None:
        return needed
    start = (before.data.resolution, before.data.resolution, before.data.num_frames)
    return min(needed, _shift(before) + resolution_shift(*size, reference=start))


def _shift(config: StageConfig) -> float:
    return config.diffusion.shift(config.data.num_frames)


def augmentation(stage: Stage) -> Iterator[Finding]:
    """What noise on the low-resolution clip hides of it at sampling, in grey levels."""
    if not stage.is_super_resolution:
        return
    level, factor = stage.ssr.augmentation, stage.ssr.factor
    one, none = jnp.ones((1, 1)), jnp.zeros((1, 1))
    signal = float(stage.schedule.augment(one, jnp.array([level]), none)[0, 0])
    noise = float(stage.schedule.augment(none, jnp.array([level]), one)[0, 0])
    is_upsampled = stage.ssr.noise_on == "upsampled"
    hidden = GREY_LEVELS * noise / signal * (left_by_averaging(factor) if is_upsampled else 1.0)
    yield Finding(
        "augmentation",
        f"level {level:g} at a factor of {factor}: noise of {hidden:.1f} grey levels on a "
        "low-resolution pixel",
        "wrong" if hidden < 5 else "look" if not 8 <= hidden <= 40 else "ok",
        "8 to 40 grey levels hide what is wrong with the base's clips, and leave what is right: "
        "--config.ssr.noise_on=low_resolution, since most of the noise on up-sampled pixels "
        "averages out, or another --config.ssr.augmentation",
    )


def left_by_averaging(factor: int) -> float:
    """Noise on a low-resolution pixel, of that on the pixels of its bilinear up-sampling.

    It is the error of least squares, which knows every pixel that a low-resolution one is part of.
    Along an axis U'U has one number on its diagonal and one beside it, and so an inverse with
    1 / sqrt(own² - 4 shared²) on the diagonal; variances of the two axes multiply.
    """
    weights = (np.arange(factor) + 0.5) / factor
    own, shared = 2.0 * np.sum(weights**2), np.sum(weights * (1.0 - weights))
    return float(1.0 / np.sqrt(own**2 - 4.0 * shared**2))
