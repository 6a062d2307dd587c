"""What is said of prompts that a model cannot know."""

import re
from pathlib import Path

import pytest

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.checkpoints import bundle
from lumiere_jax.demos.shipped import PROMPTS
from lumiere_jax.inference import vocabulary

SHIPPED = Path(__file__).parents[2] / "weights" / "small"
SHAPE, DIGIT = PROMPTS[0], PROMPTS[-1]


@pytest.fixture(name="fields", scope="module")
def fixture_fields():
    return bundle.read_config(SHIPPED / "stunet")


def config(fields, text="hashed", **data):
    changed = {**fields, "text": {**fields["text"], "name": text}}
    return StageConfig.parse({**changed, "data": {**fields["data"], **data}})


@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_what_the_shipped_weights_know(fields, prompt):
    assert vocabulary.doubt(config(fields), prompt) == ""


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a corgi on a beach", "'a corgi on a beach': .* at \"corgi\". They know small, large"),
        ("a red circle on a black background", "does not name the direction. They know"),
        ("digit eleven", "'digit eleven' is no caption of moving_digits. They know"),
    ],
)
def test_what_they_do_not_know(fields, prompt, told):
    assert re.search(told, vocabulary.doubt(config(fields), prompt))


def test_a_source_alone_has_its_own_vocabulary(fields):
    shapes, digits = (config(fields, name=f"moving_{kind}") for kind in ("shapes", "digits"))
    assert vocabulary.doubt(shapes, SHAPE) == vocabulary.doubt(
        digits, "digit 7 is moving up and down"
    )
    assert "digit" not in vocabulary.known(shapes) and "digit" in vocabulary.doubt(shapes, DIGIT)
    assert "circle" not in vocabulary.known(digits) and vocabulary.doubt(digits, SHAPE)


def test_nothing_is_said_of_an_open_vocabulary(fields):
    for other in (config(fields, name="video_folder"), config(fields, text="t5")):
        assert vocabulary.known(other) == "" == vocabulary.doubt(other, "a corgi on a beach")


@pytest.mark.parametrize(
    ("shapes", "digits", "prompt", "is_known"),
    [
        ("long", "long", "a red circle moving right then up on a black background", True),
        ("long", "long", "digit 7 is swinging up and down slowly", True),
        ("long", "long", SHAPE, True),
        ("long", "long", "digit 7 is moving up and down", False),  # at no stated speed
        ("straight", "straight", "a red circle moving right then up on a black background", False),
        ("straight", "straight", "digit 7 is swinging up and down slowly", False),
        ("straight", "long", "digit 7 is moving right", True),
        ("straight", "long", SHAPE, True),
        (
            "long", "straight",
            "a red ring moving up passing behind a pink circle standing still on white", True,
        ),
        (
            "straight", "long",
            "a red ring moving up passing behind a pink circle standing still on white", False,
        ),
    ],
)  # fmt: skip
def test_motions_are_known_where_clips_have_them(fields, shapes, digits, prompt, is_known):
    mixture = (
        {"name": "moving_shapes", "max_objects": 2, "motions": shapes},
        {"name": "moving_digits", "motions": digits},
    )
    trained = config(fields, name="mixture", mixture=mixture)
    told = vocabulary.doubt(trained, prompt)
    assert (told == "") == is_known
    assert is_known or "moved so in the clips that they were trained on. They know" in told
    assert ("swinging" in vocabulary.known(trained)) == ("long" in (shapes, digits))


@pytest.mark.parametrize("worlds", [("long", "straight"), ("straight", "long")])
def test_parts_of_one_source_are_known_together(fields, worlds):
    mixture = tuple(
        {"name": "moving_shapes", "motions": world, "max_objects": 1 + (world == "straight")}
        for world in worlds
    )
    trained = config(fields, name="mixture", mixture=mixture)
    for prompt in ("a red circle moving right then up on a black background", SHAPE):
        assert vocabulary.doubt(trained, prompt) == ""
    assert "swinging" in vocabulary.known(trained)
