"""The jobs as workers see them: claimed on a lease, reported, finished, given back, lost.

A job belongs to a worker as long as it is running, in its name, at the same attempt. Whatever a
worker writes is kept only if the job is still its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.store import Job, end
from lumiere_jax.serving.tables import (
    DONE,
    FAILED,
    MAX_ATTEMPTS,
    QUEUED,
    RUNNING,
    inputs,
    jobs,
    previews,
    videos,
    workers,
)

_LOST = (
    f"the worker was lost {MAX_ATTEMPTS} times while it made this; ask for less (fewer frames), or "
    "try again later"
)


class Leases:
    """What one worker does with jobs."""

    def __init__(self, database: Database, worker: str, lease: float):
        """Takes an open database, the worker's own name, and the seconds of a lease."""
        self._database, self._worker, self._lease = database, worker, lease

    def sign_on(self) -> None:
        """Tells that the worker is there; to be called now and then."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            mine = workers.c.name == self._worker
            if not connection.execute(sa.update(workers).where(mine).values(seen_at=now)).rowcount:
                new = {"name": self._worker, "seen_at": now, "started_at": now}
                connection.execute(sa.insert(workers).values(**new))

    def sign_off(self) -> None:
        """Gives back what it has, and tells that the worker is gone."""
        with self._database.writing() as connection:
            _give_back(connection, self._worker)
            connection.execute(sa.delete(workers).where(workers.c.name == self._worker))

    def claim(self) -> Job | None:
        """The oldest job that waits, or whose worker is gone; nobody else gets it."""
        with self._database.reading() as connection:
            if not self._is_work(connection):
                return None
        with self._database.writing() as connection:
            self._expire(connection)
            found = self._take(connection, sa.true(), 1)
            return found[0] if found else None

    def claim_more(self, first: Job, count: int) -> list[Job]:
        """Up to `count` jobs that can be made at once with one that was just claimed.

        Those that a worker was lost with go alone: they are not to take others along.
        """
        if first.batch_key is None or first.attempts > 1 or count < 1:
            return []
        alike = (jobs.c.batch_key == first.batch_key) & (jobs.c.attempts == 0)
        with self._database.writing() as connection:
            return self._take(connection, alike, count)

    def _is_work(self, connection: sa.Connection) -> bool:
        expired = (jobs.c.state == RUNNING) & (jobs.c.lease_until < self._database.now(connection))
        query = sa.select(jobs.c.id).where((jobs.c.state == QUEUED) | expired).limit(1)
        return connection.scalar(query) is not None

    def _expire(self, connection: sa.Connection) -> None:
        """Puts jobs back whose workers are gone, or ends them if that is not the first time."""
        now = self._database.now(connection)
        expired = (jobs.c.state == RUNNING) & (jobs.c.lease_until < now)
        end(connection, expired & (jobs.c.attempts >= MAX_ATTEMPTS), FAILED, now, error=_LOST)
        connection.execute(
            sa.update(jobs).where(expired).values(state=QUEUED, worker=None, progress=None)
        )

    def _take(self, connection: sa.Connection, which: Any, count: int) -> list[Job]:
        oldest = (
            sa.select(jobs.c.id)
            .where((jobs.c.state == QUEUED) & which)
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(count)
            .with_for_update(skip_locked=True)  # SQLite has one writer at a time anyway
        )
        ids, now = list(connection.scalars(oldest)), self._database.now(connection)
        connection.execute(
            sa.update(jobs)
            .where(jobs.c.id.in_(ids))
            .values(
                state=RUNNING,
                worker=self._worker,
                attempts=jobs.c.attempts + 1,
                lease_until=now + self._lease,
                started_at=now,
                progress=None,
            )
        )
        taken = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.created_at, jobs.c.id)
        return [Job(**row._mapping) for row in connection.execute(taken)]

    def files(self, job: Job) -> dict[str, bytes]:
        """What was uploaded with a job, by name."""
        query = sa.select(inputs.c.name, inputs.c.content).where(inputs.c.job == job.id)
        with self._database.reading() as connection:
            return dict(connection.execute(query).tuples().all())

    def report(
        self, batch: Sequence[Job], progress: Mapping[str, Any], shown: Mapping[str, bytes]
    ) -> set[str]:
        """Renews the leases.

        Args:
          batch: what the worker makes.
          progress: how far it is.
          shown: previews that are new, by job.

        Returns:
          Those jobs that are still the worker's own; others were cancelled, or taken away.
        """
        with self._database.writing() as connection:
            until = self._database.now(connection) + self._lease
            renewed = (
                sa.update(jobs)
                .where(self._own(batch))
                .values(lease_until=until, progress=dict(progress))
                .returning(jobs.c.id)
            )
            own = set(connection.scalars(renewed))
            for job in own & set(shown):
                connection.execute(sa.delete(previews).where(previews.c.job == job))
                connection.execute(sa.insert(previews).values(job=job, content=shown[job]))
                more = {"previews": jobs.c.previews + 1}
                connection.execute(sa.update(jobs).where(jobs.c.id == job).values(**more))
            return own

    def finish(self, job: Job, video: bytes) -> bool:
        """Keeps a result.

        Returns:
          False if the job is not the worker's own any more, and the result is dropped.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            ended = end(connection, self._own([job]), DONE, now, video_bytes=len(video))
            if ended:
                connection.execute(sa.insert(videos).values(job=job.id, content=video))
            return bool(ended)

    def fail(self, batch: Sequence[Job], error: str) -> None:
        """Ends jobs with a reason."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            end(connection, self._own(batch), FAILED, now, error=error)

    def _own(self, batch: Sequence[Job]) -> Any:
        held = [(jobs.c.id == job.id) & (jobs.c.attempts == job.attempts) for job in batch]
        return (jobs.c.state == RUNNING) & (jobs.c.worker == self._worker) & sa.or_(*held)


def lose(database: Database, worker: str) -> None:
    """What a worker had that is known to be dead goes back at once, or fails."""
    with database.writing() as connection:
        held = (jobs.c.state == RUNNING) & (jobs.c.worker == worker)
        now = database.now(connection)
        end(connection, held & (jobs.c.attempts >= MAX_ATTEMPTS), FAILED, now, error=_LOST)
        back = {"state": QUEUED, "worker": None, "progress": None}
        connection.execute(sa.update(jobs).where(held).values(**back))
        connection.execute(sa.delete(workers).where(workers.c.name == worker))


def _give_back(connection: sa.Connection, worker: str) -> None:
    """Puts running jobs of a worker back; that it stopped is no fault of theirs."""
    held = (jobs.c.state == RUNNING) & (jobs.c.worker == worker)
    back = {"state": QUEUED, "worker": None, "progress": None, "attempts": jobs.c.attempts - 1}
    connection.execute(sa.update(jobs).where(held).values(**back))
