"""The HTTP interface: its routes and its errors."""

import dataclasses
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, FastAPI, Form, Header, Query, Request, Response, UploadFile
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException  # FastAPI raises it, and none of its own

import lumiere_jax
from lumiere_jax.cascade.config import frame_multiple
from lumiere_jax.inference.tasks import FILES, TASKS
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import decoding, replies, requests, uploads
from lumiere_jax.serving.guard import Guard, HeadAsGet
from lumiere_jax.serving.metrics import Metrics
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.replies import Health, Info, JobReply, Problem
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.states import DONE, QUEUED
from lumiere_jax.serving.store import Job, QueueFull, Store

PAGE = Path(__file__).parent / "page"
_DECODERS = 2  # uploads that are checked together: each may take much memory
_MOST_WAITING = 8  # uploads that wait for that
_EVENT_SECONDS = 0.5
_RETRY_SECONDS = 15

_log = logging.getLogger("lumiere_jax.serving")


class JobForm(requests.Options):  # type: ignore[valid-type, misc]  # made from a declaration
    """A job to do: its fields, and its files."""

    image: UploadFile | None = None
    video: UploadFile | None = None
    mask: UploadFile | None = None


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The replies for errors: JSON, whatever else the route returns."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    problem = {"description": "Why it was refused.", "content": {"application/json": schema}}
    return {code: problem for code in (*codes, 503)}


def make_app(
    store: Store,
    models: Models,
    settings: Settings,
    keys: Sequence[str] = (),
    is_stopping: Callable[[], bool] = lambda: False,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """The application; see `Guard` for keys and hosts. `is_stopping` tells streams to end."""
    app = FastAPIOffline(
        title="lumiere_jax",
        version=lumiere_jax.__version__,
        redoc_url=None,
        description="Videos from texts, pictures and videos. A job is submitted, followed and "
        "fetched by its id; whoever knows the id may read the job.",
    )
    metrics, info = Metrics(store, settings.lease), replies.info(models, settings, bool(keys))
    routes = _Routes(store, models, settings, metrics, info, is_stopping)
    # A character of a prompt takes up to 12 bytes in a form that is not multipart.
    form_limits = {"max_fields": 50, "max_files": 10}
    form_limits["max_part_size"] = 4096 + 12 * settings.limits.prompt
    routed: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("/jobs", routes.submit, {"methods": ["POST"], "status_code": 202,
            "form_limits": form_limits, "responses": _problems(
            400, 401, 403, 413, 415, 422, 429)}),
        ("/jobs", routes.list_jobs, {"responses": _problems(422)}),
        ("/jobs/{job_id}", routes.show, {"responses": _problems(404, 422)}),
        ("/jobs/{job_id}", routes.cancel, {"methods": ["DELETE"], "responses": _problems(
            401, 403, 404, 422)}),
        ("/jobs/{job_id}/events", routes.events, {"response_class": EventSourceResponse,
            "dependencies": [Depends(routes.check_stream)], "responses": _problems(404, 422, 429)}),
        ("/jobs/{job_id}/video", routes.video, {"response_class": Response, "responses": {
            200: {"content": {"video/mp4": {}}}, 206: {"content": {"video/mp4": {}}},
            416: {"content": {"video/mp4": {}}}} | _problems(404, 409, 422)}),
        ("/jobs/{job_id}/preview.png", routes.preview, {"response_class": Response, "responses": {
            200: {"content": {"image/png": {}}}} | _problems(404, 422)}),
        ("/info", routes.info, {"responses": {503: {"model": Problem}}}),
        ("/health", routes.health, {"responses": {503: {"model": Health}}}),
        ("/health/live", routes.live, {}),
        ("/metrics", routes.metrics, {"response_class": Response, "responses": {
            200: {"content": {"text/plain": {}}}} | _problems(401)}),
    ]  # fmt: skip
    for path, view, options in routed:
        app.add_api_route(f"/api/v1{path}", view, **{"methods": ["GET"]} | options)
    for kind, tell in _HANDLERS.items():
        app.exception_handler(kind)(tell)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_middleware(HeadAsGet)
    app.add_middleware(Guard, max_bytes=settings.limits.upload_bytes, keys=list(keys), hosts=hosts)
    app.add_middleware(metrics.middleware)
    return app


@dataclasses.dataclass
class _Routes:
    """The functions of the routes."""

    _store: Store
    _models: Models
    _settings: Settings
    _metrics: Metrics
    _info: Info
    _is_stopping: Callable[[], bool]
    _streams = 0

    def __post_init__(self) -> None:
        self._decoders = CapacityLimiter(_DECODERS)

    async def submit(self, form: Annotated[JobForm, Form()]) -> JobReply:
        """Accept a job, or refuse it with a reason."""
        if await anyio.to_thread.run_sync(self._store.is_full, self._settings.limits.queue):
            raise self._full()
        given = {name: getattr(form, name) for name in FILES if getattr(form, name)}
        try:
            asked = requests.check(form, set(given), self._models, self._settings.limits)
            if given:
                job = await self._accept_files(form.task, asked, given)
            else:
                job = await anyio.to_thread.run_sync(self._accept, form.task, asked, {})
        except QueueFull as error:
            raise self._full() from error
        except UserError as error:
            is_foreign = isinstance(error, uploads.UploadError) and error.is_foreign
            raise HTTPException(415 if is_foreign else 422, str(error)) from error
        self._metrics.accepted.labels(job.task).inc()
        return await anyio.to_thread.run_sync(self._reply, job)

    async def _accept_files(
        self, task: str, asked: dict[str, Any], given: dict[str, UploadFile]
    ) -> Job:
        """Checks files and keeps them; they are in memory only while it is their turn."""
        if self._decoders.statistics().tasks_waiting >= _MOST_WAITING:
            self._metrics.refused.inc()
            raise _later("too many files are being uploaded; try again later")
        async with self._decoders:
            files = {name: await file.read() for name, file in given.items()}
            told = await anyio.to_thread.run_sync(self._check_files, task, files)
            return await anyio.to_thread.run_sync(self._accept, task, asked | told, files)

    def _check_files(self, task: str, files: dict[str, bytes]) -> dict[str, str]:
        """Checks files; what was understood of a mask, to be shown among the options."""
        model, settings = self._models.by_base[TASKS[task].base], self._settings
        least = 1 if task == "extend" else frame_multiple(model.config)
        found = decoding.decode(
            files, fps=model.fps, side=model.sizes[-1], least_frames=least, limits=settings.limits,
            scratch=settings.scratch, keeps=False,
        )  # fmt: skip
        return {"region": found.region} if found.region else {}

    def _accept(self, task: str, asked: dict[str, Any], files: dict[str, bytes]) -> Job:
        key, limit = requests.batch_key(task, asked), self._settings.limits.queue
        return self._store.submit(task, asked, files, batch_key=key, max_queue=limit)

    def _full(self) -> HTTPException:
        self._metrics.refused.inc()
        return _later(f"{self._settings.limits.queue} jobs are waiting; try again later")

    def list_jobs(
        self, ids: Annotated[list[uuid.UUID], Query(max_length=100, description="Ids of jobs.")]
    ) -> list[JobReply]:
        """The jobs of these ids that exist, the newest first."""
        return [self._reply(job) for job in self._store.get_many([str(job) for job in ids])]

    def show(self, job_id: uuid.UUID) -> JobReply:
        """The job as it is now."""
        return self._reply(self._found(job_id))

    def cancel(self, job_id: uuid.UUID) -> JobReply:
        """End a job that waits or runs; a finished one stays as it is."""
        job = self._store.cancel(str(job_id))
        if job is None:
            raise _no_such_job()
        return self._reply(job)

    async def check_stream(self, job_id: uuid.UUID) -> AsyncIterator[None]:
        """Refuses a stream while there can still be a status code; counts it while it lasts."""
        await anyio.to_thread.run_sync(self._found, job_id)
        if self._streams >= self._settings.limits.streams:
            raise _later("too many clients follow jobs now; request the job itself now and then")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def events(self, job_id: uuid.UUID) -> AsyncIterator[ServerSentEvent]:
        """The job whenever it changes, until it has ended: server-sent events named `job`.

        Each event is the whole state, so a client that connects again misses nothing.
        """
        last, number = None, 0
        while not self._is_stopping():
            job = await anyio.to_thread.run_sync(self._store.get, str(job_id))
            if job is None:
                return
            reply = await anyio.to_thread.run_sync(self._reply, job)
            if reply != last:
                last, number = reply, number + 1
                yield ServerSentEvent(event="job", data=reply, id=str(number))
            if job.is_finished:
                return
            await anyio.sleep(_EVENT_SECONDS)

    def video(
        self, job_id: uuid.UUID, range: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """The video of a finished job, an MP4; ranges are supported."""
        job = self._found(job_id)
        content = self._store.video(job.id) if job.state == DONE else None
        if content is None:
            raise HTTPException(409, f"there is no video: the job is {job.state}")
        return replies.ranged(content, "video/mp4", f"lumiere-{job.id[:8]}.mp4", range)

    def preview(self, job_id: uuid.UUID) -> Response:
        """Some frames of the unfinished video, a PNG."""
        content = self._store.preview(self._found(job_id).id)
        if content is None:
            raise HTTPException(404, "this job has no preview yet")
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-cache"})

    def info(self) -> Info:
        """What the server can do, and its limits."""
        return self._info

    def health(self, response: Response) -> Health:
        """Whether jobs are accepted and made; 503 if not."""
        health = Health(live=True, ready=False, workers=0, queued=None, reason=None)
        try:
            health.workers = len(self._store.living_workers(self._settings.lease))
            health.queued = self._store.counts()[QUEUED]
            health.reason = None if health.workers else "no worker is running"
        except SQLAlchemyError:
            health.reason = "the database cannot be reached"
        health.ready = health.reason is None
        response.status_code = 200 if health.ready else 503
        return health

    async def live(self) -> dict[str, bool]:
        """Whether this process answers."""
        return {"live": True}

    def metrics(self) -> Response:
        """Metrics for Prometheus."""
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4")

    def _found(self, job_id: uuid.UUID) -> Job:
        job = self._store.get(str(job_id))
        if job is None:
            raise _no_such_job()
        return job

    def _reply(self, job: Job) -> JobReply:
        return replies.job_reply(job, self._store.position(job))


def _later(detail: str) -> HTTPException:
    return HTTPException(429, detail, {"Retry-After": str(_RETRY_SECONDS)})


def _no_such_job() -> HTTPException:
    return HTTPException(404, "there is no such job; finished jobs are deleted after some time")


async def _tell_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """One sentence per mistake, in place of FastAPI's list."""
    sentences = []
    for mistake in error.errors()[:5]:
        place = ".".join(str(part) for part in mistake["loc"][1:]) or str(mistake["loc"][0])
        sentences.append(f"{place}: {mistake['msg']}")
    detail = "; ".join(dict.fromkeys(sentences))  # a dependency and its route report the same
    return JSONResponse({"detail": detail[:1000]}, 422)


def _unavailable(detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, 503, {"Retry-After": str(_RETRY_SECONDS)})


async def _tell_unreachable(request: Request, error: SQLAlchemyError) -> JSONResponse:
    _log.error("the database: %s", error)
    return _unavailable("the database of jobs cannot be reached; try again later")


async def _tell_full(request: Request, error: OSError) -> JSONResponse:
    _log.error("a file cannot be written or read: %s", error)
    return _unavailable("the server cannot store files now; try again later")


async def _tell_refused(request: Request, error: HTTPException) -> Response:
    """As FastAPI does; but FastAPI takes a full disk for a mistake in the body."""
    if error.status_code == 400 and isinstance(error.__cause__, OSError):
        return await _tell_full(request, error.__cause__)
    return await http_exception_handler(request, error)


async def _tell_defect(request: Request, error: Exception) -> JSONResponse:
    """A defect of the server: it is in the log, and the client must not see it."""
    return JSONResponse({"detail": "something went wrong in the server; its log has more"}, 500)


_HANDLERS: dict[type[Exception], Callable[..., Any]] = {
    RequestValidationError: _tell_invalid,
    SQLAlchemyError: _tell_unreachable,
    OSError: _tell_full,
    HTTPException: _tell_refused,
    Exception: _tell_defect,
}
