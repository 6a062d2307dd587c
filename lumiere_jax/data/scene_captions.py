"""The small grammar of `moving_shapes`: from a scene to a caption and back."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from lumiere_jax.data.motions import WORDINGS, shortest
from lumiere_jax.data.scene import (
    BACKGROUND_COLOURS,
    BACKGROUND_KINDS,
    DIRECTIONS,
    OBJECT_COLOURS,
    SHAPES,
    Scene,
    SceneObject,
)
from lumiere_jax.runtime.errors import UserError

MAX_WORDS = 23

_FILLERS = "a an the is on in front of over against background with".split()
# The wordings of each value of an attribute, the shortest first where they differ in length.
_WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {shape: (shape,) for shape in SHAPES},
    "colour": {colour: (colour,) for colour in OBJECT_COLOURS},
    "size": {"small": ("small", "little"), "large": ("large", "big")},
    "direction": dict(WORDINGS),
    "background_colour": {c: (c,) for c in BACKGROUND_COLOURS} | {"gray": ("gray", "grey")},
    "background_kind": {kind: (kind,) for kind in BACKGROUND_KINDS},
    "filler": {word: (word,) for word in _FILLERS},
    "and": {"and": ("and",), "behind": ("passing behind",)},
}
_BACKGROUND_TEMPLATES = ("on a {} {} background", "in front of a {} {} background")
_SHORT_BACKGROUND = "on {} {}"  # where two objects need the room
_OTHER_WORDS = 12  # of a caption of two objects with it, but for what is said of motions
# By the words of a wording: which attribute it sets, and to which value.
_PHRASES = {
    tuple(wording.split()): (part, value)
    for part, values in _WORDINGS.items()
    for value, wordings in values.items()
    for wording in wordings
}
_LONGEST_PHRASE = max(map(len, _PHRASES))


@dataclasses.dataclass(frozen=True)
class ObjectAttributes:
    """What a caption says of one object, as `SceneObject` does; no size where it does not say."""

    shape: str
    colour: str
    direction: str  # or the name of another motion
    size: str | None = None


@dataclasses.dataclass(frozen=True)
class SceneAttributes:
    """What a caption says of a scene, as `Scene` does; objects are in the order of the caption."""

    objects: tuple[ObjectAttributes, ...]
    background_colour: str
    background_kind: str | None = None
    passing: bool = False


def attributes(scene: Scene) -> SceneAttributes:
    """The part of a scene that its caption describes."""
    return SceneAttributes(
        tuple(ObjectAttributes(o.shape, o.colour, o.direction, o.size) for o in scene.objects),
        scene.background_colour,
        scene.background_kind,
        scene.passing,
    )


def fits(directions: Sequence[str], passing: bool = False) -> bool:
    """Whether a caption can say these motions of its objects."""
    words = sum(map(shortest, directions)) + _OTHER_WORDS + passing
    return len(directions) == 1 or words <= MAX_WORDS


def _choose(wordings: tuple[str, ...], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))]


def _describe_object(item: SceneObject, short: bool, rng: np.random.Generator) -> str:
    directions = _WORDINGS["direction"][item.direction]
    size = _choose(_WORDINGS["size"][item.size], rng)
    direction = directions[0] if short else _choose(directions, rng)
    return f"a {size} {item.colour} {item.shape} {direction}"


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """Writes a caption: lower case, without punctuation, at most `MAX_WORDS` words.

    It always names size, colour, shape and direction of every object, and colour and kind of the
    background. Two objects take the short wordings, so that both fit; `rng` chooses the others.
    """
    short = len(scene.objects) > 1
    joiner = " passing behind " if scene.passing else " and "
    objects = joiner.join(_describe_object(item, short, rng) for item in scene.objects)
    template = _BACKGROUND_TEMPLATES[0] if short else _choose(_BACKGROUND_TEMPLATES, rng)
    colour = _choose(_WORDINGS["background_colour"][scene.background_colour], rng)
    background = template.format(scene.background_kind, colour)
    if len(f"{objects} {background}".split()) > MAX_WORDS:
        background = _SHORT_BACKGROUND.format(scene.background_kind, colour)
    parts = (objects, background) if rng.integers(2) else (background, objects)
    return " ".join(parts)


def _match(words: list[str], caption: str) -> tuple[int, tuple[str, str]]:
    """The length and the meaning of the longest phrase that `words` begins with."""
    for length in range(min(_LONGEST_PHRASE, len(words)), 0, -1):
        if meaning := _PHRASES.get(tuple(words[:length])):
            return length, meaning
    raise UserError(
        f'The caption "{caption}" does not follow the grammar of moving_shapes at "{words[0]}". '
        'Write it like "a small red circle moving to the upper left on a plain black background"; '
        f"shapes: {', '.join(SHAPES)}; colours: {', '.join(OBJECT_COLOURS)}; "
        f"backgrounds: {', '.join(BACKGROUND_COLOURS)} ({', '.join(BACKGROUND_KINDS)})."
    )


def _require(found: dict[str, str], names: tuple[str, ...], caption: str) -> None:
    for name in names:
        if name not in found:
            raise UserError(
                f'The caption "{caption}" does not name the {name.replace("_", " ")}; every object '
                "needs colour, shape and direction, and the background its colour."
            )


def parse_caption(caption: str) -> SceneAttributes:
    """Reads a caption: the inverse of `describe`, for all its wordings.

    Size and the background's kind may be left out; case and punctuation do not matter. A
    `UserError` tells of an unknown word, or what else is not named.
    """
    words = "".join(c if c.isalnum() else " " for c in caption.lower()).split()
    objects: list[dict[str, str]] = [{}]
    background: dict[str, str] = {}
    position, passing = 0, False
    while position < len(words):
        length, (part, value) = _match(words[position:], caption)
        position += length
        if part == "and":
            objects.append({})
            passing |= value == "behind"
        elif part.startswith("background"):
            background[part] = value
        elif part != "filler":
            if part in objects[-1]:
                raise UserError(
                    f'The caption "{caption}" names the {part} of one object twice; '
                    'join two objects with "and".'
                )
            objects[-1][part] = value
    for found in objects:
        _require(found, ("colour", "shape", "direction"), caption)
    _require(background, ("background_colour",), caption)
    described = tuple(ObjectAttributes(**found) for found in objects)
    return SceneAttributes(described, **background, passing=passing)


def all_combinations() -> list[tuple[str, str, str, str]]:
    """Every combination (shape, colour, direction, background colour) of the straight world."""
    return list(itertools.product(SHAPES, OBJECT_COLOURS, DIRECTIONS, BACKGROUND_COLOURS))
