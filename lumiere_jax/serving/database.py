"""The database of the queue: SQLite in a file, or PostgreSQL by its URL."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import tables
from lumiere_jax.serving.queue import QueueError

_LOCK_SECONDS = 30.0
_SCHEMA_LOCK = 0x4C756D31  # any number that others are unlikely to take for theirs
_SUBMIT_LOCK = 0x4C756D32

# A machine that vanished must not hold locks for hours, nor a silent network hold a worker: both
# ends ask for signs of life. An upload or video of 32 MiB takes 120 s at 2.3 Mbit/s. Waiting for a
# lock may take longer than a transaction may be idle.
_CLIENT = {
    "connect_timeout": 10,  # seconds
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
_SESSION = {
    "statement_timeout": "120s",
    "lock_timeout": "60s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
# Not options of the connection: PgBouncer does not accept them.
_SET = """
    SELECT set_config(name, value, false)
    FROM pg_settings JOIN unnest(%s::text[], %s::text[]) AS ours (name, value) USING (name)
    WHERE source = 'default'
"""


class Database:
    """Transactions on the queue's database. Safe for several threads and processes."""

    def __init__(self, url: str):
        """Opens it, and creates the tables if there are none.

        Raises:
          UserError: if the URL is not of SQLite or PostgreSQL, or the database cannot be used.
        """
        parsed = _parse(url)
        self.is_postgres = parsed.get_backend_name() == "postgresql"
        self.shown = parsed.render_as_string(hide_password=True)  # for messages
        try:
            self._engine = _postgres(parsed) if self.is_postgres else _sqlite(parsed)
            try:
                self._prepare()
            except BaseException:
                self._engine.dispose()
                raise
        except ImportError as error:
            raise UserError(
                f"--database={self.shown} needs {error.name}: pip install 'lumiere_jax[postgres]'"
            ) from error
        except (SQLAlchemyError, QueueError) as error:
            first = error.__cause__ if isinstance(error, QueueError) else error
            reason = str(getattr(first, "orig", None) or first).splitlines()[0]
            raise UserError(
                f"the database {self.shown} cannot be used ({reason}); give another --database, or "
                "start it."
            ) from error

    def _prepare(self) -> None:
        with self.writing() as connection:
            if self.is_postgres:  # servers that start together must not both create the tables
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            tables.metadata.create_all(connection)
            found = connection.scalar(sa.select(tables.versions.c.version))
            if found is None:
                connection.execute(sa.insert(tables.versions).values(version=tables.VERSION))
            elif found == 1:  # of 0.2.0
                connection.execute(
                    sa.text("ALTER TABLE lumiere_jobs ADD COLUMN client VARCHAR(64)")
                )
                connection.execute(sa.update(tables.versions).values(version=tables.VERSION))
            elif found != tables.VERSION:
                raise UserError(
                    f"the database {self.shown} has version {found}, but this program uses "
                    f"{tables.VERSION}; give another --database."
                )

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is kept whole or not at all; on SQLite, the only one that writes."""
        with _told(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state, and waits for no other."""
        with _told(), self._engine.connect() as connection:
            connection = connection.execution_options(lumiere_reads=True)
            with connection.begin():
                yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970, by the one clock that all processes share."""
        if not self.is_postgres:
            return time.time()
        seconds = sa.func.extract("epoch", sa.func.clock_timestamp())
        return float(connection.execute(sa.select(seconds)).scalar_one())

    def serialize_submissions(self, connection: sa.Connection) -> None:
        """Lets one transaction at a time count the queue and add to it."""
        if self.is_postgres:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SUBMIT_LOCK)))

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Makes an error of the queue of any error of the database."""
    try:
        yield
    except SQLAlchemyError as error:
        raise QueueError(str(error)) from error


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise UserError(
            "--database is not a URL; write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."
        ) from error
    kind = parsed.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise UserError(f"--database is {kind!r}; use sqlite:///FILE or postgresql://….")
    if kind == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UserError("--database=sqlite:/// needs a file that the workers can share; name one.")
    if kind == "sqlite" and parsed.database:
        parsed = parsed.set(database=os.path.expanduser(parsed.database))
    return parsed


def _postgres(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,  # ids of jobs are the right to read them
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=20,
        connect_args={name: _CLIENT[name] for name in _CLIENT.keys() - url.query.keys()},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # What the URL, the user or the database sets stays as it is.
        with connection.cursor() as cursor:
            cursor.execute(_SET, (list(_SESSION), list(_SESSION.values())))
        connection.commit()

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    # Of several that switch a new file at once, SQLite refuses all but one without waiting for
    # its timeout, as each holds the lock that the others need.
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _sqlite(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        hide_parameters=True,  # ids of jobs are the right to read them
        pool_size=5,
        max_overflow=40,
        connect_args={"timeout": _LOCK_SECONDS, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # or Python's module begins its own transactions
        _use_wal(connection)
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("lumiere_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
