"""A worker: a process that takes jobs from the queue and makes their videos.

The main thread talks to the database and watches the clock; the videos are made in another one, so
that signals, leases and limits of time are seen to while a program runs.
"""

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from lumiere_jax.progress import duration
from lumiere_jax.serving import log
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Job
from lumiere_jax.serving.watch import Watch

EXIT_REPLACE = 3
"""A worker that ended itself because a program that cannot be stopped went on for too long."""

_POLL_SECONDS = 0.2
_REPORT_SECONDS = 0.5
_SIGN_SECONDS = 2.0
_STOP_SECONDS = 20.0  # for a program to end after it was told to
_INTERNAL = "something went wrong in the server; its log has more"

_log = logging.getLogger("lumiere_jax.serving")


class Runs(Protocol):
    """What makes videos, see `runner.Runner`."""

    def stages(self, job: Job) -> int: ...  # noqa: D102

    def run(self, jobs: Sequence[Job], files: dict[str, bytes], watch: Watch) -> list[bytes]: ...  # noqa: D102


class Worker:
    """Takes jobs one batch after the other until it is told to stop."""

    def __init__(
        self,
        name: str,
        database: Database,
        settings: Settings,
        make_runner: Callable[[Settings], Runs],
        is_stopping: Callable[[], bool],
        leave: Callable[[int], Any] = os._exit,
    ):
        """Puts a worker together.

        Args:
          name: unique among all workers, of all times.
          database: of the queue.
          settings: see there.
          make_runner: what makes videos; called with the first job.
          is_stopping: whether to end soon.
          leave: ends the process at once, with an exit code.
        """
        self._settings, self._is_stopping, self._leave = settings, is_stopping, leave
        self._leases = Leases(database, name, settings.lease)
        self._make_runner, self._runner = make_runner, None
        self._signed_at = -float("inf")

    def run(self) -> None:
        """Works until it is to stop; what it has then goes back to the queue."""
        while not self._is_stopping():
            try:
                self._sign_on()
                job = self._leases.claim()
                if job is None:
                    time.sleep(_POLL_SECONDS)
                else:
                    self._work(job)
            except SQLAlchemyError as error:
                _log.warning("the database cannot be reached, trying again: %s", error)
                time.sleep(2.0)
        try:
            self._leases.sign_off()
        except SQLAlchemyError as error:
            _log.warning("could not sign off, the lease will run out: %s", error)

    def _sign_on(self) -> None:
        if time.monotonic() - self._signed_at > _SIGN_SECONDS:
            self._leases.sign_on()
            self._signed_at = time.monotonic()

    def _work(self, first: Job) -> None:
        batch = [first, *self._others_like(first)]
        files = self._leases.files(first)
        watch, made = Watch(1), _Made()
        began = time.monotonic()
        thread = threading.Thread(target=self._make, args=(batch, files, made), daemon=True)
        thread.start()
        told_at, shown_at = None, began
        while thread.is_alive():
            thread.join(_REPORT_SECONDS)
            now = time.monotonic()
            watch = made.watch or watch
            if self._is_stopping():
                self._leases.sign_off()
                self._leave(0)
                return
            if now - began > self._settings.job_timeout and thread.is_alive():
                limit = duration(self._settings.job_timeout)
                self._leases.fail(batch, f"it took longer than the {limit} that a job may take")
                _log.warning("job %s took too long; this worker is replaced", first.id)
                self._leave(EXIT_REPLACE)
                return
            own = self._report(batch, watch, now - shown_at > 1.0)
            shown_at = now if now - shown_at > 1.0 else shown_at
            if own is not None and not own and told_at is None:
                watch.stop()
                told_at = now
            # Loading and compiling cannot be stopped, but the next job has the use of them.
            is_deaf = told_at is not None and now - told_at > _STOP_SECONDS
            if is_deaf and watch.progress()["step"]:
                self._leave(EXIT_REPLACE)
                return
        self._hand_in(batch, made)

    def _others_like(self, first: Job) -> list[Job]:
        """More jobs for the batch, after a short wait in which they may come."""
        if first.batch_key is None or self._settings.max_batch < 2:
            return []
        time.sleep(self._settings.batch_wait)
        return self._leases.claim_more(first, self._settings.max_batch - 1)

    def _make(self, batch: list[Job], files: dict[str, bytes], made: "_Made") -> None:
        """The other thread."""
        try:
            if self._runner is None:
                self._runner = self._make_runner(self._settings)
            made.watch = Watch(self._runner.stages(batch[0]))
            made.videos = self._runner.run(batch, files, made.watch)
        except BaseException as error:  # told by the main thread
            made.error = error

    def _report(self, batch: list[Job], watch: Watch, with_previews: bool) -> set[str] | None:
        """Which jobs are still its own; None if the database does not say."""
        pictures = watch.previews(len(batch)) if with_previews else []
        shown = {job.id: picture for job, picture in zip(batch, pictures, strict=False)}
        try:
            self._sign_on()
            return self._leases.report(batch, watch.progress(), shown)
        except SQLAlchemyError as error:
            _log.warning("cannot report, trying again: %s", error)
            return None

    def _hand_in(self, batch: list[Job], made: "_Made") -> None:
        """Tells how it ended, as long as the leases are good."""
        from lumiere_jax.serving.runner import JobError

        until = time.monotonic() + self._settings.lease
        while True:
            try:
                if made.error is None:
                    for job, video in zip(batch, made.videos, strict=True):
                        self._leases.finish(job, video)
                    return
                is_told = isinstance(made.error, JobError)
                if not is_told and self._leases.report(batch, {}, {}):  # else it was stopped
                    _log.error("job %s", batch[0].id, exc_info=made.error)
                self._leases.fail(batch, str(made.error) if is_told else _INTERNAL)
                return
            except SQLAlchemyError as error:
                if time.monotonic() > until:
                    raise
                _log.warning("cannot hand in, trying again: %s", error)
                time.sleep(1.0)


class _Made:
    """What the other thread leaves behind."""

    watch: Watch | None = None
    videos: list[bytes] | None = None
    error: BaseException | None = None


def main(name: str, settings: Settings) -> None:
    """The process of a worker; ends when it is told to, or when its parent is gone."""
    log.plainly()
    tempfile.tempdir = str(settings.scratch)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent tells
    parent = multiprocessing.parent_process()

    def is_stopping() -> bool:
        return stop.is_set() or (parent is not None and not parent.is_alive())

    def make_runner(settings: Settings) -> Runs:
        from lumiere_jax.serving.runner import Runner

        return Runner(settings)

    Worker(name, Database(settings.database), settings, make_runner, is_stopping).run()
    os._exit(0)  # nothing is left to do, and a thread of JAX may still run
