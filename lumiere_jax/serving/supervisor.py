"""Keeps workers running: starts them, replaces those that die or hang, and ends them."""

import logging
import multiprocessing
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from lumiere_jax.serving import lost, worker
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.queue import QueueError
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_SETTLED_SECONDS = 60.0  # a worker that lived this long did not die of its start
_MAX_BACKOFF = 30.0
_END_SECONDS = 10.0
_TIDY_SECONDS = 60.0
_SILENT_SECONDS = 60.0  # or three leases; a database may keep a worker waiting

_log = logging.getLogger("lumiere_jax.serving")


class Supervisor:
    """The worker processes of this machine, and the cleaning of the queue."""

    def __init__(self, database: Database, settings: Settings, count: int):
        """Starts nothing yet."""
        self._database, self._settings = database, settings
        self._expiry, self._silence = lost.Expiry(database, settings.lease), lost.Silence()
        self._slots = [_Slot() for _ in range(count)]
        self._context = multiprocessing.get_context("spawn")  # JAX does not survive a fork
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._looked_at = self._tidied_at = -float("inf")

    def start(self) -> None:
        """Starts the workers, and a thread that watches them."""
        if self._settings.is_alone:  # then no lease needs to run out
            _ask("jobs of former workers cannot be put back", lost.lose_all, self._database)
        for slot in self._slots:
            self._start(slot, time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """Ends the workers; their jobs go back to the queue."""
        self._ending.set()
        self._thread.join(_END_SECONDS)  # or it waits for the database
        running = [(slot.name, slot.process) for slot in self._slots if slot.process is not None]
        for _, process in running:
            process.terminate()
        until = time.monotonic() + _END_SECONDS
        for name, process in running:
            process.join(max(until - time.monotonic(), 0))
            if process.exitcode is None:
                process.kill()
                process.join()
                self._lose(name)

    def _start(self, slot: "_Slot", now: float) -> None:
        name = f"{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        process = self._context.Process(target=worker.main, args=(name, self._settings), name=name)
        slot.name, slot.seen_at, slot.started_at = name, None, now
        try:
            process.start()
        except (OSError, MemoryError) as error:  # files, processes or memory may be free later
            seconds = slot.wait(now)
            _log.warning("no worker can be started, will try again in %g s: %s", seconds, error)
        else:
            slot.process = process

    def _watch(self) -> None:
        while not self._ending.wait(_POLL_SECONDS):
            try:
                self._look_after(time.monotonic())
            except Exception:  # without this thread no worker would be replaced
                _log.exception("the workers could not be checked, will try again")
                self._ending.wait(_LOOK_SECONDS)

    def _look_after(self, now: float) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.exitcode is not None:
                self._bury(slot, slot.process.exitcode, now)
            is_due = slot.process is None and now >= slot.start_at
            if is_due and not self._ending.is_set():
                self._start(slot, now)
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            _ask("leases and workers cannot be checked", self._look)
        if now - self._tidied_at > min(_TIDY_SECONDS, self._settings.keep):
            self._tidied_at = now
            _ask("old jobs cannot be deleted", Store(self._database).tidy, self._settings.keep)

    def _bury(self, slot: "_Slot", code: int, now: float) -> None:
        """Gives the jobs of a dead worker to others, and says when the next one starts."""
        seconds = slot.wait(now, is_planned=code == worker.EXIT_REPLACE)
        told = "worker %s ended with code %s; the next one starts in %g s"
        _log.warning(told, slot.name, code, seconds)
        slot.process = None
        self._lose(slot.name)

    def _lose(self, name: str) -> None:  # or its lease runs out
        _ask(f"jobs of worker {name} cannot be put back", lost.lose, self._database, name)

    def _look(self) -> None:
        """Puts back lost jobs, and ends workers that began well and were silent for long."""
        self._expiry.put_back()
        signs = Store(self._database).signs_of_life()
        for slot in self._slots:
            slot.seen_at = signs.get(slot.name, slot.seen_at)
        silence = self._silence.look([(slot.name, slot.seen_at) for slot in self._slots])
        limit = max(3 * self._settings.lease, _SILENT_SECONDS)
        for slot in self._slots:
            seconds = silence[slot.name, slot.seen_at]
            if slot.process is not None and slot.seen_at is not None and seconds > limit:
                _log.warning("worker %s gave no sign of life for %.0f s", slot.name, seconds)
                slot.process.kill()


class _Slot:
    """A place for one worker after another."""

    process: BaseProcess | None = None
    name = ""
    seen_at: float | None = None
    started_at = start_at = backoff = 0.0

    def wait(self, now: float, is_planned: bool = False) -> float:
        """Seconds until the next worker starts: more if they end one after another."""
        if now - self.started_at > _SETTLED_SECONDS:
            self.backoff = 0.0
        before, self.backoff = self.backoff, min(self.backoff * 2 + 1, _MAX_BACKOFF)
        seconds = before if is_planned else self.backoff
        self.start_at = now + seconds
        return seconds


def _ask(failure: str, call: Callable[..., Any], *arguments: Any) -> None:
    """Calls what needs the database; a failure is only logged."""
    try:
        call(*arguments)
    except QueueError as error:
        _log.warning("%s: %s", failure, error)
