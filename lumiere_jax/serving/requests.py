"""What a client asks for, checked against the model and the limits."""

import json
import secrets
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import create_schedule
from lumiere_jax.diffusion.schedule import with_time_power
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving.model import Model, Models
from lumiere_jax.serving.settings import Limits
from lumiere_jax.serving.tasks import COMMON, OPTIONS, TASKS, Task

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Options(BaseModel):
    """Fields of a job beside its files; those that are left out are as the model has them."""

    model_config = ConfigDict(extra="forbid")

    task: Literal[tuple(TASKS)] = Field(description="What to do; see `tasks` of `/api/v1/info`.")
    prompt: str = Field(min_length=1, description="What the video is to show.")
    negative_prompt: str = Field("", description="What to be led away from.")
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="The same seed gives the same video; else one is drawn."
    )
    steps: int | None = Field(None, ge=1, description="Denoising steps of every stage.")
    time_power: float | None = Field(
        None, gt=0, le=10, allow_inf_nan=False,
        description="Above 1, more of the base's steps are near clean data; 2 is quadratic.",
    )  # fmt: skip
    sampler: Literal["ddim", "ancestral", "dpmpp_2m", "ddpm"] | None = None
    guidance_scale: float | None = Field(
        None, ge=0, le=100, allow_inf_nan=False, description="Guidance of the base stage."
    )
    guidance_from: _Share | None = Field(None, description="Latest time (1 is noise) with it.")
    guidance_to: _Share | None = Field(None, description="Earliest time with it.")
    base_only: bool = Field(False, description="Leave super-resolution out.")
    num_frames: int | None = Field(
        None, ge=1, description="Frames of the video; for `extend`, those to add."
    )
    style: str | None = Field(None, description="`stylize`: one of `styles` of `/api/v1/info`.")
    alpha: _Share | None = Field(None, description="`stylize`: share of the style.")
    strength: _Share | None = Field(
        None, description="`video_to_video`: 0 keeps the video, 1 forgets it."
    )
    fit: Literal["crop", "pad"] | None = Field(
        None, description="`animate`: cut what is over, or keep all and fill what is beside it."
    )
    paste: bool | None = Field(None, description="Put the given pixels back where they stay.")
    feather: int | None = Field(None, ge=0, le=64, description="Pixels of the border then blended.")
    zoom: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="`outpaint`: size of the video in the new one."
    )
    context: int | None = Field(
        None, ge=1, description="`extend`: frames of the video that the model is shown."
    )


def check(options: Options, files: set[str], models: Models, limits: Limits) -> dict[str, Any]:
    """What the job needs, with a seed, and without what was left out.

    Args:
      options: of the request.
      files: names of what was uploaded.
      models: what there is.
      limits: see there.

    Raises:
      UserError: naming the field that cannot be used, and why.
    """
    if options.task not in models.tasks:
        raise UserError(
            f"task: {options.task!r} is not to be had with the weights of this server; it has "
            f"{', '.join(models.tasks)}."
        )
    task = TASKS[options.task]
    _check_files(options.task, task, files)
    asked = options.model_dump(exclude={"task"}, exclude_none=True)
    foreign = [name for name in OPTIONS if name in asked and name not in task.options]
    if foreign:
        raise UserError(f"{foreign[0]}: does not go with the task {options.task!r}; leave it out.")
    for name in ("prompt", "negative_prompt"):
        asked[name] = _text(name, asked[name], limits.prompt)
    if not asked["prompt"]:
        raise UserError("prompt: is empty; say what the video is to show.")
    model = models.of(task)
    if asked.get("steps", 0) > limits.steps:
        raise UserError(f"steps: {asked['steps']} are more than the {limits.steps} of this server.")
    if asked.get("sampler", model.samplers[0]) not in model.samplers:
        raise UserError(f"sampler: {asked['sampler']!r} is not one of {', '.join(model.samplers)}.")
    _check_sampling(asked, model)
    if options.task == "extend" and "num_frames" not in asked:
        raise UserError("num_frames: is missing; say how many frames to add.")
    if "num_frames" in asked:
        _check_frames(asked["num_frames"], options.task, model, limits)
    if "style" in task.options:
        asked.setdefault("style", models.styles[0])
        asked.setdefault("alpha", 1.0)
        if asked["style"] not in models.styles:
            raise UserError(f"style: there is none of this name; use {', '.join(models.styles)}.")
    asked.setdefault("seed", secrets.randbelow(2**32))
    return asked


def batch_key(task: str, asked: dict[str, Any]) -> str | None:
    """Equal for jobs whose videos one compiled program makes at once; None: alone."""
    if not TASKS[task].batches:
        return None
    shared = {name: value for name, value in asked.items() if name not in ("prompt", "seed")}
    return json.dumps({"task": task} | shared, sort_keys=True)


def described(task: Task) -> list[str]:
    """Names of all options of a task."""
    return ["prompt", *COMMON, *task.options]


def _check_files(name: str, task: Task, files: set[str]) -> None:
    missing = [file for file in task.files if file not in files]
    if missing:
        raise UserError(f"{missing[0]}: is missing; the task {name!r} needs this file.")
    foreign = sorted(files - set(task.files))
    if foreign:
        raise UserError(f"{foreign[0]}: does not go with the task {name!r}; leave this file out.")


def _text(name: str, text: str, longest: int) -> str:
    """A text in one line."""
    text = " ".join(text.split())
    if len(text) > longest:
        raise UserError(f"{name}: has {len(text)} characters; at most {longest} are taken.")
    # Control characters and halves of surrogate pairs: no database and no JSON has them.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UserError(f"{name}: has control characters; send plain UTF-8 text.")
    return text


def _check_sampling(asked: dict[str, Any], model: Model) -> None:
    names = ("time_power", "sampler", "guidance_scale", "guidance_from", "guidance_to")
    options = SamplingOptions.from_config(
        model.config, num_steps=asked.get("steps"), **{name: asked.get(name) for name in names}
    )
    with_time_power(create_schedule(model.config), options.time_power)  # checks it


def _check_frames(frames: int, task: str, model: Model, limits: Limits) -> None:
    if frames > limits.frames:
        raise UserError(f"num_frames: {frames} are more than the {limits.frames} of this server.")
    if task != "extend" and frames < model.frames and frames % model.multiple:
        raise UserError(
            f"num_frames: fewer than {model.frames} must be a multiple of {model.multiple}; got "
            f"{frames}."
        )
