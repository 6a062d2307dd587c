"""The tables of the queue, for SQLite and PostgreSQL alike."""

from typing import Literal, get_args

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 1
State = Literal["queued", "running", "done", "failed", "cancelled"]
QUEUED, RUNNING, DONE, FAILED, CANCELLED = STATES = get_args(State)
FINISHED = (DONE, FAILED, CANCELLED)
MAX_ATTEMPTS = 2

metadata = MetaData()

versions = Table("lumiere_version", metadata, Column("version", Integer, primary_key=True))

# Times are seconds since 1970 by the database's clock, since clocks of machines differ.
jobs = Table(
    "lumiere_jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("batch_key", Text),  # equal for jobs that can be made together; null: alone
    Column("attempts", Integer, nullable=False, default=0),
    Column("worker", String(128)),
    Column("lease_until", Float),
    Column("progress", JSON),
    Column("previews", Integer, nullable=False, default=0),
    Column("video_bytes", Integer),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Index("lumiere_jobs_by_state", "state", "created_at"),
)


def _blobs(name: str, *more: Column) -> Table:
    """Bytes of a job, in a table of their own, so that reading a job does not read them."""
    job: Column[str] = Column("job", ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True)
    return Table(name, metadata, job, *more, Column("content", LargeBinary, nullable=False))


inputs = _blobs("lumiere_inputs", Column("name", String(16), primary_key=True))
previews = _blobs("lumiere_previews")
videos = _blobs("lumiere_videos")

workers = Table(
    "lumiere_workers",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("seen_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
)
