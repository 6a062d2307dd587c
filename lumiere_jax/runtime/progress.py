"""Progress with time left, for anything that takes longer than a few seconds.

(`ReportProgress` of clu logs the rate of a training loop; this is for whoever watches a terminal.)
"""

import sys
import time
from typing import TextIO


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "3 min 05 s" or "2 h 10 min"."""
    seconds = int(seconds + 0.5)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Prints how far something is, its rate and the time left.

    A terminal shows one line, which is rewritten; elsewhere a line is printed every 10 seconds.

    Attributes:
      label: what is going on.
      total: how many units there are.
      unit: name of a unit, in the plural.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        start: int = 0,
        stream: TextIO | None = None,
        quiet: bool = False,
    ):
        """Starts the clock; `start` units were done before (a resumed run); `quiet` is silent."""
        self.label, self.total, self.unit = label, total, unit
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._start, self._done, self._advanced = start, start, False
        self._begin = time.monotonic()
        self._last_print = self._begin
        self._interval = 0.5 if self._stream.isatty() else 10.0

    def update(self, done: int, note: str = "", force: bool = False) -> None:
        """Reports that `done` units are done in all; prints from time to time, and at the end."""
        self._done, now = done, time.monotonic()
        if self._quiet:
            return
        if not force and done < self.total and now - self._last_print < self._interval:
            return
        self._last_print = now
        line = self.line(now - self._begin, note)
        if self._stream.isatty():
            end = "\n" if done >= self.total else ""
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def advance(self, note: str = "") -> None:
        """Reports that one more unit is done; the clock starts when the first is done."""
        if not self._advanced:  # what came before was compilation
            self._advanced, self._start, self._begin = True, self._done + 1, time.monotonic()
        self.update(self._done + 1, note)

    def announce(self, text: str) -> None:
        """Prints what happens before the first unit is done."""
        self._stream.write(f"{self.label}: {text}\n")
        self._stream.flush()

    def line(self, elapsed: float, note: str = "") -> str:
        """The text of the line after `elapsed` seconds."""
        done_here = self._done - self._start
        text = f"{self.label}: {self._done}/{self.total} {self.unit}"
        if done_here > 0 and elapsed > 0:
            rate = done_here / elapsed
            text += f", {rate:.3g} {self.unit}/s"
            left = (self.total - self._done) / rate
            text += f", {duration(left)} left" if left > 0 else f", took {duration(elapsed)}"
        return f"{text}{', ' + note if note else ''}"


class Announcement:
    """Says what takes long: `with Announcement("compiling, this can take minutes"): ...`."""

    def __init__(self, text: str, stream: TextIO | None = None, quiet: bool = False):
        """Remembers what to say; nothing if `quiet`."""
        self._text, self._stream, self._quiet = text, stream or sys.stderr, quiet

    def __enter__(self) -> "Announcement":
        """Says it."""
        if not self._quiet:
            print(f"{self._text} ...", file=self._stream, flush=True)
        self._begin = time.monotonic()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        """Says how long it took, unless it failed."""
        if kind is None and not self._quiet:
            took = duration(time.monotonic() - self._begin)
            print(f"{self._text}: done in {took}", file=self._stream, flush=True)
