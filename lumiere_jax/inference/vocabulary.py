"""Which prompts a model knows: words that it never saw mean nothing to a small text encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.data import motions, moving_digits, scene
from lumiere_jax.data.scene_captions import parse_caption
from lumiere_jax.runtime.errors import UserError

_SHAPES = (
    f"{', '.join(scene.SIZES)} {', '.join(scene.SHAPES)} in {', '.join(scene.OBJECT_COLOURS)}, "
    "{} on a "
    f"{', '.join(scene.BACKGROUND_KINDS)} background in {', '.join(scene.BACKGROUND_COLOURS)}"
)
_STRAIGHT = "standing still or moving (left, right, up, down, to the upper left, …)"
_LONG = (
    "standing still, moving (left, right, up, down, up and left, …), also in two or three phases "
    "('moving right then up'), 'bouncing off the left side', 'circling clockwise' or "
    "'counterclockwise', 'once' or 'twice', or 'swinging left and right' or 'up and down', "
    "'slowly' or 'quickly',"
)
_DIGITS = (
    "one or two digits, as in 'digit 7 is moving left and right and digit 2 is moving up and down'"
)
_SENTENCES = {
    ("moving_shapes", "straight"): _SHAPES.format(_STRAIGHT),
    ("moving_shapes", "long"): _SHAPES.format(_LONG),
    ("moving_digits", "straight"): _DIGITS,
    ("moving_digits", "long"): f"one or two digits, as in 'digit 7 is moving right', {_LONG[:-1]}",
}
"""What a prompt may say, by the source of clips that a model was trained on, and its motions."""
_MOTIONS = {
    ("moving_shapes", "straight"): frozenset(scene.DIRECTIONS),
    ("moving_digits", "straight"): frozenset(moving_digits.MOTIONS),
}
_Source = tuple[int, frozenset[str]]
"""The most objects in a clip, and which worlds of motions they have."""


def known(config: StageConfig) -> str:
    """What a prompt may say, as a sentence; "" where only those who trained the model know."""
    sources = _sources(config)
    sentences = [
        _SENTENCES[name, w] for name, (_, worlds) in sources.items() for w in sorted(worlds)
    ]
    return f"{'; and '.join(sentences)}." if sentences else ""


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


def _sources(config: StageConfig) -> dict[str, _Source]:
    """The sources of a small vocabulary; none if any is open."""
    data = config.data
    parts: Sequence[Mapping[str, Any]] = [{"name": data.name}]
    if data.name == "mixture":
        parts = data.mixture
    found: dict[str, _Source] = {}
    for part in parts:  # of which several may be of one source
        most, worlds = found.get(part["name"], (0, frozenset()))
        most = max(most, part.get("max_objects", data.max_objects))
        found[part["name"]] = most, worlds | {part.get("motions", data.motions)}
    is_small = config.text.name == "hashed" and found.keys() <= {name for name, _ in _SENTENCES}
    return found if is_small else {}


def _parse(prompt: str, sources: dict[str, _Source]) -> None:
    """Raises a `UserError` for a prompt that no source would have as a caption."""
    passing = False
    if "moving_digits" in sources and ("digit" in prompt or len(sources) == 1):
        name, kind = "moving_digits", "digit"
        moves = [digit.motion for digit in moving_digits.parse_caption(prompt)]
    else:
        name, kind = "moving_shapes", "shape"
        said = parse_caption(prompt)
        moves, passing = [item.direction for item in said.objects], said.passing
    most, worlds = sources[name]
    if len(moves) > most:
        raise UserError(f"they know a single {kind} in a video")
    known_moves = [_MOTIONS.get((name, world), motions.MOTIONS.keys()) for world in worlds]
    if set(moves).difference(*known_moves) or (passing and "long" not in worlds):
        raise UserError(f"no {kind} moved so in the clips that they were trained on")
