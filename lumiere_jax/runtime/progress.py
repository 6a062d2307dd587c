"""Progress with time left, for anything that takes longer than a few seconds.

(`ReportProgress` of clu logs the rate of a training loop; this is for whoever watches a terminal.)
"""

import contextlib
import functools
import sys
import time
from collections.abc import Iterator
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
        """Starts the clock for `total` units; `start` of them were done before (a resumed run)."""
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
            print(f"\r\x1b[K{line}", end=end, file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)

    def advance(self, note: str = "") -> None:
        """Reports that one more unit is done; the clock starts when the first is done."""
        if not self._advanced:  # what came before was compilation
            self._advanced, self._start, self._begin = True, self._done + 1, time.monotonic()
        self.update(self._done + 1, note)

    def announce(self, text: str) -> None:
        """Prints what happens before the first unit is done."""
        print(f"{self.label}: {text}", file=self._stream, flush=True)

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


@contextlib.contextmanager
def announced(text: str, stream: TextIO | None = None, quiet: bool = False) -> Iterator[None]:
    """Says what takes long and, unless it fails, how long it took; nothing if `quiet`."""
    say = functools.partial(print, file=stream or sys.stderr, flush=True)
    begin = time.monotonic()
    if not quiet:
        say(f"{text} ...")
    yield
    if not quiet:
        say(f"{text}: done in {duration(time.monotonic() - begin)}")
