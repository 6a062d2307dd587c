"""The queue as workers see it, in a database: the `WorkerQueue` of this project.

A job belongs to a worker as long as it is running, in its name, at the same attempt. What a worker
writes is kept only if the job is still its own. See `lost` for jobs whose workers are gone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.queue import Job, WorkerQueue
from lumiere_jax.serving.states import DONE, FAILED, QUEUED, RUNNING
from lumiere_jax.serving.store import end, put_back, put_back_or_fail
from lumiere_jax.serving.tables import inputs, jobs, previews, videos, workers

_WAITS = jobs.c.state == QUEUED


class Leases(WorkerQueue):
    """Does what `WorkerQueue` says."""

    def __init__(self, database: Database, worker: str, lease: float):
        """Uses an open database; `worker` is the worker's name, `lease` is in seconds."""
        self._database, self._worker, self._lease = database, worker, lease

    def sign_on(self) -> None:
        with self._database.writing() as connection:
            now = self._database.now(connection)
            mine = workers.c.name == self._worker
            if not connection.execute(sa.update(workers).where(mine).values(seen_at=now)).rowcount:
                new = {"name": self._worker, "seen_at": now, "started_at": now}
                connection.execute(sa.insert(workers).values(**new))

    def sign_off(self) -> None:
        with self._database.writing() as connection:
            self._give_back(connection)
            connection.execute(sa.delete(workers).where(workers.c.name == self._worker))

    def give_back(self) -> None:
        with self._database.writing() as connection:
            self._give_back(connection)

    def _give_back(self, connection: sa.Connection) -> None:
        held = (jobs.c.state == RUNNING) & (jobs.c.worker == self._worker)
        put_back(connection, held, attempts=jobs.c.attempts - 1)

    def claim(self) -> Job | None:
        with self._database.reading() as connection:
            if connection.scalar(sa.select(jobs.c.id).where(_WAITS).limit(1)) is None:
                return None
        with self._database.writing() as connection:
            found = self._take(connection, sa.true(), 1)
            return found[0] if found else None

    def claim_more(self, first: Job, count: int) -> list[Job]:
        """Up to `count` jobs that can be made together with one that was just claimed.

        Jobs that lost a worker run alone, so that they cannot harm others.
        """
        if first.batch_key is None or first.attempts > 1 or count < 1:
            return []
        alike = (jobs.c.batch_key == first.batch_key) & (jobs.c.attempts == 0)
        with self._database.writing() as connection:
            return self._take(connection, alike, count)

    def _take(self, connection: sa.Connection, which: Any, count: int) -> list[Job]:
        oldest = (
            sa.select(jobs.c.id)
            .where(_WAITS & which)
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(count)
            .with_for_update(skip_locked=True)  # SQLite has one writer at a time anyway
        )
        ids, now = list(connection.scalars(oldest)), self._database.now(connection)
        held = {"state": RUNNING, "worker": self._worker, "lease_until": now + self._lease}
        begun = {"attempts": jobs.c.attempts + 1, "started_at": now, "progress": None}
        connection.execute(sa.update(jobs).where(jobs.c.id.in_(ids)).values(**held, **begun))
        taken = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.created_at, jobs.c.id)
        return [Job(**row._mapping) for row in connection.execute(taken)]

    def files(self, job: Job) -> dict[str, bytes]:
        query = sa.select(inputs.c.name, inputs.c.content).where(inputs.c.job == job.id)
        with self._database.reading() as connection:
            return dict(connection.execute(query).tuples().all())

    def report(
        self, batch: Sequence[Job], progress: Mapping[str, Any], shown: Mapping[str, bytes]
    ) -> set[str]:
        with self._database.writing() as connection:
            until = self._database.now(connection) + self._lease
            renewed = sa.update(jobs).where(self._own(batch)).returning(jobs.c.id)
            renewed = renewed.values(lease_until=until, progress=dict(progress))
            own = set(connection.scalars(renewed))
            for job in own & set(shown):
                connection.execute(sa.delete(previews).where(previews.c.job == job))
                connection.execute(sa.insert(previews).values(job=job, content=shown[job]))
                more = {"previews": jobs.c.previews + 1}
                connection.execute(sa.update(jobs).where(jobs.c.id == job).values(**more))
            return own

    def finish(self, job: Job, video: bytes) -> bool:
        with self._database.writing() as connection:
            now = self._database.now(connection)
            ended = end(connection, self._own([job]), DONE, now, video_bytes=len(video))
            if ended:
                connection.execute(sa.insert(videos).values(job=job.id, content=video))
            return bool(ended)

    def fail(self, batch: Sequence[Job], error: str) -> None:
        with self._database.writing() as connection:
            now = self._database.now(connection)
            end(connection, self._own(batch), FAILED, now, error=error)

    def put_back(self, batch: Sequence[Job], error: str, *, free_for: float = 0.0) -> None:
        with self._database.writing() as connection:
            now, own = self._database.now(connection), self._own(batch)
            if free_for:
                is_new = jobs.c.created_at > now - free_for
                put_back(connection, own & is_new, attempts=jobs.c.attempts - 1)
            put_back_or_fail(connection, own, now, error)

    def _own(self, batch: Sequence[Job]) -> Any:
        held = [(jobs.c.id == job.id) & (jobs.c.attempts == job.attempts) for job in batch]
        return (jobs.c.state == RUNNING) & (jobs.c.worker == self._worker) & sa.or_(*held)
