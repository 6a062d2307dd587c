"""Jobs whose workers are gone: noticed, and put back, or ended if it is not the first time."""

import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.store import put_back_or_fail
from lumiere_jax.serving.tables import MAX_ATTEMPTS, RUNNING, jobs, workers

_LOST = (
    f"the worker was lost {MAX_ATTEMPTS} times while it made this; ask for less (fewer frames), or "
    "try again later"
)
_AGAIN_SECONDS = 2.0  # a worker that lives renews its lease several times meanwhile
_LONGEST_GAP = 5.0


class Silence:
    """For how long things have been as they are, by a clock that nobody sets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Takes a clock, in seconds."""
        self._clock, self._looked_at = clock, clock()
        self._seconds: dict[Any, float] = {}

    def look(self, things: Iterable[Hashable]) -> dict[Any, float]:
        """Takes all as they are now; to be called every second or so.

        Returns:
          For how many seconds each was seen unchanged. A gap between two calls counts little: what
          made this process stop may have stopped what it looks at.
        """
        now, before = self._clock(), self._seconds
        gap, self._looked_at = min(now - self._looked_at, _LONGEST_GAP), now
        self._seconds = {thing: before[thing] + gap if thing in before else 0.0 for thing in things}
        return self._seconds


class Expiry:
    """Notices leases that are over.

    The clock they are told by may be set while workers live, so one is over only if it was not
    renewed between two looks: by then in the past, or two leases long.
    """

    def __init__(
        self, database: Database, lease: float, clock: Callable[[], float] = time.monotonic
    ):
        """Takes an open database, the seconds of a lease, and a clock that nobody sets."""
        self._database, self._lease, self._silence = database, lease, Silence(clock)

    def put_back(self) -> None:
        """Looks, and puts back what is lost; to be called every second or so."""
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
        # What another holds a lock of is not silent, or its connection will end.
        held = held.where(jobs.c.id.in_([job for job, *_ in lost])).with_for_update(
            skip_locked=True
        )
        with self._database.writing() as connection:
            ids = [row.id for row in connection.execute(held) if tuple(row) in lost]
            put_back_or_fail(connection, jobs.c.id.in_(ids), self._database.now(connection), _LOST)


def lose(database: Database, worker: str) -> None:
    """What a worker had that is known to be dead goes back at once, or fails."""
    with database.writing() as connection:
        put_back_or_fail(connection, jobs.c.worker == worker, database.now(connection), _LOST)
        connection.execute(sa.delete(workers).where(workers.c.name == worker))


def lose_all(database: Database) -> None:
    """The same of all workers, where they are known to be dead."""
    with database.writing() as connection:
        put_back_or_fail(connection, sa.true(), database.now(connection), _LOST)
        connection.execute(sa.delete(workers))
