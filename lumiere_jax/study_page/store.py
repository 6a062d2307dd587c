"""The answers of a served study, in SQLite.

Every answer is one transaction, on the disk before it is acknowledged. A rater's later answer to
the same question of the same pair replaces the earlier one (the last write wins); `history` keeps
all of them.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from lumiere_jax.metrics.user_study import Judgement, Pair, Study, arrange, left_video
from lumiere_jax.runtime.errors import UserError

_APPLICATION_ID = 0x4C755374  # "LuSt", where SQLite keeps whose file it is
_TIMEOUT_SECONDS = 30.0
_PENDING_MILLISECONDS = 3_600_000

_SCHEMA = """
CREATE TABLE study (key TEXT NOT NULL);
CREATE TABLE raters (rater TEXT PRIMARY KEY, started_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE assignments (
    rater TEXT NOT NULL REFERENCES raters, position INTEGER NOT NULL, pair TEXT NOT NULL,
    PRIMARY KEY (rater, position), UNIQUE (rater, pair)
) WITHOUT ROWID;
CREATE INDEX assignments_of_pair ON assignments (pair);
CREATE TABLE answers (
    rater TEXT NOT NULL, pair TEXT NOT NULL, question TEXT NOT NULL,
    chosen TEXT NOT NULL, left_video TEXT NOT NULL, answered_at INTEGER NOT NULL,
    PRIMARY KEY (rater, pair, question),
    FOREIGN KEY (rater, pair) REFERENCES assignments (rater, pair)
) WITHOUT ROWID;
CREATE TABLE history (
    rater TEXT NOT NULL, pair TEXT NOT NULL, question TEXT NOT NULL,
    chosen TEXT NOT NULL, answered_at INTEGER NOT NULL
);
"""


class Store:
    """The SQLite file of one study. Safe for threads and processes at once."""

    def __init__(self, path: str | Path, study: Study):
        """Opens the file, or makes it; a `UserError` if it is damaged or of another study."""
        self.path, self.study = Path(path), study
        try:
            with self._transaction() as connection:
                self._prepare(connection)
            with contextlib.closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            raise UserError(f"the answers {path} cannot be opened for writing ({error})") from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{path} is damaged or not a file of answers ({error}); restore it, or move it away"
            ) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Makes the tables of a new file, or looks whether the file is ours."""
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO study VALUES (?)", (self.study.key,))
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            return
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise UserError(
                f"{self.path} is a SQLite file, but not one of answers; give another --output"
            )
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        if connection.execute("SELECT key FROM study").fetchone()[0] != self.study.key:
            raise UserError(f"{self.path} has the answers of another study; give another --output")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_TIMEOUT_SECONDS, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that writes; what it did is kept whole, or not at all."""
        with contextlib.closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def register(self, rater: str) -> None:
        """Gives a rater pairs, those with the fewest judgements first; again does nothing.

        A pair counts once for each rater who answered about it, or who came within the last hour
        and may yet answer.
        """
        now = _now()
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM raters WHERE rater = ?", (rater,)).fetchone():
                return
            counts = connection.execute(
                "SELECT pair, count(*) FROM assignments JOIN raters USING (rater)"
                " WHERE started_at > ? OR EXISTS (SELECT 1 FROM answers"
                " WHERE answers.rater = assignments.rater AND answers.pair = assignments.pair)"
                " GROUP BY pair",
                (now - _PENDING_MILLISECONDS,),
            )
            pairs = arrange(self.study, rater, dict(counts.fetchall()))
            connection.execute("INSERT INTO raters VALUES (?, ?)", (rater, now))
            connection.executemany(
                "INSERT INTO assignments VALUES (?, ?, ?)",
                [(rater, position, pair.key) for position, pair in enumerate(pairs)],
            )

    def assigned(self, rater: str) -> list[Pair]:
        """The pairs of a rater in order; none for one who is not registered."""
        with contextlib.closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT pair FROM assignments WHERE rater = ? ORDER BY position", (rater,)
            ).fetchall()
        pairs = {pair.key: pair for pair in self.study.pairs}
        return [pairs[key] for (key,) in rows]

    def answer(self, rater: str, pair: Pair, question: str, chosen: str) -> bool:
        """Stores an answer; False if the rater does not have this pair."""
        now = _now()
        place = (rater, pair.key, question)
        with self._transaction() as connection:
            assigned = connection.execute(
                "SELECT 1 FROM assignments WHERE rater = ? AND pair = ?", place[:2]
            )
            if assigned.fetchone() is None:
                return False
            old = connection.execute(
                "SELECT chosen FROM answers WHERE rater = ? AND pair = ? AND question = ?", place
            )
            if old.fetchone() == (chosen,):
                return True  # the same answer twice, as a double click or a lost reply sends it
            connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                (*place, chosen, left_video(self.study, rater, pair), now),
            )
            connection.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?)", (*place, chosen, now))
        return True

    def judgements(self, rater: str | None = None) -> list[Judgement]:
        """All answers, or those of one rater."""
        with contextlib.closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT rater, pair, question, chosen, left_video, answered_at FROM answers"
                " WHERE ?1 IS NULL OR rater = ?1 ORDER BY answered_at",
                (rater,),
            ).fetchall()
        return [Judgement(*row) for row in rows]


def _now() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
