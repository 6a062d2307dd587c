"""Ctrl-C in the middle of training."""

import signal
import sys
import threading
from types import FrameType


class DelayedInterrupt:
    """Puts an interrupt off to the next call of `check`, so that no write is cut in half.

    Use as a context manager. A second interrupt is not put off. In any thread but the main one,
    which alone receives signals, it does nothing.
    """

    def __init__(self) -> None:
        """Starts with no interrupt."""
        self._requested = False
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "DelayedInterrupt":
        """Takes interrupts over."""
        if self._is_main:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        """Hands interrupts back."""
        if self._is_main:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if there was an interrupt."""
        if self._requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)
