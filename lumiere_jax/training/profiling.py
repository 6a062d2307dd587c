"""A profile of a few training steps, for TensorBoard or Perfetto."""

from pathlib import Path
from typing import Any

import jax
from etils import epath

from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import UserError


def parse_window(text: str) -> tuple[int, int] | None:
    """Reads `--profile_steps=FIRST:LAST`; None for an empty text.

    Raises:
      UserError: if it is not two numbers, the first not below 1 and not above the last.
    """
    if not text:
        return None
    parts = text.split(":")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        first, last = int(parts[0]), int(parts[1])
        if 1 <= first <= last:
            return first, last
    raise UserError(f"--profile_steps={text}: give the first and the last step, such as 10:15.")


class ProfilerWindow:
    """Runs JAX's profiler from the beginning of one step to the end of another."""

    def __init__(self, workdir: str | Path, steps: tuple[int, int] | None):
        """Profiles `steps`, first and last, into `WORKDIR/profile`; nothing if None."""
        self._folder, self._steps, self._running = epath.Path(workdir) / "profile", steps, False

    def before(self, step: int) -> None:
        """Starts the profiler if `step` is the first of the window."""
        if self._steps and not self._running and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Stops it when the last step, which made `result`, is done."""
        if self._running and step >= self._steps[1]:
            jax.block_until_ready(result)
            self.close()
            say(f"wrote a profile of steps {self._steps[0]} to {step} to {self._folder}")

    def close(self) -> None:
        """Stops it, if it runs."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
