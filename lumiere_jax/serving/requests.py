"""What a client asks for, checked against the model and the limits."""

import json
import secrets
import unicodedata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from lumiere_jax.cascade.config import check_frames
from lumiere_jax.cascade.sampling_options import SamplingOptions, shared_options
from lumiere_jax.cascade.stage import create_schedule
from lumiere_jax.diffusion.schedule import with_spacing
from lumiere_jax.inference.tasks import COMMON, FILES, OPTIONS, TASKS, Task, VideoOptions
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.options import Option, declared
from lumiere_jax.serving.model import Model, Models
from lumiere_jax.serving.settings import Limits

_OWN = declared(VideoOptions)
NUMBERS = tuple(option.name for option in shared_options().values() if option.type is float)
"""Options of which jobs in one batch may have different ones."""


def _field(option: Option) -> tuple[Any, Any]:
    """The type and the limits of an option in a request."""
    kind: Any = Literal[option.choices] if option.choices else option.type
    limits: dict[str, Any] = {"ge": option.minimum, "gt": option.above, "le": option.largest_served}
    if option.type is float:
        limits["allow_inf_nan"] = False
    if option.name in COMMON and option.name in _OWN and option.default is not None:
        default = option.default
    else:
        default, kind = None, kind | None
    return kind, Field(default, description=_description(option), **limits)


def _description(option: Option) -> str:
    """Its help, with the tasks that it is for."""
    by_help: dict[str, list[str]] = {}
    for name, task in TASKS.items():
        for own in task.declared():
            if own.name == option.name:
                by_help.setdefault(own.help, []).append(f"`{name}`")
    return " ".join(f"{', '.join(names)}: {help}" for help, names in by_help.items()) or option.help


class Request(BaseModel):
    """Fields of a job beside its options and files."""

    model_config = ConfigDict(extra="forbid")

    task: Literal[tuple(TASKS)] = Field(  # type: ignore[valid-type]  # the table has the names
        description="What to do; see `tasks` of `/api/v1/info`."
    )
    prompt: str = Field(min_length=1, description="What the video should show.")


_FIELDS: dict[str, Any] = {option.name: _field(option) for option in OPTIONS}
Options = create_model(
    "Options", __base__=Request, __doc__="Fields of a job beside its files.", **_FIELDS
)


def check(options: Request, files: set[str], models: Models, limits: Limits) -> dict[str, Any]:
    """The options of a job, with a seed, and without what was left out.

    Raises:
      UserError: naming the field that cannot be used, and why.
    """
    if options.task not in models.tasks:
        raise UserError(
            f"task: the weights of this server cannot do {options.task!r}; they can do "
            f"{', '.join(models.tasks)}."
        )
    task = TASKS[options.task]
    asked = options.model_dump(exclude={"task", *FILES}, exclude_none=True)
    _check_given(task, files, set(asked))
    for name in ("prompt", "negative_prompt"):
        asked[name] = _text(name, asked[name], limits.prompt)
    if not asked["prompt"]:
        raise UserError("prompt: is empty; say what the video should show.")
    model = models.by_base[task.base]
    _check_sampling(asked, model, limits)
    if "num_frames" in asked and options.task != "extend":
        check_frames(model.config, asked["num_frames"])
    if "style" in task.options:
        asked = {"style": models.styles[0], "alpha": _OWN["alpha"].default} | asked
        if asked["style"] not in models.styles:
            raise UserError(f"style: there is none of this name; use {', '.join(models.styles)}.")
    asked.setdefault("seed", secrets.randbelow(2**32))
    return asked


def batch_key(task: str, asked: dict[str, Any]) -> str | None:
    """Equal for jobs whose videos one compiled program makes together; None: made alone."""
    if not TASKS[task].from_text:
        return None
    own = {"prompt", "seed", *NUMBERS}
    shared = {name: value for name, value in asked.items() if name not in own}
    # Without guidance, and with fresh noise, a program is another one.
    scale, eta = asked.get("guidance_scale"), asked.get("eta")
    shared["is_guided"] = None if scale is None else scale != 1
    shared["is_noisy"] = None if eta is None else eta > 0
    return json.dumps({"task": task} | shared, sort_keys=True)


def _check_given(task: Task, files: set[str], asked: set[str]) -> None:
    """Checks that all files and options of the task are there, and none of other tasks."""
    for name in [file for file in task.files if file not in files]:
        raise UserError(f"{name}: is missing; the task {task.name!r} needs this file.")
    for name in sorted(files - set(task.files)):
        raise UserError(f"{name}: does not go with the task {task.name!r}; leave this file out.")
    for name in sorted((asked & _OWN.keys()) - set(task.options) - set(COMMON)):
        raise UserError(f"{name}: does not go with the task {task.name!r}; leave it out.")
    for name in [option for option in task.required if option not in asked]:
        raise UserError(f"{name}: is missing; the task {task.name!r} needs it.")


def _text(name: str, text: str, longest: int) -> str:
    """A text on one line."""
    text = " ".join(text.split())
    if len(text) > longest:
        raise UserError(f"{name}: has {len(text)} characters; at most {longest} are allowed.")
    # Control characters and halves of surrogate pairs: no database and no JSON has them.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UserError(f"{name}: has control characters; send plain UTF-8 text.")
    return text


def _check_sampling(asked: dict[str, Any], model: Model, limits: Limits) -> None:
    if asked.get("steps", 0) > limits.steps:
        raise UserError(f"steps: {asked['steps']} is more than the {limits.steps} of this server.")
    if asked.get("sampler", model.samplers[0]) not in model.samplers:
        raise UserError(f"sampler: {asked['sampler']!r} is not one of {', '.join(model.samplers)}.")
    if asked.get("overlap", 0) >= model.frames:
        raise UserError(f"overlap: must be below the {model.frames} frames of a window.")
    given = {field: asked.get(option.name) for field, option in shared_options().items()}
    options = SamplingOptions.from_config(model.config, **given)
    with_spacing(create_schedule(model.config), options.spacing)  # checks it
    if (frames := asked.get("num_frames", 0)) > limits.frames:
        raise UserError(f"num_frames: {frames} is more than the {limits.frames} of this server.")
