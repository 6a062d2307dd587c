"""The queue as its two sides see it: those who ask for videos, and those who make them.

`Store` and `Leases` keep it in a database. Whoever wants another queue, or workers that are not
processes of this program, such as actors of Ray, needs no more than what stands here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lumiere_jax.serving.states import FINISHED


class QueueError(Exception):
    """The queue cannot be reached now; the call may have had its effect, and may be repeated."""


class QueueFull(Exception):
    """As many jobs wait as may, of all clients or of one; the message says of whom."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A job at one moment; times are seconds since 1970."""

    id: str  # a name that cannot be guessed
    task: str
    state: str
    options: dict[str, Any]  # all that the task needs beside its inputs, checked
    client: str | None  # who sent it, as a hash
    batch_key: str | None  # equal for jobs that can be made together; None: alone
    attempts: int  # how often a worker began it
    worker: str | None  # who has it, or had it last
    lease_until: float | None  # when that worker counts as lost
    progress: dict[str, Any] | None  # see `Watch.progress`; None before it begins
    previews: int  # how many there were so far
    video_bytes: int | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self.state in FINISHED


class ClientQueue(Protocol):
    """What the HTTP interface does with jobs. Safe for several threads and processes.

    Every method may raise `QueueError`.
    """

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
        """Accepts a job, which is not lost once this has returned. Raises `QueueFull`."""

    def check_room(
        self, max_queue: int, client: str | None = None, max_per_client: int | None = None
    ) -> None:
        """Raises `QueueFull` if a job would be refused now."""

    def get(self, job: str) -> Job | None:
        """A job, or None if there is none of this name."""

    def get_many(self, ids: Sequence[str]) -> list[Job]:
        """The jobs of these names that exist, the newest first."""

    def sent_by(
        self, client: str, *, after: Job | None, limit: int, newest_first: bool
    ) -> list[Job]:
        """Up to `limit` jobs of a client in the order of their submission, those after a job."""

    def position(self, job: Job) -> int | None:
        """How many jobs are ahead of a waiting one; None for a job that does not wait."""

    def video(self, job: str) -> bytes | None:
        """The result of a job, an MP4."""

    def preview(self, job: str) -> bytes | None:
        """The newest picture of a job's intermediate frames, a PNG."""

    def cancel(self, job: str) -> Job | None:
        """Ends a job that waits or runs; a finished one stays as it is."""

    def delete(self, job: str) -> bool:
        """Ends a job and forgets it, with all that was kept of it; False if there was none."""

    def counts(self) -> dict[str, int]:
        """The number of jobs in each state."""

    def oldest_wait(self) -> float:
        """Seconds that the job at the head of the queue has waited; 0 for an empty queue."""

    def living_workers(self, within: float) -> list[str]:
        """Workers that gave a sign of life within the last seconds."""


class WorkerQueue(Protocol):
    """What one worker does with jobs. Every method may raise `QueueError`.

    A job that was claimed belongs to the worker until it hands it in or gives it back, or is silent
    for the time of its lease. What it says of a job that is no longer its own has no effect.
    """

    def sign_on(self) -> None:
        """Records that the worker is alive; to be called now and then."""

    def sign_off(self) -> None:
        """Gives back its jobs, and removes the worker."""

    def give_back(self) -> None:
        """Puts back all its jobs; the attempt is not counted, since it was not their fault."""

    def claim(self) -> Job | None:
        """The oldest waiting job; no other worker gets it."""

    def claim_more(self, first: Job, count: int) -> list[Job]:
        """Up to `count` jobs that can be made together with one that was just claimed."""

    def files(self, job: Job) -> dict[str, bytes]:
        """What was uploaded with a job, by name."""

    def report(
        self, batch: Sequence[Job], progress: Mapping[str, Any], shown: Mapping[str, bytes]
    ) -> set[str]:
        """Renews the leases, and records progress and new previews by job.

        Returns the jobs that still belong to the worker; others were cancelled, or taken away.
        """

    def finish(self, job: Job, video: bytes) -> bool:
        """Keeps a result; False if the job no longer belongs to the worker."""

    def fail(self, batch: Sequence[Job], error: str) -> None:
        """Ends jobs with a reason."""

    def put_back(self, batch: Sequence[Job], error: str, *, free_for: float = 0.0) -> None:
        """Puts back jobs that could not be made, or fails them if it is not the first time.

        The attempt is not counted within `free_for` seconds after a job's acceptance.
        """
