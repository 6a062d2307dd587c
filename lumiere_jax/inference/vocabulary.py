"""Which prompts a model knows: words that it never saw mean nothing to a small text encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.data import moving_digits, scene
from lumiere_jax.data.scene_captions import parse_caption
from lumiere_jax.runtime.errors import UserError

_SHAPES = (
    f"{', '.join(scene.SIZES)} {', '.join(scene.SHAPES)} in {', '.join(scene.OBJECT_COLOURS)}, "
    "standing still or moving (left, right, up, down, to the upper left, …) on a "
    f"{', '.join(scene.BACKGROUND_KINDS)} background in {', '.join(scene.BACKGROUND_COLOURS)}"
)
_DIGITS = (
    "one or two digits, as in 'digit 7 is moving left and right and digit 2 is moving up and down'"
)
_SENTENCES = {"moving_shapes": _SHAPES, "moving_digits": _DIGITS}
"""What a prompt may say, by the source of the clips that a model was trained on."""


def known(config: StageConfig) -> str:
    """What a prompt may say, as a sentence; "" where only those who trained the model know."""
    sources = _sources(config)
    return f"{'; and '.join(_SENTENCES[name] for name in sources)}." if sources else ""


def doubt(config: StageConfig, prompt: str) -> str:
    """Why a model cannot show what a prompt says, in sentences; "" if it may.

    Nothing is known of text encoders with an open vocabulary, nor of captions that users wrote.
    """
    sources = _sources(config)
    if not sources or not prompt:
        return ""
    try:
        _parse(prompt, sources)
    except UserError as error:
        reason = str(error).partition(". ")[0].partition("; ")[0].rstrip(".")
        return f"The weights cannot show {prompt!r}: {reason}. They know {known(config)}"
    return ""


def _sources(config: StageConfig) -> dict[str, int]:
    """The sources of a small vocabulary, with the most objects in a clip; none if any is open."""
    data = config.data
    parts: Sequence[Mapping[str, Any]] = [{"name": data.name}]
    if data.name == "mixture":
        parts = data.mixture
    found = {part["name"]: part.get("max_objects", data.max_objects) for part in parts}
    is_small = config.text.name == "hashed" and found.keys() <= _SENTENCES.keys()
    return found if is_small else {}


def _parse(prompt: str, sources: dict[str, int]) -> None:
    """Raises a `UserError` for a prompt that no source would have as a caption."""
    if "moving_digits" in sources and ("digit" in prompt or len(sources) == 1):
        found, kind = len(moving_digits.parse_caption(prompt)), "digit"
        most = sources["moving_digits"]
    else:
        found, kind = len(parse_caption(prompt).objects), "shape"
        most = sources["moving_shapes"]
    if found > most:
        raise UserError(f"they know a single {kind} in a video")
