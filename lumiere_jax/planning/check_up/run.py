"""The run as a whole: its length, its memory, and what it does beside training."""

import math
from collections.abc import Iterator

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.multidiffusion import windows
from lumiere_jax.planning.check_up.finding import Finding, Verdict, at_most
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.topology import GIB
from lumiere_jax.runtime.progress import duration
from lumiere_jax.runtime.sharding import BATCH_AXES

_BACKWARD = 2.0
"""Work of gradients, in forward passes."""

_MOMENTS = {"adamw": 2, "adafactor": 0, "muon": 1}
"""Numbers that an optimizer keeps for each parameter, but for a few."""


def memory(plan: Plan) -> Iterator[Finding]:
    """Whether a training step or, beside its state, one of the samples fits on a chip."""
    needed = f"{plan.needed / GIB:.3g}" if plan.needed else "?"
    limit = f" of {plan.hbm / GIB:.3g}" if plan.hbm else ""
    yield Finding(
        "memory of a step" if plan.mode == "train" else "memory of samples",
        f"{needed}{limit} GiB on a chip",
        "wrong" if not plan.fits else "ok" if plan.hbm else "-",
        "; ".join(plan.advice),
    )


def length(stage: Stage, plan: Plan, clips: int | None) -> Iterator[Finding]:
    """Steps, epochs of a source with so many clips, hours and chip-hours."""
    train = stage.config.train
    seen = train.num_steps * train.batch_size
    told = f"{train.num_steps:,} steps of {train.batch_size:,} clips, {seen:,} in all"
    if clips is not None:
        told += f": {seen / clips:.3g} epochs of {clips:,}"
    if plan.seconds is not None:
        hours = plan.seconds * train.num_steps / 3600
        told += f"; {hours:,.3g} hours, {hours * plan.chips:,.0f} chip-hours"
    enough = clips is None or clips >= train.batch_size or stage.config.data.allow_small
    yield Finding(
        "length of the run",
        told,
        "ok" if enough else "wrong",
        "the source has fewer clips than one batch: add clips, or make the batch smaller",
    )


def pauses(stage: Stage, plan: Plan) -> Iterator[Finding]:
    """The share of time that samples and evaluation take, by calls of the network.

    In forward passes of one clip on a device: a training step is three for each of its clips,
    backward included; a sample as many as it has steps, twice if guided.
    """
    train, seconds = stage.config.train, plan.seconds
    clips = train.batch_size / _parts(plan)
    step = clips * (1.0 + _BACKWARD)
    steps = _steps_between(train.sample_every, train.sample_minutes, seconds)
    samples = _share(_sampling_passes(stage, plan), step, steps)
    steps = _steps_between(train.eval_every, train.eval_minutes, seconds)
    evaluation = _share(train.eval_batches * clips, step, steps)
    verdict = at_most((samples or 0.0) + (evaluation or 0.0), 0.03, 0.06)
    yield Finding(
        "samples, evaluation",
        f"{_percent(samples)} for samples ({_often(train.sample_every, train.sample_minutes)}), "
        f"{_percent(evaluation)} for evaluation ({_often(train.eval_every, train.eval_minutes)})",
        "-" if None in (samples, evaluation) and verdict == "ok" else verdict,
        "make them rarer, or smaller: --config.train.sample_minutes, eval_minutes, eval_batches, "
        "--config.sampling.prompts",
    )


def _share(passes: float, step: float, steps: float | None) -> float | None:
    """Of the time, for what takes some passes after so many steps; None if they are not known."""
    return None if steps is None else passes / (passes + steps * step)


def _percent(share: float | None) -> str:
    return "unknown time" if share is None else f"{share:.1%} of the time"


def _steps_between(every: int, minutes: float, seconds: float | None) -> float | None:
    """How many steps lie between; None where that is for the clock, and a step's time not known.

    `seconds` are those of a step.
    """
    if not every:
        return math.inf
    if not minutes:
        return every
    return 60 * minutes / seconds if seconds else None


def _often(every: int, minutes: float) -> str:
    if not every:
        return "never"
    return f"every {minutes:g} minutes" if minutes else f"every {every:,} steps"


def _sampling_passes(stage: Stage, plan: Plan) -> float:
    """Forward passes on the device that makes most samples, of clips of the size of training."""
    sampling, data = stage.config.sampling, stage.config.data
    rounds = math.ceil(sampling.num_samples / _parts(plan))
    passes = rounds * sampling.num_steps * (1 if sampling.guidance_scale == 1 else 2)
    if not stage.is_super_resolution:
        return passes
    ssr = stage.ssr
    overlap = ssr.overlap if data.num_frames > ssr.window else 0
    number = len(windows(data.num_frames, ssr.window, overlap))
    return passes * number * (data.resolution / ssr.crop) ** 2


def _parts(plan: Plan) -> int:
    return math.prod(plan.mesh[axis] for axis in BATCH_AXES)


def checkpoints(stage: Stage, plan: Plan) -> Iterator[Finding]:
    """The size of a checkpoint, and how often one is written."""
    train = stage.config.train
    size = checkpoint_bytes(plan.trainable, plan.frozen, stage.config)
    told = f"{size / GIB:.3g} GiB {_often(train.checkpoint_every, train.checkpoint_minutes)}"
    steps = _steps_between(train.checkpoint_every, train.checkpoint_minutes, plan.seconds)
    verdict: Verdict = "ok" if train.checkpoint_every else "look"
    if plan.seconds is not None and steps is not None and math.isfinite(steps):
        seconds = plan.seconds * steps
        told += "" if train.checkpoint_minutes else f", which are {duration(seconds)}"
        verdict = "ok" if 300 <= seconds <= 7200 else "look"
    yield Finding(
        "checkpoints",
        told,
        verdict,
        "what is lost if a host fails is the time between two; what is written takes the host's: "
        "5 minutes to 2 hours are usual, --config.train.checkpoint_minutes",
    )


def checkpoint_bytes(trainable: int, frozen: int, config: StageConfig) -> int:
    """Parameters, averages and optimizer in float32, and the frozen parameters in their type."""
    averages = 3 if config.train.ema_snapshots else 1
    copies = 1 + averages + _MOMENTS[config.optimizer.name]
    return 4 * trainable * copies + (2 if config.train.frozen_dtype == "bfloat16" else 4) * frozen
