"""The tables of the queue, for SQLite and PostgreSQL alike."""

import sqlalchemy as sa

VERSION = 2

metadata = sa.MetaData()
versions = sa.Table("lumiere_version", metadata, sa.Column("version", sa.Integer, primary_key=True))

# Times are seconds since 1970 by the database's clock, since clocks of machines differ.
jobs = sa.Table(
    "lumiere_jobs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("task", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column(
        "client", sa.String(64)
    ),  # who sent it, as a hash; null: before there was this column
    sa.Column("batch_key", sa.Text),  # equal for jobs that can be made together; null: alone
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(128)),
    sa.Column("lease_until", sa.Float),
    sa.Column("progress", sa.JSON),
    sa.Column("previews", sa.Integer, nullable=False, default=0),
    sa.Column("video_bytes", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Index("lumiere_jobs_by_state", "state", "created_at"),
)


def _blobs(name: str, *more: sa.Column) -> sa.Table:
    """Bytes of a job, in a table of their own, so that reading a job does not read them."""
    of_job = sa.ForeignKey(jobs.c.id, ondelete="CASCADE")
    job: sa.Column[str] = sa.Column("job", of_job, primary_key=True)
    content = sa.Column("content", sa.LargeBinary, nullable=False)
    return sa.Table(name, metadata, job, *more, content)


inputs = _blobs("lumiere_inputs", sa.Column("name", sa.String(16), primary_key=True))
previews = _blobs("lumiere_previews")
videos = _blobs("lumiere_videos")

workers = sa.Table(
    "lumiere_workers",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
)
