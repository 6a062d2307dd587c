"""Processes that make shards; one that is killed by a video takes nothing but that video along."""

import collections
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Self

from lumiere_jax.data.prepared_format import Shard
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.preparation.shards import Summary, Task, make_shard
from lumiere_jax.runtime.errors import UserError

_POLL_SECONDS = 0.5
_MOST_DEATHS = 2  # over the same video; the first may have been bad luck
_MOST_OTHER_DEATHS = 5  # of one shard outside of any video


@dataclasses.dataclass(frozen=True)
class Event:
    """News of a crew: nothing, a video of a shard that is looked at, or a shard that is done."""

    shard: Shard | None = None
    video: int | None = None
    summary: Summary | None = None


class Crew:
    """Worker processes that share the shards to make.

    A worker that dies, or that is silent for too long, is replaced and its shard begun again; a
    video over which that happens twice is rejected. Use as a context manager.
    """

    def __init__(self, plan: Plan, num_workers: int, timeout: float = 600.0):
        """Starts the processes; `timeout` is how many seconds one clip may take."""
        context = multiprocessing.get_context("forkserver")
        # Imported once, and not by each of them.
        context.set_forkserver_preload([make_shard.__module__, "tensorflow_datasets"])
        self._workers = [_Worker(context, plan) for _ in range(num_workers)]
        self._timeout = timeout
        self._deaths: collections.Counter[tuple[Shard, int | None]] = collections.Counter()

    def __enter__(self) -> Self:
        """Hands out itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends all workers at once; a shard that one was making is not done."""
        for worker in self._workers:
            worker.end()

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Makes shards, whose tasks are taken one by one while the workers are busy.

        Gives what happens, and an `Event` of nothing at least twice a second. A `UserError` if a
        worker cannot write, or the workers die without end.
        """
        tasks, exhausted = iter(tasks), False
        waiting: collections.deque[Task] = collections.deque()
        while True:
            idle = [worker for worker in self._workers if worker.task is None]
            if not exhausted and len(waiting) <= len(idle):
                task = next(tasks, None)
                exhausted = task is None
                waiting.extend([] if task is None else [task])
            for worker in idle[: len(waiting)]:
                worker.give(waiting.popleft())
            busy = {w.connection: w for w in self._workers if w.task is not None}
            if exhausted and not busy and not waiting:
                return
            can_take = not exhausted and len(waiting) <= len(self._workers) - len(busy)
            ready = multiprocessing.connection.wait(busy, 0.0 if can_take else _POLL_SECONDS)
            for connection, worker in busy.items():
                if connection in ready:
                    yield from self._news(worker, waiting)
                elif time.monotonic() - worker.heard > self._timeout:
                    self._lost(worker, f"it took longer than {self._timeout:g} s", waiting)
            yield Event()

    def _news(self, worker: "_Worker", waiting: collections.deque[Task]) -> Iterator[Event]:
        """What a worker says; that its connection ends means that it is dead."""
        shard = worker.task.shard if worker.task else None
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._lost(worker, _how_it_ended(worker.process.exitcode or 0), waiting)
            return
        worker.heard = time.monotonic()
        if kind == "error":
            raise UserError(value)
        if kind == "defect":
            raise RuntimeError(f"in a worker:\n{value}")
        if kind == "video":
            worker.video = value
            yield Event(shard, video=value)
        else:
            worker.task = None
            yield Event(shard, summary=value)

    def _lost(self, worker: "_Worker", how: str, waiting: collections.deque[Task]) -> None:
        """Replaces a worker, and puts its shard first in line, without the video if need be."""
        task, video = worker.task, worker.video
        assert task is not None
        worker.restart()
        self._deaths[task.shard, video] += 1
        deaths = self._deaths[task.shard, video]
        if video is None and deaths >= _MOST_OTHER_DEATHS:
            raise UserError(
                f"{deaths} workers in a row died before shard {task.shard} was begun: {how}; try "
                "fewer --workers"
            )
        if video is not None and deaths >= _MOST_DEATHS:
            reason = f"killed its worker: {how}, {deaths} times"
            task = dataclasses.replace(task, killers={**task.killers, video: reason})
        waiting.appendleft(task)


def _how_it_ended(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "signal SIGKILL; out of memory?"
    if exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


class _Worker:
    """A process that makes one shard after the other, as seen by the one that gives them out."""

    task: Task | None  # None if it is idle
    video: int | None  # number of the video it reads; None if it did not say
    heard: float  # when it last said something, or was given something to do

    def __init__(self, context: ForkServerContext, plan: Plan):
        self._context, self._plan = context, plan
        self._start()

    def _start(self) -> None:
        self.connection, theirs = self._context.Pipe()
        self.process: ForkServerProcess = self._context.Process(
            target=_work, args=(theirs, self._plan), name="prepare_data worker", daemon=True
        )
        self.process.start()
        theirs.close()  # or its end would not be seen
        self.task, self.video, self.heard = None, None, time.monotonic()

    def give(self, task: Task) -> None:
        """Gives it something to do."""
        self.task, self.video, self.heard = task, None, time.monotonic()
        with contextlib.suppress(OSError):  # it is dead: `Crew.run` sees that by the connection
            self.connection.send(task)

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def restart(self) -> None:
        """Puts a new process in its place."""
        self.end()
        self._start()


def _work(connection: multiprocessing.connection.Connection, plan: Plan) -> None:
    """What a worker does: makes the shards that it is given, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            summary = make_shard(plan, task, lambda number: connection.send(("video", number)))
            connection.send(("done", summary))
        except UserError as error:
            connection.send(("error", str(error)))
        except Exception:
            connection.send(("defect", traceback.format_exc()))


def _end_with_parent() -> None:
    """Ends this process when the one that gives out the shards is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
