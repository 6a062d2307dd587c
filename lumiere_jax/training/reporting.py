"""What a training run says of its steps: loss, rates, goodput, a profile; and when it must stop."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.models.parameters import Params, leaf_name
from lumiere_jax.runtime.distributed import is_primary, say
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.metric_writer import create_writer
from lumiere_jax.runtime.progress import Progress


class NonFiniteError(RuntimeError):
    """The loss or a gradient became NaN or infinite; the message names the first bad leaf."""


class Goodput:
    """The share of the wall time that went into training steps.

    Everything else counts as lost: start, compilation, restoring, evaluation, samples, and waiting
    for a checkpoint. It is that of this process: a resumed run starts from nothing.
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


class Reporter:
    """Checks, prints and writes the metrics of a run's steps.

    A step is reported when the next one is under way, so that no device waits for its metrics.
    clu's `ReportProgress` writes to a log and to notes of a work unit; a person at a terminal
    wants the time that is left, in one line.
    """

    def __init__(
        self, stage: Stage, trainable: Params, workdir: str | Path, first_step: int, begin: float
    ):
        """Starts all clocks.

        `trainable` are the trained parameters or their shapes, for their names; `first_step` is the
        number of steps that were done before, and `begin` of `Goodput`.
        """
        self._config, self._trainable = stage.config.train, trainable
        self._writer = create_writer(workdir, first_step)
        quiet, total = not is_primary(), self._config.num_steps
        self._progress = Progress(stage.name, total, "steps", first_step, quiet=quiet)
        self._last_step, self._last_time = first_step, time.monotonic()
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self.goodput = Goodput(begin)

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just started, and reports the one before."""
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Waits for the last step, and reports it; a `NonFiniteError` if it went wrong."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        check_finite(metrics, step, self._trainable)
        loss, clips = float(metrics["loss"]), self._config.batch_size
        if step % self._config.log_every == 0 or step == self._config.num_steps:
            rate = self._rate(step)
            scalars = {
                "loss": loss,
                "gradient_norm": float(metrics["gradient_norm"]),
                "steps_per_second": rate,
                "clips_per_second": rate * clips,
                "goodput": self.goodput.value(),
            }
            self._writer.write_scalars(step, scalars)
        self._progress.update(step, f"loss {loss:.4f}, {clips} clips/step")

    def write(self, step: int, **scalars: float) -> None:
        """Writes further metrics of a step."""
        self._writer.write_scalars(step, scalars)

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()

    def _rate(self, step: int) -> float:
        """Steps per second since the last call."""
        now = time.monotonic()
        rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
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


def parse_profile_steps(text: str) -> tuple[int, int] | None:
    """Reads `--profile_steps=FIRST:LAST`; None for an empty text."""
    if not text:
        return None
    parts = text.split(":")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        first, last = int(parts[0]), int(parts[1])
        if 1 <= first <= last:
            return first, last
    raise UserError(f"--profile_steps={text}: give the first and the last step, such as 10:15.")


class ProfilerWindow:
    """Runs JAX's profiler from the beginning of one step to the end of another.

    clu's `Profile` chooses its own last step, and leaves nothing of a run that ends before it.
    """

    def __init__(self, workdir: str | Path, steps: tuple[int, int] | None):
        """Profiles `steps`, first and last, into `WORKDIR/profile`; nothing if None."""
        self._folder, self._steps, self._running = (
            epath.Path(workdir).expanduser() / "profile",
            steps,
            False,
        )

    def before(self, step: int) -> None:
        """Starts the profiler if `step` is the first of the window."""
        if self._steps and not self._running and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Stops it when the last step, which made `result`, is done."""
        if self._running and self._steps and step >= self._steps[1]:
            jax.block_until_ready(result)
            self.close()
            say(f"wrote a profile of steps {self._steps[0]} to {step} to {self._folder}")

    def close(self) -> None:
        """Stops it, if it runs."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
