"""Jobs whose workers are gone: they are put back, or fail if it is not the first time."""

import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.states import MAX_ATTEMPTS, RUNNING
from lumiere_jax.serving.store import put_back_or_fail
from lumiere_jax.serving.tables import jobs, workers

_LOST = (
    f"the worker was lost {MAX_ATTEMPTS} times while it made this; "
    "ask for fewer frames, or try again later"
)
_AGAIN_SECONDS = 2.0  # a living worker renews its lease several times meanwhile
_LONGEST_GAP = 5.0


class Silence:
    """For how long things have stayed the same, by a clock that cannot be set."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Uses a clock in seconds."""
        self._clock, self._looked_at = clock, clock()
        self._seconds: dict[Any, float] = {}

    def look(self, things: Iterable[Hashable]) -> dict[Any, float]:
        """For how many seconds each thing was seen unchanged; to be called every second or so.

        A long gap between two calls counts little: what stopped this process may also have stopped
        what it looks at.
        """
        now, before = self._clock(), self._seconds
        gap, self._looked_at = min(now - self._looked_at, _LONGEST_GAP), now
        self._seconds = {thing: before[thing] + gap if thing in before else 0.0 for thing in things}
        return self._seconds


class Expiry:
    """Notices expired leases.

    The database's clock may be set while workers live. So a lease counts as expired only if it was
    not renewed between two looks: for a short time if it is in the past, else for two leases.
    """

    def __init__(
        self, database: Database, lease: float, clock: Callable[[], float] = time.monotonic
    ):
        """Uses an open database, and a clock that cannot be set; `lease` is in seconds."""
        self._database, self._lease, self._silence = database, lease, Silence(clock)

    def put_back(self) -> None:
        """Puts back lost jobs; to be called every second or so."""
        held = sa.select(jobs.c.id, jobs.c.attempts, jobs.c.lease_until)
        held = held.where(jobs.c.state == RUNNING)
        with self._database.reading() as connection:
            now = self._database.now(connection)
            seen = [(tuple(row), row.lease_until < now) for row in connection.execute(held)]
        lost = {
            lease
            for (lease, is_past), seconds in self._silence.look(seen).items()
            if seconds >= (_AGAIN_SECONDS if is_past else 2 * self._lease)
        }
        if not lost:
            return
        # A job that another connection has locked is not silent, or that connection will end.
        held = held.where(jobs.c.id.in_([job for job, *_ in lost])).with_for_update(
            skip_locked=True
        )
        with self._database.writing() as connection:
            ids = [row.id for row in connection.execute(held) if tuple(row) in lost]
            put_back_or_fail(connection, jobs.c.id.in_(ids), self._database.now(connection), _LOST)


def lose(database: Database, worker: str) -> None:
    """Puts back or fails the jobs of a worker that is known to be dead."""
    with database.writing() as connection:
        put_back_or_fail(connection, jobs.c.worker == worker, database.now(connection), _LOST)
        connection.execute(sa.delete(workers).where(workers.c.name == worker))


def lose_all(database: Database) -> None:
    """Does the same for all workers, where all are known to be dead."""
    with database.writing() as connection:
        put_back_or_fail(connection, sa.true(), database.now(connection), _LOST)
        connection.execute(sa.delete(workers))
