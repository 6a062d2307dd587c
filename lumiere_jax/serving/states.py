"""The states of a job."""

from typing import Literal, get_args

State = Literal["queued", "running", "done", "failed", "cancelled"]
QUEUED, RUNNING, DONE, FAILED, CANCELLED = get_args(State)
FINISHED = (DONE, FAILED, CANCELLED)
MAX_ATTEMPTS = 2
