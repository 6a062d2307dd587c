"""Fields of a form, made from the declarations that flags and requests derive from."""

from typing import Any

import gradio as gr

from lumiere_jax.inference.tasks import COMMON
from lumiere_jax.runtime.options import Option
from lumiere_jax.serving.replies import Info, OptionReply

_LABELS = {"num_frames": "Frames", "alpha": "Style strength", "base_only": "Base only"}
_DEFAULTS = {"zoom": 0.7}  # where that of a command would show nothing
_UNSET = ""
_USUAL = {"steps": "steps", "guidance_scale": "guidance_scale", "num_frames": "frames"}
"""Fields of `TaskReply` that say what an option is if nothing is given."""


def field(option: Option, info: Info, tasks: list[str]) -> gr.components.Component:
    """A field for an option of some tasks, with its help and its limits."""
    reply = info.options[option.name]
    label = _LABELS.get(option.name, option.name.replace("_", " ").capitalize())
    default = _DEFAULTS.get(option.name, None if option.name in COMMON else option.default)
    shared: dict[str, Any] = {"label": label, "info": _help(option, reply)}
    if option.name == "style":
        return gr.Dropdown(info.styles, value=info.styles[0], **shared)
    if option.choices and default is None:
        choices = list(option.choices)
        if option.name == "sampler":
            names = set.intersection(*(set(info.tasks[task].samplers) for task in tasks))
            choices = [name for name in choices if name in names]
        return gr.Dropdown([("as the weights ask for", _UNSET), *choices], value=_UNSET, **shared)
    if option.choices:
        return gr.Dropdown(list(option.choices), value=default, **shared)
    if option.type is bool:
        return gr.Checkbox(bool(default), **shared)
    if option.type is str:
        return gr.Textbox(str(default or ""), **shared)
    least, most = reply.minimum, reply.maximum
    if option.type is float and default is not None and least is not None and most == 1:
        return gr.Slider(least, most, default, step=0.01, **shared)
    if option.name == "num_frames" and tasks == ["extend"]:  # it must be given
        default = info.tasks["extend"].frames // 2
    if default is None:  # Gradio's fields of numbers cannot be empty
        return gr.Textbox(placeholder=_usual(option, info, tasks), max_lines=1, **shared)
    precision = 0 if option.type is int else None
    return gr.Number(default, precision=precision, minimum=least, maximum=most, **shared)


def _help(option: Option, reply: OptionReply) -> str:
    """What it means, and what it may be."""
    bounds = {"at least": reply.minimum, "above": reply.above, "at most": reply.maximum}
    parts = [f"{word} {bound:.12g}" for word, bound in bounds.items() if bound is not None]
    return option.help + (f" {', '.join(parts).capitalize()}." if parts else "")


def _usual(option: Option, info: Info, tasks: list[str]) -> str:
    """What it is if nothing is given, in a word."""
    if option.name not in _USUAL:
        return "random" if option.name == "seed" else "as the weights ask for"
    usual = {getattr(info.tasks[task], _USUAL[option.name]) for task in tasks}
    return " or ".join(f"{value:g}" for value in sorted(usual))


def sent(values: dict[str, Any]) -> dict[str, str]:
    """Values of fields as a request has them; what is empty is left to the weights."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None and value != _UNSET
    }


def read(place: gr.components.Component, text: str) -> Any:
    """The value of a field of what an address says; no change where it is no such value."""
    if isinstance(place, gr.Checkbox):
        return text == "true"
    if isinstance(place, gr.Textbox | gr.Dropdown):
        return text
    try:
        number = float(text)
    except ValueError:
        return gr.skip()
    return int(number) if number == int(number) else number
