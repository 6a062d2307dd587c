"""The log of server and workers: one line a message, in which no job can be read by its id."""

import hashlib
import logging
import re

NAMES = ("lumiere_jax.serving", "uvicorn.error")
_ID = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE)
# What PostgreSQL adds to an error has the values of the row.
_DETAIL = re.compile(r"^(DETAIL|CONTEXT):.*$", re.MULTILINE)


class Concealing(logging.Formatter):
    """Puts a short hash in the place of each job's id, which is the right to read the job."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of a record, that of its exception included."""
        return conceal(super().format(record))


def conceal(text: str) -> str:
    """A text without ids of jobs, and without the values that a database tells of."""
    return _ID.sub(lambda found: short(found[0]), _DETAIL.sub(r"\1: (left out)", text))


def short(job_id: str) -> str:
    """What the log calls a job: the same for the same one, and of no use to others."""
    plain = job_id.replace("-", "").lower()
    return hashlib.sha256(plain.encode()).hexdigest()[:8]


def log_plainly() -> None:
    """Writes each message of server and workers to stderr as one line with time and process."""
    handler = logging.StreamHandler()
    handler.setFormatter(Concealing("%(asctime)s %(processName)s: %(message)s"))
    for name in NAMES:
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.setLevel(logging.INFO if name == NAMES[0] else logging.WARNING)
        log.propagate = False
