"""Keeps workers running: starts them, replaces those that die, and ends them."""

import logging
import multiprocessing
import os
import socket
import threading
import time
import uuid
from multiprocessing.process import BaseProcess

from sqlalchemy.exc import SQLAlchemyError

from lumiere_jax.serving import leases, worker
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store

_POLL_SECONDS = 0.2
_SETTLED_SECONDS = 60.0  # a worker that lived so long did not die of its start
_MAX_BACKOFF = 30.0
_END_SECONDS = 10.0
_TIDY_SECONDS = 60.0

_log = logging.getLogger("lumiere_jax.serving")


class Supervisor:
    """Processes of workers on this machine, and the tidying of the queue."""

    def __init__(self, database: Database, settings: Settings, count: int):
        """Starts nothing yet."""
        self._database, self._settings = database, settings
        self._slots = [_Slot() for _ in range(count)]
        self._context = multiprocessing.get_context("spawn")  # JAX does not survive a fork
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Starts the workers, and a thread that watches them."""
        for slot in self._slots:
            self._start(slot)
        self._thread.start()

    def stop(self) -> None:
        """Ends the workers; what they have goes back to the queue."""
        self._ending.set()
        self._thread.join()
        running = [slot for slot in self._slots if slot.process is not None]
        for slot in running:
            slot.process.terminate()
        until = time.monotonic() + _END_SECONDS
        for slot in running:
            slot.process.join(max(until - time.monotonic(), 0))
            if slot.process.exitcode is None:
                slot.process.kill()
                slot.process.join()
                self._lose(slot.name)

    def _start(self, slot: "_Slot") -> None:
        slot.name = f"{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        slot.process = self._context.Process(
            target=worker.main, args=(slot.name, self._settings), name=slot.name
        )
        slot.process.start()
        slot.started_at = time.monotonic()

    def _watch(self) -> None:
        tidied_at = -float("inf")
        while not self._ending.wait(_POLL_SECONDS):
            now = time.monotonic()
            for slot in self._slots:
                if slot.process is not None and slot.process.exitcode is not None:
                    self._bury(slot, now)
                if slot.process is None and now >= slot.start_at:
                    self._start(slot)
            if now - tidied_at > min(_TIDY_SECONDS, self._settings.keep):
                tidied_at = now
                self._tidy()

    def _bury(self, slot: "_Slot", now: float) -> None:
        """Gives the jobs of a dead worker to others, and says when there is a new one."""
        code = slot.process.exitcode
        has_settled = now - slot.started_at > _SETTLED_SECONDS
        is_planned = code == worker.EXIT_REPLACE
        slot.backoff = 0.0 if has_settled or is_planned else min(slot.backoff * 2 + 1, _MAX_BACKOFF)
        slot.start_at = now + slot.backoff
        _log.warning(
            "worker %s ended with code %s; another one in %g s", slot.name, code, slot.backoff
        )
        slot.process = None
        self._lose(slot.name)

    def _lose(self, name: str) -> None:
        try:
            leases.lose(self._database, name)
        except SQLAlchemyError as error:  # then its lease runs out
            _log.warning("the jobs of worker %s cannot be given back: %s", name, error)

    def _tidy(self) -> None:
        try:
            Store(self._database).tidy(self._settings.keep)
        except SQLAlchemyError as error:
            _log.warning("old jobs cannot be deleted: %s", error)


class _Slot:
    """Where one worker after the other runs."""

    process: BaseProcess | None = None
    name = ""
    started_at = start_at = backoff = 0.0
