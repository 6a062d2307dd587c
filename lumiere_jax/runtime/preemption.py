"""Ctrl-C and SIGTERM in the middle of a loop: held back to where all processes can stop."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from lumiere_jax.runtime.errors import Preempted


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C that was held back until a poll, where nothing is half done."""


class Interruption:
    """Holds a signal back until the next call of `poll`, so that no write is cut in half.

    Use as a context manager around a loop. Loops may be nested: what the inner one does not poll
    for ends the outer one, and what nobody polled for is raised at the end of the outermost. In
    any thread but the main one, which alone receives signals, it does nothing.

    One process stops at the next poll. Many processes stop at the same poll, whichever of them
    was told to: JAX takes their SIGTERM, and its coordination service finds the first poll that
    no process has passed (`reached_preemption_sync_point`).
    """

    # Like signals, these belong to the process.
    _received: int | None = None  # the signal that waits for a poll
    _depth = 0  # loops entered
    _polls = 0  # of all loops; every process must poll equally often

    def __init__(self) -> None:
        """Takes nothing over yet."""
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        """Takes the signals over."""
        if self._is_main:
            Interruption._depth += 1
            handlers = {signal.SIGINT: self._on_interrupt}
            if not jax.distributed.is_initialized():  # else the handler is JAX's, and must stay
                handlers[signal.SIGTERM] = self._on_terminate
            self._before = {number: signal.signal(number, f) for number, f in handlers.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Hands the signals back."""
        if not self._is_main:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        Interruption._depth -= 1
        if Interruption._depth == 0 and not jax.distributed.is_initialized():
            received, Interruption._received = Interruption._received, None
            if kind is None:
                _stop(received)

    def poll(self) -> None:
        """Stops here if a signal came: `Interrupted` after SIGINT, `Preempted` after SIGTERM.

        To be called after each step, on every process equally often: the state is then that of
        the same step everywhere. Many processes are `Preempted` at the same call by either signal.
        """
        if not self._is_main:
            return
        if jax.distributed.is_initialized():
            Interruption._polls += 1
            if multihost_utils.reached_preemption_sync_point(Interruption._polls):
                raise Preempted("stopped by SIGTERM to one of the processes")
            return
        received, Interruption._received = Interruption._received, None
        _stop(received)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if Interruption._received is not None:
            Interruption._received = None
            raise KeyboardInterrupt
        Interruption._received = number
        _say("stopping after this step; once more to stop at once")
        if jax.distributed.is_initialized():  # JAX tells the others of SIGTERM only
            signal.raise_signal(signal.SIGTERM)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        Interruption._received = number
        _say("SIGTERM: stopping after this step")


def _stop(received: int | None) -> None:
    if received == signal.SIGINT:
        raise Interrupted
    if received == signal.SIGTERM:
        raise Preempted("stopped by SIGTERM")


def _say(text: str) -> None:
    """Writes to stderr past Python's buffers, which a signal may have found half written."""
    os.write(2, f"\n{text}\n".encode())
