"""What the interface answers with."""

from datetime import datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

import lumiere_jax
from lumiere_jax.cascade.config import frame_multiple
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.inference import vocabulary
from lumiere_jax.inference.tasks import COMMON, OPTIONS, TASKS, Task
from lumiere_jax.runtime.options import Option
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.queue import Job
from lumiere_jax.serving.settings import Limits, Settings
from lumiere_jax.serving.states import DONE, State

_TYPES: dict[type, Literal["string", "integer", "number", "boolean"]] = {
    str: "string", int: "integer", float: "number", bool: "boolean"
}  # fmt: skip


class Progress(BaseModel):
    """The progress of a job."""

    stage: str = Field(
        description="What is being done: `loading`, `compiling`, `base`, `super-resolution 1`, …"
    )
    step: int
    total: int = Field(description="Steps of the stage.")
    fraction: float = Field(description="Of all stages, in [0, 1].")
    seconds_left: float | None = Field(description="An estimate; null while there is none.")


class JobReply(BaseModel):
    """A job."""

    id: str
    task: str
    state: State
    options: dict[str, Any] = Field(
        description="As they were accepted, with the seed; and `region`: how much of the frame the "
        "mask was found to cover."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None = Field(description="Jobs ahead of it; null if it does not wait.")
    attempts: int = Field(description="How often a worker began it.")
    progress: Progress | None
    error: str | None = Field(description="Why it failed.")
    warnings: list[str] = Field(description="What the weights may not know of the prompt.")
    previews: int = Field(description="Number of previews so far; it grows with each new picture.")
    video_bytes: int | None
    url: str
    events_url: str
    preview_url: str | None
    video_url: str | None


class TaskReply(BaseModel):
    """A task that the server can do."""

    about: str
    files: list[str] = Field(description="Files to upload, all required.")
    options: list[str]
    prompts: str = Field(
        description="What prompts may say; empty if the weights may know anything."
    )
    fps: float
    frames: int = Field(description="Frames of a video by default.")
    frames_multiple: int = Field(description="A shorter video must have a multiple of this number.")
    sizes: list[int] = Field(description="Height and width after each stage.")
    steps: int = Field(description="Steps of the base stage by default.")
    guidance_scale: float
    sampler: str
    samplers: list[str]


class OptionReply(BaseModel):
    """An option, with the limits of this server."""

    type: Literal["string", "integer", "number", "boolean"]
    help: str
    minimum: float | None
    above: float | None = Field(description="What every value is above.")
    maximum: float | None
    choices: list[str]


class LimitsReply(BaseModel):
    """The limits of requests."""

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
    options: dict[str, OptionReply]
    styles: list[str]
    limits: LimitsReply


class Health(BaseModel):
    """Whether jobs are accepted and made."""

    live: bool
    ready: bool
    workers: int = Field(description="Workers that gave a sign of life.")
    queued: int | None
    reason: str | None = Field(description="Why it is not ready.")


def job_reply(job: Job, position: int | None, models: Models) -> JobReply:
    """A job as its client sees it."""
    url = f"/api/v1/jobs/{job.id}"
    shared = vars(job).keys() & JobReply.model_fields.keys()
    model = models.by_base.get(TASKS[job.task].base)
    doubt = vocabulary.doubt(model.config, job.options.get("prompt", "")) if model else ""
    return JobReply(
        **{name: getattr(job, name) for name in shared},
        queue_position=position,
        warnings=[doubt] if doubt else [],
        url=url,
        events_url=f"{url}/events",
        preview_url=f"{url}/preview.png?number={job.previews}" if job.previews else None,
        video_url=f"{url}/video" if job.state == DONE else None,
    )


def info(models: Models, settings: Settings, needs_key: bool) -> Info:
    """What the server can do."""
    limits = vars(settings.limits)
    return Info(
        program=f"lumiere_jax {lumiere_jax.__version__}",
        license=models.license,
        needs_key=needs_key,
        tasks={name: _task(task, models) for name, task in models.tasks.items()},
        options={option.name: _option(option, settings.limits) for option in OPTIONS},
        styles=list(models.styles),
        limits=LimitsReply(
            **{name: limits[name] for name in LimitsReply.model_fields if name in limits},
            job_seconds=settings.job_timeout,
            keep_seconds=settings.keep,
        ),
    )


def _option(option: Option, limits: Limits) -> OptionReply:
    largest = {"steps": limits.steps, "num_frames": limits.frames}
    return OptionReply(
        type=_TYPES[option.type],
        help=option.help,
        minimum=option.minimum,
        above=option.above,
        maximum=largest.get(option.name, option.largest_served),
        choices=list(option.choices),
    )


def _task(task: Task, models: Models) -> TaskReply:
    model = models.by_base[task.base]
    defaults = SamplingOptions.from_config(model.config)
    return TaskReply(
        about=task.about,
        files=list(task.files),
        options=["prompt", *COMMON, *task.options],
        prompts=vocabulary.known(model.config),
        fps=model.fps,
        frames=model.frames,
        frames_multiple=frame_multiple(model.config),
        sizes=model.sizes,
        steps=defaults.num_steps,
        guidance_scale=defaults.guidance_scale,
        sampler=defaults.sampler,
        samplers=model.samplers,
    )


def ranged(content: bytes, kind: str, name: str, asked: str | None) -> Response:
    """Bytes, or the range of them that a `Range` header asks for (RFC 9110, section 14)."""
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
    """First and last byte; None for all; the first above the last if there are no such bytes."""
    unit, _, spec = (asked or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    is_number = all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last))
    if unit.strip().lower() != "bytes" or not dash or not is_number or first + last == "":
        return None  # several ranges, and malformed ones, may be ignored
    first, last = first[:18], last[:18]
    if first == "":
        return (max(size - int(last), 0), size - 1) if int(last) else (1, 0)
    if last and int(last) < int(first):
        return None
    return (int(first), min(int(last), size - 1) if last else size - 1)
