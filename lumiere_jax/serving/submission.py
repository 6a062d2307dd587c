"""The one way into the queue: a job is checked with its files, and accepted or refused."""

import dataclasses
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import UploadFile
from prometheus_client import Counter
from starlette.exceptions import HTTPException

from lumiere_jax.cascade.config import frame_multiple
from lumiere_jax.inference.tasks import FILES, TASKS
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import decoding, refusals, requests, uploads
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.queue import ClientQueue, Job, QueueFull
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.shares import Shares

_DECODERS = 2  # uploads that are checked together: each may take much memory
_MOST_UPLOADS = 16  # that are checked, or wait for it on the disk


class JobForm(requests.Options):  # type: ignore[valid-type, misc]  # made from a declaration
    """A job to do: its fields, and its files."""

    image: UploadFile | None = None
    video: UploadFile | None = None
    mask: UploadFile | None = None


@dataclasses.dataclass
class Submission:
    """Accepts jobs, and counts those that it accepted and refused."""

    _store: ClientQueue
    _models: Models
    _settings: Settings
    _accepted: Counter
    _refused: Counter

    def __post_init__(self) -> None:
        limits = self._settings.limits
        self._room = {"max_queue": limits.queue, "max_per_client": limits.queue_per_client}
        self._decoders = CapacityLimiter(_DECODERS)
        self._uploads = Shares(_MOST_UPLOADS)

    async def accept(self, form: JobForm, client: str) -> Job:
        """Accepts the job of a client, or raises `HTTPException` with a reason."""
        try:
            await anyio.to_thread.run_sync(self._check_room, client)
            given = {name: getattr(form, name) for name in FILES if getattr(form, name)}
            asked = requests.check(form, set(given), self._models, self._settings.limits)
            if given:
                job = await self._accept_files(form.task, asked, given, client)
            else:
                job = await anyio.to_thread.run_sync(self._accept, form.task, asked, {}, client)
        except QueueFull as error:
            self._refused.inc()
            raise refusals.later(str(error)) from error
        except UserError as error:
            is_foreign = isinstance(error, uploads.UploadError) and error.is_foreign
            raise HTTPException(415 if is_foreign else 422, str(error)) from error
        self._accepted.labels(job.task).inc()
        return job

    async def _accept_files(
        self, task: str, asked: dict[str, Any], given: dict[str, UploadFile], client: str
    ) -> Job:
        """Checks files and keeps them; they are in memory only while it is their turn."""
        if not self._uploads.take(client):
            raise QueueFull("too many files are being uploaded; try again later")
        try:
            async with self._decoders:
                files = {name: await file.read() for name, file in given.items()}
                told = await anyio.to_thread.run_sync(self._check_files, task, files)
                options = asked | told
                return await anyio.to_thread.run_sync(self._accept, task, options, files, client)
        finally:
            self._uploads.give(client)

    def _check_files(self, task: str, files: dict[str, bytes]) -> dict[str, str]:
        """Checks files; what was understood of a mask, to be shown among the options."""
        model, settings = self._models.by_base[TASKS[task].base], self._settings
        least = 1 if task == "extend" else frame_multiple(model.config)
        found = decoding.decode(
            files, fps=model.fps, side=model.sizes[-1], least_frames=least, limits=settings.limits,
            scratch=settings.scratch, keeps=False,
        )  # fmt: skip
        return {"region": found.region} if found.region else {}

    def _check_room(self, client: str) -> None:
        self._store.check_room(client=client, **self._room)

    def _accept(
        self, task: str, asked: dict[str, Any], files: dict[str, bytes], client: str
    ) -> Job:
        key = requests.batch_key(task, asked)
        return self._store.submit(task, asked, files, batch_key=key, client=client, **self._room)
