"""`/v1/videos`: the interface that clients of OpenAI's video servers speak, onto the same queue."""

import base64
import contextlib
import dataclasses
import io
import re
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import av
import pydantic_core
from fastapi import APIRouter, Header, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from lumiere_jax.inference.outputs import view_scale
from lumiere_jax.inference.tasks import TASKS
from lumiere_jax.serving import refusals, replies
from lumiere_jax.serving.model import Model, Models
from lumiere_jax.serving.queue import ClientQueue, Job
from lumiere_jax.serving.refusals import VideoProblem
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.states import CANCELLED, DONE, FAILED, QUEUED, RUNNING
from lumiere_jax.serving.submission import JobForm, Submission

Status = Literal["queued", "in_progress", "completed", "failed"]
_STATUS: dict[str, Status] = {
    QUEUED: "queued", RUNNING: "in_progress", DONE: "completed", FAILED: "failed",
    CANCELLED: "failed",
}  # fmt: skip
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
_MOST_JSON = 4 * 2**20  # bytes; they are in memory, but files are on the disk
_PICTURE, _PICTURE_URL = "input_reference", "input_reference[image_url]"


class VideoForm(JobForm):
    """A video to make: the fields of OpenAI's clients, and all options and files of a job."""

    task: Literal[tuple(TASKS)] | None = Field(  # type: ignore[valid-type]  # the table has the names
        None, description="`animate` with a picture and `text_to_video` without one, if not given."
    )
    model: str | None = Field(None, description="The name in `/v1/models`; there is one.")
    seconds: float | None = Field(
        None,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Duration, in place of `num_frames`.",
    )
    size: str | None = Field(
        None, pattern=r"^\d{1,5}x\d{1,5}$", description="WIDTHxHEIGHT, which must be what the "
        "weights make.",
    )  # fmt: skip
    input_reference: UploadFile | None = Field(
        None, description="The picture that the video begins with, as a file; in JSON, as "
        '`{"image_url": "data:image/png;base64,…"}`.',
    )  # fmt: skip


class Failure(BaseModel):
    """Why a video was not made."""

    code: Literal["cancelled", "failed"]
    message: str


class Video(BaseModel):
    """A video, made or to be made; times are seconds since 1970."""

    id: str = Field(description="The same as that of the job.")
    object: Literal["video"] = "video"
    status: Status
    progress: int = Field(description="Percent of all steps.")
    created_at: int
    completed_at: int | None
    expires_at: int | None = Field(description="When it is deleted; null before it has ended.")
    model: str
    prompt: str
    seconds: str | None = Field(description="Null if it is as long as a video that was sent.")
    size: str | None
    error: Failure | None


class VideoList(BaseModel):
    """Videos of an API key."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """A video that is no more."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class ModelReply(BaseModel):
    """The weights."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "lumiere_jax"


class ModelList(BaseModel):
    """The weights of this server: one bundle."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


def router(
    store: ClientQueue, models: Models, settings: Settings, submission: Submission, has_keys: bool
) -> APIRouter:
    """The routes of `/v1`."""
    routes, made = _Routes(store, models, settings, submission, has_keys), APIRouter(prefix="/v1")

    def add(path: str, view: Any, *codes: int, method: str = "GET", **options: Any) -> None:
        told = {"description": "Why it was refused.", "model": VideoProblem}
        problems: dict[int | str, dict[str, Any]] = {code: told for code in (*codes, 503)}
        options["responses"] = options.get("responses", {}) | problems
        made.add_api_route(path, view, methods=[method], **options)

    found: dict[int | str, Any] = {200: {"content": {"video/mp4": {}, "image/webp": {}}},
             206: {"content": {"video/mp4": {}}}, 416: {"content": {"video/mp4": {}}}}  # fmt: skip
    add("/videos", routes.create, 400, 401, 403, 404, 413, 415, 429, method="POST",
        openapi_extra={"requestBody": _body()})  # fmt: skip
    add("/videos", routes.list_videos, 400, 401, 403, 404)
    add("/videos/{video_id}", routes.show, 404)
    add("/videos/{video_id}", routes.delete, 401, 403, 404, method="DELETE")
    add("/videos/{video_id}/content", routes.content, 400, 404, responses=found,
        response_class=Response)  # fmt: skip
    add("/videos/{call:path}", routes.refuse_call, method="POST", include_in_schema=False)
    add("/models", routes.list_models)
    return made


def _body() -> dict[str, Any]:
    """The two forms of a request, for the schema."""
    whole = VideoForm.model_json_schema()
    files = ("image", "video", "mask")
    plain = {name: field for name, field in whole["properties"].items() if name not in files}
    url = {"type": "object", "properties": {"image_url": {"type": "string"}},
           "required": ["image_url"]}  # fmt: skip
    plain[_PICTURE] = {"anyOf": [url, {"type": "null"}]}
    kinds = {"multipart/form-data": whole, "application/json": whole | {"properties": plain}}
    return {"required": True, "content": {name: {"schema": kind} for name, kind in kinds.items()}}


@dataclasses.dataclass
class _Routes:
    """The functions of the routes."""

    _store: ClientQueue
    _models: Models
    _settings: Settings
    _submission: Submission
    _has_keys: bool

    async def create(self, request: Request) -> Video:
        """Accept a video to be made: multipart/form-data, or JSON."""
        async with _fields(request, self._settings.limits.text) as fields:
            job = await self._submission.accept(self._job(_form(fields)), request.state.client)
        return self._reply(job)

    def _job(self, form: VideoForm) -> JobForm:
        """The job that is meant."""
        if form.model not in (None, self._settings.model):
            raise _invalid(f"model: is not here; this server has {self._settings.model!r}", 404)
        if form.image and form.input_reference:
            raise _invalid("input_reference: is the same as image; send one of them")
        fields = {name: getattr(form, name) for name in JobForm.model_fields}
        fields["image"] = form.image or form.input_reference
        task = form.task or ("animate" if fields["image"] else "text_to_video")
        if task in self._models.tasks:  # or it is refused with all other jobs
            model = self._models.by_base[TASKS[task].base]
            fields |= _length(form, task, model)
            if form.size not in (None, size := _size(form.base_only, model)):
                raise _invalid(f"size: this video would have {size}; send that, or leave it out")
        return JobForm.model_construct(**fields | {"task": task})

    def list_videos(
        self,
        request: Request,
        after: Annotated[str | None, Query(max_length=100, description="Id of a video.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """The videos that were asked for with the same API key."""
        if not self._has_keys:  # an id is the right to read a video, and nobody else is to get it
            raise _invalid("without API keys the server cannot tell whose videos these are", 403)
        last = None if after is None else self._found(after)
        found = self._store.sent_by(
            request.state.client, after=last, limit=limit + 1, newest_first=order == "desc"
        )
        data = [self._reply(job) for job in found[:limit]]
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        more = len(found) > limit
        return VideoList(data=data, first_id=first_id, last_id=last_id, has_more=more)

    def show(self, video_id: str) -> Video:
        """The video as it is now."""
        return self._reply(self._found(video_id))

    def delete(self, video_id: str) -> Deleted:
        """Stop making a video, and delete all that is kept of it."""
        job = self._found(video_id)
        self._store.delete(job.id)
        return Deleted(id=job.id)

    def content(
        self,
        video_id: str,
        variant: Literal["video", "thumbnail"] = "video",
        range: Annotated[str | None, Header(max_length=200)] = None,
    ) -> Response:
        """The finished video, an MP4, or its first frame, a WebP."""
        job = self._found(video_id)
        content = self._store.video(job.id) if job.state == DONE else None
        if content is None:
            raise HTTPException(404, f"there is no content: the video is {_STATUS[job.state]}")
        if variant == "thumbnail":
            return Response(_thumbnail(content), media_type="image/webp")
        return replies.ranged(content, "video/mp4", f"lumiere-{job.id[:8]}.mp4", range)

    async def refuse_call(self, call: str) -> Response:
        """For calls of the clients that mean nothing here."""
        raise HTTPException(
            404, "this server does not remix, edit or extend by this call; POST /v1/videos takes a "
            "file `video` and task=video_to_video, inpaint, outpaint or extend",
        )  # fmt: skip

    async def list_models(self) -> ModelList:
        """What to call the weights."""
        return ModelList(data=[ModelReply(id=self._settings.model)])

    def _found(self, video_id: str) -> Job:
        try:
            job = self._store.get(str(uuid.UUID(video_id)))
        except ValueError:
            job = None
        if job is None:
            raise refusals.no_such_job()
        return job

    def _reply(self, job: Job) -> Video:
        model = self._models.by_base.get(TASKS[job.task].base)
        done, ended = job.state == DONE, job.finished_at
        return Video(
            id=job.id,
            status=_STATUS[job.state],
            progress=100 if done else int(99 * (job.progress or {}).get("fraction", 0)),
            created_at=int(job.created_at),
            completed_at=int(ended) if done and ended else None,
            expires_at=int(ended + self._settings.keep) if ended else None,
            model=self._settings.model,
            prompt=job.options["prompt"],
            seconds=_seconds(job, model) if model else None,
            size=_size(job.options["base_only"], model) if model else None,
            error=_failure(job),
        )


@contextlib.asynccontextmanager
async def _fields(request: Request, most_text: int) -> AsyncIterator[dict[str, Any]]:
    """The fields of a request, its files while this lasts."""
    if request.headers["content-type"].lower().startswith("application/json"):
        yield _checked(_from_json(await _body_of(request)), most_text)
        return
    limits = {"max_fields": 50, "max_files": 10, "max_part_size": _MOST_JSON}
    async with request.form(**limits) as form:
        yield _checked({name: value for name, value in form.items() if value != ""}, most_text)


async def _body_of(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_JSON:
            told = f"JSON may have {_MOST_JSON >> 20} MiB; send large pictures as files, in a form"
            raise HTTPException(413, told, {"Connection": "close"})
    return bytes(body)


def _from_json(body: bytes) -> dict[str, Any]:
    try:
        found = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _invalid(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _invalid("the body is JSON, but not an object of fields")
    return found


def _checked(fields: dict[str, Any], most_text: int) -> dict[str, Any]:
    """Fields without long texts, in which a picture that is a text has become a file."""
    picture = fields.pop(_PICTURE_URL, fields.get(_PICTURE))
    if isinstance(picture, dict):
        picture = picture.get("image_url")
    if isinstance(picture, str):
        fields[_PICTURE] = _decoded(picture)
    for name, value in fields.items():
        if isinstance(value, str) and len(value) > most_text:
            raise _invalid(f"{name[:99]}: is too long")
    return fields


def _decoded(url: str) -> UploadFile:
    start = _DATA_URL.match(url)
    if start is None:
        raise _invalid(
            "input_reference: send a file, or an image_url with data:image/png;base64,…; nothing "
            "is fetched from elsewhere"
        )
    try:
        return UploadFile(io.BytesIO(base64.b64decode(url[start.end() :], validate=True)))
    except ValueError as error:
        raise _invalid("input_reference: is not in base64") from error


def _form(fields: dict[str, Any]) -> VideoForm:
    try:
        return VideoForm.model_validate(fields)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        found = [{**mistake, "loc": ("body", *mistake["loc"])} for mistake in mistakes]
        raise RequestValidationError(found) from None


def _length(form: VideoForm, task: str, model: Model) -> dict[str, int]:
    """The number of frames, if seconds are given."""
    if form.seconds is None:
        return {}
    if form.num_frames is not None or "num_frames" not in TASKS[task].options:
        raise _invalid(f"seconds: does not go with num_frames, or the task {task!r}; leave it out")
    frames = form.seconds * model.fps
    if round(frames) < 1 or abs(frames - round(frames)) > 1e-6:
        raise _invalid(
            f"seconds: is no whole number of frames at {model.fps:g} fps; send a multiple of "
            f"{1 / model.fps:g}"
        )
    return {"num_frames": round(frames)}


def _size(base_only: bool, model: Model) -> str:
    """That of the MP4; small videos are enlarged."""
    side = model.sizes[0 if base_only else -1]
    side *= view_scale(side)
    return f"{side}x{side}"


def _seconds(job: Job, model: Model) -> str | None:
    if "video" in TASKS[job.task].files:
        return None
    return f"{(job.options.get('num_frames') or model.frames) / model.fps:g}"


def _failure(job: Job) -> Failure | None:
    if job.state == CANCELLED:
        return Failure(code="cancelled", message="the video was cancelled")
    return Failure(code="failed", message=job.error or "") if job.state == FAILED else None


def _thumbnail(video: bytes) -> bytes:
    """The first frame of a video of ours, a WebP."""
    with av.open(io.BytesIO(video), "r") as container:
        picture = next(container.decode(video=0)).to_image()
    content = io.BytesIO()
    picture.save(content, "WEBP")
    return content.getvalue()


def _invalid(detail: str, code: int = 400) -> HTTPException:
    return HTTPException(code, detail)
