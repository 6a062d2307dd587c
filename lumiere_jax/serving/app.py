"""The HTTP interface: its routes; see `videos` for those of OpenAI's clients."""

import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, FastAPI, Form, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import lumiere_jax
from lumiere_jax.serving import refusals, replies, videos
from lumiere_jax.serving.guard import Guard, HeadAsGet
from lumiere_jax.serving.metrics import Metrics
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.page.gate import Gate
from lumiere_jax.serving.page.kept import Kept
from lumiere_jax.serving.queue import ClientQueue, Job, QueueError
from lumiere_jax.serving.refusals import Problem
from lumiere_jax.serving.replies import Health, Info, JobReply
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.shares import Shares
from lumiere_jax.serving.states import DONE, QUEUED
from lumiere_jax.serving.submission import JobForm, Submission

_EVENT_SECONDS = 0.5


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The replies for errors: JSON, whatever else the route returns."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    problem = {"description": "Why it was refused.", "content": {"application/json": schema}}
    return {code: problem for code in (*codes, 503)}


def make_app(
    store: ClientQueue,
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
    kept = Kept(settings.scratch / "gradio", settings.limits.upload_bytes)
    gate = Gate(
        lambda: _load_page(app, info, models, settings, kept),
        kept=kept,
        keys=keys,
        max_streams=4 * settings.limits.streams,
        framed_by=settings.framed_by,
    )
    app.router.lifespan_context = lambda app: gate.loaded()
    metrics, info = Metrics(store, settings.lease), replies.info(models, settings, bool(keys))
    submission = Submission(store, models, settings, metrics.accepted, metrics.refused)
    routes = _Routes(store, models, settings, metrics, submission, info, is_stopping)
    form_limits = {"max_fields": 50, "max_files": 10, "max_part_size": settings.limits.text}
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
    app.include_router(videos.router(store, models, settings, submission, bool(keys)))
    for kind, tell in refusals.HANDLERS.items():
        app.exception_handler(kind)(tell)
    app.mount("/", gate)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Guard, max_bytes=settings.limits.upload_bytes, keys=list(keys), hosts=hosts)
    app.add_middleware(metrics.middleware)
    return app


def _load_page(app: FastAPI, info: Info, models: Models, settings: Settings, kept: Kept) -> FastAPI:
    from lumiere_jax.serving.page import blocks  # imports Gradio, which takes seconds

    return blocks.build(app, info, models, settings, kept)


@dataclasses.dataclass
class _Routes:
    """The functions of the routes."""

    _store: ClientQueue
    _models: Models
    _settings: Settings
    _metrics: Metrics
    _submission: Submission
    _info: Info
    _is_stopping: Callable[[], bool]

    def __post_init__(self) -> None:
        self._streams = Shares(self._settings.limits.streams)

    async def submit(self, request: Request, form: Annotated[JobForm, Form()]) -> JobReply:
        """Accept a job, or refuse it with a reason."""
        job = await self._submission.accept(form, request.state.client)
        return await anyio.to_thread.run_sync(self._reply, job)

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
            raise refusals.no_such_job()
        return self._reply(job)

    async def check_stream(self, job_id: uuid.UUID, request: Request) -> AsyncIterator[None]:
        """Refuses a stream while there can still be a status code; counts it while it lasts."""
        await anyio.to_thread.run_sync(self._found, job_id)
        if not self._streams.take(request.state.client):
            raise refusals.later("too many streams follow jobs now; request the job now and then")
        try:
            yield
        finally:
            self._streams.give(request.state.client)

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
        except QueueError:
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
            raise refusals.no_such_job()
        return job

    def _reply(self, job: Job) -> JobReply:
        return replies.job_reply(job, self._store.position(job), self._models)
