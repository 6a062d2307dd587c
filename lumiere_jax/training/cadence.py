"""When a run evaluates, saves a checkpoint and makes samples: every so many steps, or minutes."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lumiere_jax.cascade.config import TrainConfig
from lumiere_jax.runtime.distributed import seconds_of_primary


class Due(NamedTuple):
    """What is to be done after a step."""

    evaluates: bool
    saves: bool
    shows: bool
    snapshots: bool  # of averages


class Cadence:
    """Says what is due; the same on all processes of a run.

    Minutes are those of the first process. They are looked at where metrics are written, every
    `train.log_every` steps, since all processes must then hear of them. Where the best checkpoint
    is to be kept, one is saved with each evaluation, or no loss would be that of a checkpoint.
    """

    def __init__(
        self,
        settings: TrainConfig,
        clock: Callable[[], float] = time.monotonic,
        evaluated: float = 0.0,
        shown: float = 0.0,
    ):
        """Starts the clock, which is in seconds.

        `evaluated` and `shown` are the minutes that a run had trained, when it was interrupted,
        since its last evaluation and samples.
        """
        s = settings
        self._log_every, self._num_steps, self._clock = s.log_every, s.num_steps, clock
        self._evaluation = _Every(s.eval_every, s.eval_minutes, -evaluated)
        self._checkpoint = _Every(s.checkpoint_every, s.checkpoint_minutes)
        self._samples = _Every(s.sample_every, s.sample_minutes, -shown)
        self._keeps_best = s.keep_best > 0
        # By steps, so that a run that is resumed has them where it would have had them.
        self._snapshot_every = s.ema_snapshots and -(-s.num_steps // s.ema_snapshots)
        self._all = (self._evaluation, self._checkpoint, self._samples)
        self._begin = clock()

    def at(self, step: int) -> Due:
        """What is due after a step; everything but what never is after the last."""
        is_last = step == self._num_steps
        minutes = self._minutes(step)
        evaluates, saves, shows = (
            each.is_due(step, minutes) or (is_last and each.steps > 0) for each in self._all
        )
        saves = saves or is_last or (evaluates and self._keeps_best)
        snapshots = self._snapshot_every and (is_last or step % self._snapshot_every == 0)
        return Due(evaluates, saves, shows, bool(snapshots))

    def _minutes(self, step: int) -> float:
        """Minutes since the start, as all processes agree on; 0 where nobody looks."""
        if step % self._log_every or not any(each.minutes for each in self._all):
            return 0.0
        return seconds_of_primary(self._clock() - self._begin) / 60.0


def minutes_since(lines: Iterable[dict[str, float]], step: float) -> float:
    """Minutes that a run trained after a step, by the lines of its metrics file."""
    total, before = 0.0, step
    for line in lines:
        if line["step"] > before and line.get("steps_per_second"):
            total += (line["step"] - before) / line["steps_per_second"] / 60.0
            before = line["step"]
    return total


class _Every:
    """One thing that is done again and again."""

    def __init__(self, steps: int, minutes: float, last: float = 0.0):
        self.steps, self.minutes, self._last = steps, minutes, last

    def is_due(self, step: int, minutes: float) -> bool:
        if not self.minutes or not self.steps:
            return self.steps > 0 and step % self.steps == 0
        if minutes - self._last < self.minutes:
            return False
        self._last = minutes
        return True
