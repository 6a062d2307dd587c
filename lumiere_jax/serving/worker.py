"""A worker: a process that takes jobs from the queue and makes their videos.

The main thread talks to the database and watches the clock. The videos are made in another thread,
so that signals, leases and time limits are handled while a program runs.
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

from lumiere_jax.runtime.progress import duration
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.log import log_plainly
from lumiere_jax.serving.queue import Job, QueueError, WorkerQueue
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.watch import Watch

EXIT_REPLACE = 3  # of a worker that may be broken, or runs a program that cannot be stopped
EXIT_UNABLE = 4  # of a worker that could not load the weights; the next one should wait
_POLL_SECONDS = 0.2
_RETRY_SECONDS = 2.0  # after an error of the database
_REPORT_SECONDS = 0.5
_SIGN_SECONDS = 2.0
_STOP_SECONDS = 20.0  # for a program to end after it was told to
_INTERNAL = "something went wrong in the server; its log has more"
_UNLOADED = "the server could not load the model; its log has more"

_log = logging.getLogger("lumiere_jax.serving")


class Runs(Protocol):
    """What makes videos; see `runner.Runner`."""

    def load(self, job: Job) -> None: ...  # noqa: D102
    def stages(self, job: Job) -> int: ...  # noqa: D102
    def run(self, jobs: Sequence[Job], files: dict[str, bytes], watch: Watch) -> list[bytes]: ...  # noqa: D102


class Worker:
    """Takes one batch of jobs after another until it is told to stop."""

    def __init__(
        self,
        leases: WorkerQueue,
        settings: Settings,
        make_runner: Callable[[Settings], Runs],
        is_stopping: Callable[[], bool],
        leave: Callable[[int], Any] = os._exit,
    ):
        """Puts a worker together.

        `make_runner` is called when the first job comes, `is_stopping` tells whether to end soon,
        and `leave` ends the process at once.
        """
        self._settings, self._is_stopping, self._leave = settings, is_stopping, leave
        self._leases = leases
        self._make_runner: Callable[[Settings], Runs] = make_runner
        self._runner: Runs | None = None
        self._signed_at = -float("inf")

    def run(self) -> None:
        """Works until it is told to stop; its jobs then go back to the queue."""
        is_unsure = False
        while not self._is_stopping():
            try:
                if is_unsure:  # it may have got a job nevertheless
                    self._leases.give_back()
                    is_unsure = False
                self._sign_on()
                job = self._leases.claim()
            except QueueError as error:
                _log.warning("the database cannot be reached, will try again: %s", error)
                is_unsure = True
                time.sleep(_RETRY_SECONDS)
                continue
            if job is None:
                time.sleep(_POLL_SECONDS)
            else:
                self._work(job)
        self._sign_off()

    def _sign_on(self) -> None:
        if time.monotonic() - self._signed_at > _SIGN_SECONDS:
            self._leases.sign_on()
            self._signed_at = time.monotonic()

    def _sign_off(self) -> None:
        try:
            self._leases.sign_off()
        except QueueError as error:
            _log.warning("could not sign off, the lease will run out: %s", error)

    def _work(self, first: Job) -> None:
        """Makes a job, with others like it. No program is still running when this returns."""
        try:
            try:
                batch = [first, *self._others_like(first)]
                files = self._leases.files(first)
            except QueueError as error:
                _log.warning("job %s goes back: %s", first.id, error)
                self._insist(self._leases.give_back)
                return
            self._attend(batch, files)
        except Exception:  # its jobs are lost with it, and go back
            _log.exception("job %s: this worker is replaced", first.id)
            self._leave(EXIT_REPLACE)

    def _attend(self, batch: list[Job], files: dict[str, bytes]) -> None:
        watch, made, began = Watch(1), _Made(), time.monotonic()
        arguments = (batch, files, watch, made)
        thread = threading.Thread(target=self._make, args=arguments, daemon=True)
        thread.start()
        stopped_at, shown_at = None, began
        while thread.is_alive():
            thread.join(_REPORT_SECONDS)
            now = time.monotonic()
            if self._is_stopping():
                self._sign_off()
                self._leave(0)
                return
            if now - began > self._settings.job_timeout and thread.is_alive():
                self._time_out(batch)
                return
            own = self._report(batch, watch, now - shown_at > 1.0)
            shown_at = now if now - shown_at > 1.0 else shown_at
            if own is not None and not own and stopped_at is None:
                watch.stop()
                stopped_at = now
            # Loading and compiling cannot be stopped, but the next job benefits from them.
            is_deaf = stopped_at is not None and now - stopped_at > _STOP_SECONDS
            if is_deaf and watch.progress()["step"]:
                self._leave(EXIT_REPLACE)
                return
        self._hand_in(batch, made, is_stopped=stopped_at is not None)

    def _time_out(self, batch: list[Job]) -> None:
        limit = duration(self._settings.job_timeout)
        try:
            self._leases.fail(batch, f"it took longer than the {limit} that a job may take")
        except QueueError as error:  # then it is lost with this worker
            _log.warning("cannot record that job %s took too long: %s", batch[0].id, error)
        _log.warning("job %s took too long; this worker is replaced", batch[0].id)
        self._leave(EXIT_REPLACE)

    def _others_like(self, first: Job) -> list[Job]:
        """More jobs for the batch, after a short wait for them."""
        if first.batch_key is None or self._settings.max_batch < 2:
            return []
        time.sleep(self._settings.batch_wait)
        return self._leases.claim_more(first, self._settings.max_batch - 1)

    def _make(self, batch: list[Job], files: dict[str, bytes], watch: Watch, made: "_Made") -> None:
        """Runs in the other thread."""
        try:
            if self._runner is None:
                self._runner = self._make_runner(self._settings)
            self._runner.load(batch[0])
            made.is_loaded = True
            watch.expect(self._runner.stages(batch[0]))
            made.videos = self._runner.run(batch, files, watch)
        except BaseException as error:  # handled by the main thread
            made.error = error

    def _report(self, batch: list[Job], watch: Watch, with_previews: bool) -> set[str] | None:
        """Which jobs are still its own; None if the database cannot be reached."""
        pictures = watch.previews(len(batch)) if with_previews else []
        shown = {job.id: picture for job, picture in zip(batch, pictures, strict=False)}
        try:
            self._sign_on()
            return self._leases.report(batch, watch.progress(), shown)
        except QueueError as error:
            _log.warning("cannot report, will try again: %s", error)
            return None

    def _hand_in(self, batch: list[Job], made: "_Made", is_stopped: bool) -> None:
        """Records how it ended, and leaves if this worker may be broken."""
        if made.error is None:
            self._insist(lambda: self._finish(batch, made.videos or []))
            return
        if is_stopped:  # that is the error
            return
        if not made.is_loaded:
            told = "job %s cannot be loaded; this worker is replaced"
            _log.error(told, batch[0].id, exc_info=made.error)
            patience = self._settings.job_timeout
            self._insist(lambda: self._leases.put_back(batch, _UNLOADED, free_for=patience))
            self._leave(EXIT_UNABLE)
            return
        from lumiere_jax.serving.runner import JobError

        if isinstance(made.error, JobError):
            self._insist(lambda: self._leases.fail(batch, str(made.error)))
            return
        _log.error("job %s: this worker is replaced", batch[0].id, exc_info=made.error)
        self._insist(lambda: self._leases.put_back(batch, _INTERNAL))
        self._leave(EXIT_REPLACE)

    def _finish(self, batch: list[Job], videos: list[bytes]) -> None:
        for job, video in zip(batch, videos, strict=True):
            self._leases.finish(job, video)

    def _insist(self, tell: Callable[[], Any]) -> None:
        """Tells the queue something, and tries again as long as the leases are valid."""
        until = time.monotonic() + self._settings.lease
        while True:
            try:
                tell()
                return
            except QueueError as error:
                if time.monotonic() > until:
                    _log.error("cannot hand in, and the leases have run out: %s", error)
                    return
                _log.warning("cannot hand in, will try again: %s", error)
                time.sleep(1.0)


class _Made:
    """The result of the other thread."""

    is_loaded = False
    videos: list[bytes] | None = None
    error: BaseException | None = None


def main(name: str, settings: Settings) -> None:
    """The process of a worker; it ends when it is told to, or when its parent is gone.

    Its name is unique among all workers of all times.
    """
    log_plainly()
    # JAX's own cache has no bound, and clients may ask for ever new sizes; see `runtime.programs`.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
    tempfile.tempdir = str(settings.scratch)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    parent = multiprocessing.parent_process()

    def is_stopping() -> bool:
        return stop.is_set() or (parent is not None and not parent.is_alive())

    # Before the first job needs it. What fails here fails again there, and is told then.
    threading.Thread(target=_make_runner, args=(settings,), daemon=True).start()
    leases = Leases(Database(settings.database), name, settings.lease)
    Worker(leases, settings, _make_runner, is_stopping).run()
    os._exit(0)  # nothing is left to do, and a thread of JAX may still be running


def _make_runner(settings: Settings) -> Runs:
    from lumiere_jax.serving.runner import Runner  # imports JAX, which takes seconds

    return Runner(settings)
