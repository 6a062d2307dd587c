"""The queue as clients see it: jobs are submitted, read, cancelled, and deleted in the end."""

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.states import CANCELLED, FAILED, FINISHED, MAX_ATTEMPTS, QUEUED, RUNNING
from lumiere_jax.serving.tables import inputs, jobs, previews, videos, workers


class QueueFull(Exception):
    """The maximum number of jobs is waiting already."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A job at one moment; times are seconds since 1970."""

    id: str  # a name that cannot be guessed
    task: str
    state: str
    options: dict[str, Any]  # all that the task needs beside its inputs, checked
    batch_key: str | None  # equal for jobs that can be made together; None: alone
    attempts: int  # how often a worker began it
    worker: str | None  # who has it, or had it last
    lease_until: float | None  # when that worker counts as lost
    progress: dict[str, Any] | None  # see `Watch.progress`; None before it begins
    previews: int  # how many there were so far
    video_bytes: int | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self.state in FINISHED


class Store:
    """What the HTTP interface does with jobs. Safe for several threads and processes."""

    def __init__(self, database: Database):
        """Uses an open database."""
        self._database = database

    def submit(
        self,
        task: str,
        options: Mapping[str, Any],
        files: Mapping[str, bytes],
        *,
        batch_key: str | None,
        max_queue: int,
    ) -> Job:
        """Accepts a job; it is in the database when this returns. Raises `QueueFull`."""
        name = str(uuid.uuid4())
        job = {"id": name, "task": task, "state": QUEUED, "options": dict(options)}
        with self._database.writing() as connection:
            self._database.serialize_submissions(connection)
            if _count_queued(connection) >= max_queue:
                raise QueueFull
            now = self._database.now(connection)
            new = {"batch_key": batch_key, "created_at": now, "attempts": 0, "previews": 0}
            connection.execute(sa.insert(jobs).values(**job, **new))
            if files:
                rows = [{"job": name, "name": n, "content": c} for n, c in files.items()]
                connection.execute(sa.insert(inputs), rows)
            return _job(connection.execute(sa.select(jobs).where(jobs.c.id == name)).one())

    def is_full(self, max_queue: int) -> bool:
        """Whether a job would be refused now."""
        with self._database.reading() as connection:
            return _count_queued(connection) >= max_queue

    def get(self, job: str) -> Job | None:
        """A job, or None if there is none of this name."""
        found = self.get_many([job])
        return found[0] if found else None

    def get_many(self, ids: Sequence[str]) -> list[Job]:
        """The jobs of these names that exist, the newest first."""
        query = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.created_at.desc())
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(query)]

    def position(self, job: Job) -> int | None:
        """How many jobs are ahead of a waiting one; None for a job that does not wait."""
        if job.state != QUEUED:
            return None
        before = sa.select(sa.func.count()).where(
            jobs.c.state == QUEUED, jobs.c.created_at < job.created_at
        )
        with self._database.reading() as connection:
            return connection.scalar(before)

    def video(self, job: str) -> bytes | None:
        """The result of a job, an MP4."""
        return self._blob(videos, job)

    def preview(self, job: str) -> bytes | None:
        """The newest picture of a job's intermediate frames, a PNG."""
        return self._blob(previews, job)

    def _blob(self, table: sa.Table, job: str) -> bytes | None:
        with self._database.reading() as connection:
            return connection.scalar(sa.select(table.c.content).where(table.c.job == job))

    def cancel(self, job: str) -> Job | None:
        """Ends a job that waits or runs; a finished one stays as it is."""
        with self._database.writing() as connection:
            unfinished = (jobs.c.id == job) & jobs.c.state.in_((QUEUED, RUNNING))
            end(connection, unfinished, CANCELLED, self._database.now(connection))
            row = connection.execute(sa.select(jobs).where(jobs.c.id == job)).one_or_none()
        return None if row is None else _job(row)

    def tidy(self, keep: float) -> int:
        """Deletes jobs that ended `keep` seconds ago, and lost workers; returns how many jobs."""
        with self._database.writing() as connection:
            before = self._database.now(connection) - keep
            connection.execute(sa.delete(workers).where(workers.c.seen_at < before))
            old = sa.delete(jobs).where(jobs.c.state.in_(FINISHED), jobs.c.finished_at <= before)
            return connection.execute(old).rowcount

    def counts(self) -> dict[str, int]:
        """The number of jobs in each state."""
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        with self._database.reading() as connection:
            return dict.fromkeys((QUEUED, RUNNING, *FINISHED), 0) | dict(
                connection.execute(query).tuples().all()
            )

    def oldest_wait(self) -> float:
        """Seconds that the job at the head of the queue has waited; 0 for an empty queue."""
        query = sa.select(sa.func.min(jobs.c.created_at)).where(jobs.c.state == QUEUED)
        with self._database.reading() as connection:
            created = connection.scalar(query)
            return 0.0 if created is None else max(self._database.now(connection) - created, 0.0)

    def living_workers(self, within: float) -> list[str]:
        """Workers that gave a sign of life within the last seconds."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            # A sign from the future was given before the clock was set back, and means nothing.
            is_recent = workers.c.seen_at.between(now - within, now + within)
            return list(connection.scalars(sa.select(workers.c.name).where(is_recent)))

    def signs_of_life(self) -> dict[str, float]:
        """When each worker gave its last one, in seconds since 1970."""
        with self._database.reading() as connection:
            query = sa.select(workers.c.name, workers.c.seen_at)
            return dict(connection.execute(query).tuples().all())


def end(connection: sa.Connection, which: Any, state: str, now: float, **values: Any) -> list[str]:
    """Ends jobs and deletes their uploads; returns the names."""
    ended = sa.update(jobs).where(which).values(state=state, finished_at=now, **values)
    ids = list(connection.scalars(ended.returning(jobs.c.id)))
    connection.execute(sa.delete(inputs).where(inputs.c.job.in_(ids)))
    return ids


def put_back(connection: sa.Connection, which: Any, **values: Any) -> None:
    """Returns jobs to the queue, for any worker."""
    back = {"state": QUEUED, "worker": None, "progress": None} | values
    connection.execute(sa.update(jobs).where(which).values(**back))


def put_back_or_fail(connection: sa.Connection, which: Any, now: float, error: str) -> None:
    """Returns running jobs to the queue, or fails those that were tried `MAX_ATTEMPTS` times."""
    held = (jobs.c.state == RUNNING) & which
    end(connection, held & (jobs.c.attempts >= MAX_ATTEMPTS), FAILED, now, error=error)
    put_back(connection, held)


def _count_queued(connection: sa.Connection) -> int:
    waiting = sa.select(sa.func.count()).where(jobs.c.state == QUEUED)
    return connection.execute(waiting).scalar_one()


def _job(row: sa.Row) -> Job:
    return Job(**row._mapping)
