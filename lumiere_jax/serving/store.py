"""The queue as clients see it, in a database: the `ClientQueue` of this project."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.queue import ClientQueue, Job, QueueFull
from lumiere_jax.serving.states import CANCELLED, FAILED, FINISHED, MAX_ATTEMPTS, QUEUED, RUNNING
from lumiere_jax.serving.tables import inputs, jobs, previews, videos, workers


class Store(ClientQueue):
    """Does what `ClientQueue` says; and cleans the queue."""

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
        client: str | None = None,
        max_per_client: int | None = None,
    ) -> Job:
        name = str(uuid.uuid4())
        job = {"id": name, "task": task, "state": QUEUED, "options": dict(options)}
        with self._database.writing() as connection:
            self._database.serialize_submissions(connection)
            _check_room(connection, max_queue, client, max_per_client)
            now = self._database.now(connection)
            new = {"batch_key": batch_key, "created_at": now, "attempts": 0, "previews": 0}
            connection.execute(sa.insert(jobs).values(**job, **new, client=client))
            if files:
                rows = [{"job": name, "name": n, "content": c} for n, c in files.items()]
                connection.execute(sa.insert(inputs), rows)
            return _job(connection.execute(sa.select(jobs).where(jobs.c.id == name)).one())

    def check_room(
        self, max_queue: int, client: str | None = None, max_per_client: int | None = None
    ) -> None:
        with self._database.reading() as connection:
            _check_room(connection, max_queue, client, max_per_client)

    def get(self, job: str) -> Job | None:
        found = self.get_many([job])
        return found[0] if found else None

    def get_many(self, ids: Sequence[str]) -> list[Job]:
        query = sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.created_at.desc())
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(query)]

    def sent_by(
        self, client: str, *, after: Job | None, limit: int, newest_first: bool
    ) -> list[Job]:
        order = sa.tuple_(jobs.c.created_at, jobs.c.id)
        query = sa.select(jobs).where(jobs.c.client == client).limit(limit)
        if after is not None:
            place = sa.tuple_(after.created_at, after.id)
            query = query.where(order < place if newest_first else order > place)
        columns = (jobs.c.created_at, jobs.c.id)
        query = query.order_by(*(sa.desc(c) if newest_first else c for c in columns))
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(query)]

    def position(self, job: Job) -> int | None:
        if job.state != QUEUED:
            return None
        before = sa.select(sa.func.count()).where(
            jobs.c.state == QUEUED, jobs.c.created_at < job.created_at
        )
        with self._database.reading() as connection:
            return connection.scalar(before)

    def video(self, job: str) -> bytes | None:
        return self._blob(videos, job)

    def preview(self, job: str) -> bytes | None:
        return self._blob(previews, job)

    def _blob(self, table: sa.Table, job: str) -> bytes | None:
        with self._database.reading() as connection:
            return connection.scalar(sa.select(table.c.content).where(table.c.job == job))

    def cancel(self, job: str) -> Job | None:
        with self._database.writing() as connection:
            unfinished = (jobs.c.id == job) & jobs.c.state.in_((QUEUED, RUNNING))
            end(connection, unfinished, CANCELLED, self._database.now(connection))
            row = connection.execute(sa.select(jobs).where(jobs.c.id == job)).one_or_none()
        return None if row is None else _job(row)

    def delete(self, job: str) -> bool:
        with self._database.writing() as connection:
            return bool(connection.execute(sa.delete(jobs).where(jobs.c.id == job)).rowcount)

    def tidy(self, keep: float) -> int:
        """Deletes jobs that ended `keep` seconds ago, and lost workers; returns how many jobs."""
        with self._database.writing() as connection:
            before = self._database.now(connection) - keep
            connection.execute(sa.delete(workers).where(workers.c.seen_at < before))
            old = sa.delete(jobs).where(jobs.c.state.in_(FINISHED), jobs.c.finished_at <= before)
            return connection.execute(old).rowcount

    def counts(self) -> dict[str, int]:
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        with self._database.reading() as connection:
            return dict.fromkeys((QUEUED, RUNNING, *FINISHED), 0) | dict(
                connection.execute(query).tuples().all()
            )

    def oldest_wait(self) -> float:
        query = sa.select(sa.func.min(jobs.c.created_at)).where(jobs.c.state == QUEUED)
        with self._database.reading() as connection:
            created = connection.scalar(query)
            return 0.0 if created is None else max(self._database.now(connection) - created, 0.0)

    def living_workers(self, within: float) -> list[str]:
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


def _check_room(
    connection: sa.Connection, max_queue: int, client: str | None, max_per_client: int | None
) -> None:
    is_own = sa.func.sum(sa.case((jobs.c.client == client, 1), else_=0))
    waiting = sa.select(sa.func.count(), is_own).where(jobs.c.state == QUEUED)
    count, own = connection.execute(waiting).one()
    if count >= max_queue:
        raise QueueFull(f"{max_queue} jobs are waiting; try again later")
    if max_per_client is not None and (own or 0) >= max_per_client:
        raise QueueFull(f"{max_per_client} of your jobs are waiting; try again later")


def _job(row: sa.Row) -> Job:
    return Job(**row._mapping)
