"""What a training run says of its steps: loss, rates and goodput; and when it must stop."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.models.parameters import Params, leaf_name
from lumiere_jax.runtime.metric_writer import MetricsWriter
from lumiere_jax.runtime.progress import Progress

Pending = tuple[int, dict[str, jax.Array]]


class NonFiniteError(RuntimeError):
    """The loss or a gradient became NaN or infinite; the message names the first bad leaf."""


class Goodput:
    """The share of the wall time that went into training steps.

    Everything else counts as lost: start, compilation, restoring, evaluation, samples, and waiting
    for a checkpoint. It is that of this process: a resumed run starts anew.
    """

    def __init__(self, begin: float):
        """All time from `begin` (`time.monotonic`) until now, the first step's start, is lost."""
        self._begin, self._lost = begin, time.monotonic() - begin

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """What happens inside is not training."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._lost += time.monotonic() - begin

    def value(self) -> float:
        """Productive time over wall time, in [0, 1]."""
        wall = time.monotonic() - self._begin
        return max(0.0, 1.0 - self._lost / wall) if wall > 0 else 0.0


class RateWindow:
    """Steps per second since the last report."""

    def __init__(self, step: int):
        """Starts at `step`."""
        self._step, self._time = step, time.monotonic()

    def rate(self, step: int) -> float:
        """Steps per second since the last call."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return rate


def check_finite(metrics: dict[str, jax.Array], step: int, trainable: Params) -> None:
    """Raises NonFiniteError, with the first bad leaf's name, if a step went wrong."""
    bad, loss = int(metrics["bad_leaf"]), float(metrics["loss"])
    if bad >= 0 or not np.isfinite(loss):
        where = f"the gradient of {leaf_name(trainable, bad)!r}" if bad >= 0 else "the loss alone"
        raise NonFiniteError(
            f"step {step}: loss {loss}; the first value that is not finite is in {where}. Nothing "
            "of this step was saved. Lower the learning rate, look at the data of this step, or "
            "compute in float32."
        )


def report(
    pending: Pending,
    config: ConfigDict,
    trainable: Params,
    writer: MetricsWriter,
    progress: Progress,
    window: RateWindow,
    goodput: Goodput,
) -> None:
    """Checks and writes the metrics of a step that the device has left behind."""
    step, metrics = pending
    check_finite(metrics, step, trainable)
    loss = float(metrics["loss"])
    if step % config.train.log_every == 0 or step == config.train.num_steps:
        rate = window.rate(step)
        scalars = {
            "loss": loss,
            "gradient_norm": float(metrics["gradient_norm"]),
            "steps_per_second": rate,
            "clips_per_second": rate * config.train.batch_size,
            "goodput": goodput.value(),
        }
        writer.write(step, scalars)
    clips = config.train.batch_size
    progress.update(step, f"loss {loss:.4f}, {clips} clips/step")
