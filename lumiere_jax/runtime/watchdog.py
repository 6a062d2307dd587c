"""No endless waits: what hangs, or lost another process, ends with a clear line."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import jax

from lumiere_jax.runtime.errors import EXIT_PEER

_ADVICE = (
    "Look at the logs of the other processes for the first error; the same command, given to all "
    "of them, continues from the last checkpoint."
)
# Status codes of barriers and connections between processes; computing ends with others.
_LOST = frozenset({"ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"})
# Only the libraries below have no type or code for it: Gloo raises ValueError, NCCL INTERNAL.
_LOST_TRANSPORT = re.compile(
    r"(UNKNOWN|INTERNAL): (Gloo .* failed|NCCL .*remote process exited)", re.DOTALL
)


class Watchdog:
    """Ends the process if a loop makes no progress.

    A collective waits for all processes, and those that hang or are gone never come: nothing in
    Python can end that wait but the end of the process. Use as a context manager around a loop.
    """

    def __init__(self, timeout_s: float, what: str):
        """Watches the loop `what`, which may take `timeout_s` between two beats; 0 for ever."""
        self._timeout_s, self._what = timeout_s, what
        self._note, self._pauses = "nothing yet", 0
        self._last = time.monotonic()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        """Starts to watch this thread."""
        self._watched = threading.get_ident()
        self._process = f"process {jax.process_index()} of {jax.process_count()}"
        self._last = time.monotonic()
        if self._timeout_s:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops watching."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def beat(self, note: str) -> None:
        """Reports progress: "step 12"."""
        self._note, self._last = note, time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock for what may take any time, such as compilation."""
        self._pauses += 1
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._pauses -= 1

    def _watch(self) -> None:
        while not self._is_over.wait(min(self._timeout_s / 4, 5.0)):
            silent = time.monotonic() - self._last
            if silent > self._timeout_s and not self._pauses:
                end_at_once(f"\nerror: {self._message(silent)}", EXIT_PEER)

    def _message(self, silent_s: float) -> str:
        return (
            f"{self._process}: {self._what} made no progress for {silent_s:.0f} s (last: "
            f"{self._note}); it waits{self._place()}, probably for a process that hangs or is "
            f"gone. {_ADVICE}"
        )

    def _place(self) -> str:
        """Which line of this package the watched thread is at."""
        frame, package = sys._current_frames().get(self._watched), Path(__file__).parents[1]
        while frame is not None and package not in Path(frame.f_code.co_filename).parents:
            frame = frame.f_back
        if frame is None:
            return ""
        file = Path(frame.f_code.co_filename).relative_to(package.parent)
        return f" at {file}:{frame.f_lineno}"


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """Ends the process where an error tells that another one is gone.

    At once: whatever would still be closed or waited for on the way out needs that process.
    """
    try:
        yield
    except Exception as error:
        sign = peer_sign(error) if jax.process_count() > 1 else None
        if sign is None:
            raise
        process = f"process {jax.process_index()} of {jax.process_count()}"
        end_at_once(f"\nerror: {process} lost another process ({sign}). {_ADVICE}", EXIT_PEER)


def end_at_once(text: str, exit_code: int) -> NoReturn:
    """Ends the process, past Python's buffers: a thread that hangs may hold their locks."""
    os.write(2, f"{text}\n".encode())
    os._exit(exit_code)


def peer_sign(error: BaseException) -> str | None:
    """The first line of an error, or of one that led to it, of a lost process; else None."""
    if _is_of_peer(error):
        return str(error).splitlines()[0]
    earlier = error.__cause__ or error.__context__
    return peer_sign(earlier) if earlier else None


def _is_of_peer(error: BaseException) -> bool:
    if isinstance(error, jax.errors.JaxRuntimeError) and error.error_code_string in _LOST:
        return True
    may_be_transport = isinstance(error, jax.errors.JaxRuntimeError | ValueError)
    return may_be_transport and _LOST_TRANSPORT.match(str(error)) is not None
