"""When a run evaluates, saves a checkpoint and makes samples: every so many steps, or minutes."""

import time
from collections.abc import Callable
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
    `train.log_every` steps, since all processes must then hear of them.
    """

    def __init__(self, settings: TrainConfig, clock: Callable[[], float] = time.monotonic):
        """Starts the clock, which is in seconds."""
        s = settings
        self._log_every, self._num_steps, self._clock = s.log_every, s.num_steps, clock
        self._evaluation = _Every(s.eval_every, s.eval_minutes)
        self._checkpoint = _Every(s.checkpoint_every, s.checkpoint_minutes)
        self._samples = _Every(s.sample_every, s.sample_minutes)
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
        snapshots = self._snapshot_every and (is_last or step % self._snapshot_every == 0)
        return Due(evaluates, saves or is_last, shows, bool(snapshots))

    def _minutes(self, step: int) -> float:
        """Minutes since the start, as all processes agree on; 0 where nobody looks."""
        if step % self._log_every or not any(each.minutes for each in self._all):
            return 0.0
        return seconds_of_primary(self._clock() - self._begin) / 60.0


class _Every:
    """One thing that is done again and again."""

    def __init__(self, steps: int, minutes: float):
        self.steps, self.minutes, self._last = steps, minutes, 0.0

    def is_due(self, step: int, minutes: float) -> bool:
        if not self.minutes or not self.steps:
            return self.steps > 0 and step % self.steps == 0
        if minutes - self._last < self.minutes:
            return False
        self._last = minutes
        return True
