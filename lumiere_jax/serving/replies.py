"""What the interface answers with."""

from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from lumiere_jax.serving.model import Model, Models
from lumiere_jax.serving.requests import described
from lumiere_jax.serving.settings import Limits, Settings
from lumiere_jax.serving.store import Job
from lumiere_jax.serving.tables import DONE, STATES
from lumiere_jax.serving.tasks import Task


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Progress(BaseModel):
    """How far a job is."""

    stage: str = Field(description="What is going on: `loading`, `base`, `super-resolution 1`, …")
    step: int
    total: int = Field(description="Steps of the stage.")
    fraction: float = Field(description="Of all stages, in [0, 1].")
    seconds_left: float | None = Field(description="An estimate; null while there is none.")


class JobReply(BaseModel):
    """A job."""

    id: str
    task: str
    state: Literal[STATES]
    options: dict[str, Any] = Field(description="As they were taken, with the seed.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None = Field(description="Jobs before it; null if it does not wait.")
    attempts: int = Field(description="Times that a worker began it.")
    progress: Progress | None
    error: str | None = Field(description="Why it failed.")
    previews: int = Field(description="Previews so far; a larger number is a newer picture.")
    video_bytes: int | None
    url: str
    events_url: str
    preview_url: str | None
    video_url: str | None


class TaskReply(BaseModel):
    """A task that can be asked for."""

    about: str
    files: list[str] = Field(description="What is to be uploaded.")
    options: list[str]
    fps: float
    frames: int = Field(description="Frames of a clip, if not asked otherwise.")
    frames_multiple: int = Field(description="A shorter clip has a multiple of so many.")
    sizes: list[int] = Field(description="Height and width after each stage.")
    steps: int = Field(description="Steps of the base, if not asked otherwise.")
    guidance_scale: float
    sampler: str
    samplers: list[str]


class LimitsReply(BaseModel):
    """The most that can be asked for."""

    queue: int
    prompt: int
    frames: int
    steps: int
    upload_bytes: int
    pixels: int
    seconds: float
    job_seconds: float
    keep_seconds: float


class Info(BaseModel):
    """What this server can do."""

    program: str
    license: str = Field(description="Of the weights.")
    needs_key: bool = Field(description="Whether submitting and cancelling need an API key.")
    tasks: dict[str, TaskReply]
    styles: list[str]
    limits: LimitsReply


class Health(BaseModel):
    """Whether jobs are accepted and made."""

    live: bool
    ready: bool
    workers: int = Field(description="Workers that gave a sign of life.")
    queued: int | None
    reason: str | None = Field(description="Why it is not ready.")


def job_reply(job: Job, position: int | None) -> JobReply:
    """A job as its client sees it."""
    url = f"/api/v1/jobs/{job.id}"
    preview = f"{url}/preview.png?number={job.previews}" if job.previews else None
    return JobReply(
        id=job.id,
        task=job.task,
        state=job.state,
        options=job.options,
        created_at=_time(job.created_at),
        started_at=_time(job.started_at),
        finished_at=_time(job.finished_at),
        queue_position=position,
        attempts=job.attempts,
        progress=Progress(**job.progress) if job.progress else None,
        error=job.error,
        previews=job.previews,
        video_bytes=job.video_bytes,
        url=url,
        events_url=f"{url}/events",
        preview_url=preview,
        video_url=f"{url}/video" if job.state == DONE else None,
    )


def info(models: Models, settings: Settings, needs_key: bool) -> Info:
    """What there is."""
    import lumiere_jax

    limits = settings.limits
    tasks = {name: _task(task, models.of(task)) for name, task in models.tasks.items()}
    return Info(
        program=f"lumiere_jax {lumiere_jax.__version__}",
        license=models.license,
        needs_key=needs_key,
        tasks=tasks,
        styles=list(models.styles),
        limits=_limits(limits, settings),
    )


def _limits(limits: Limits, settings: Settings) -> LimitsReply:
    shared = {name: getattr(limits, name) for name in LimitsReply.model_fields if "_s" not in name}
    return LimitsReply(**shared, job_seconds=settings.job_timeout, keep_seconds=settings.keep)


def _task(task: Task, model: Model) -> TaskReply:
    defaults = model.defaults
    return TaskReply(
        about=task.about,
        files=list(task.files),
        options=described(task),
        fps=model.fps,
        frames=model.frames,
        frames_multiple=model.multiple,
        sizes=model.sizes,
        steps=defaults.num_steps,
        guidance_scale=defaults.guidance_scale,
        sampler=defaults.sampler,
        samplers=model.samplers,
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def ranged(content: bytes, kind: str, name: str, asked: str | None) -> Response:
    """Bytes, or the one range of them that a `Range` header asks for (RFC 9110, section 14)."""
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{name}"',
        "Cache-Control": "private, max-age=3600",
    }
    found = _range(asked, len(content))
    if found is None:
        return Response(content, media_type=kind, headers=headers)
    first, last = found
    if first > last:
        headers["Content-Range"] = f"bytes */{len(content)}"
        return Response(b"", 416, headers=headers, media_type=kind)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, media_type=kind, headers=headers)


def _range(asked: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte; None for all, the first above the last for what is not there."""
    unit, _, spec = (asked or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    is_number = all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last))
    if unit.strip().lower() != "bytes" or not dash or not is_number or first + last == "":
        return None  # several ranges, and what is malformed, may be ignored
    first, last = first[:18], last[:18]
    if first == "":
        return (max(size - int(last), 0), size - 1) if int(last) else (1, 0)
    if last and int(last) < int(first):
        return None
    return (int(first), min(int(last), size - 1) if last else size - 1)
