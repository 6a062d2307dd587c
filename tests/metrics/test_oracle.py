import functools

import hypothesis
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from lumiere_jax.data import scene as world
from lumiere_jax.data.moving_shapes import MovingShapes, Scene, SceneObject, render
from lumiere_jax.data.scene_captions import attributes
from lumiere_jax.metrics import oracle
from lumiere_jax.runtime.errors import UserError

EVERY = (*oracle.ATTRIBUTES, *oracle.EXTRA_ATTRIBUTES)
EVERY_FRAME = (*EVERY, "shape_frames")


@functools.cache
def clips(num_frames, resolution, split, count, num_objects=1):
    source = MovingShapes(
        num_frames, resolution, split=split, max_objects=num_objects, two_object_probability=1.0
    )
    videos, captions = zip(*(source.example(index) for index in range(count)), strict=True)
    return list(videos), list(captions)


def scene_of(direction="right", shape="circle", colour="red", background="black", size="large"):
    step = 0.5 * np.array(world.DIRECTIONS[direction])
    start, end = tuple(0.5 - step / 2), tuple(0.5 + step / 2)
    return Scene((SceneObject(shape, colour, size, direction, start, end),), background, "plain")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("num_frames", "resolution"), [(8, 16), (16, 32), (8, 64)])
def test_ground_truth_is_right(num_frames, resolution, split):
    scores = oracle.score(*clips(num_frames, resolution, split, 100))
    assert all(scores[name] >= 0.98 for name in EVERY_FRAME), scores


def test_a_frame_that_shows_another_shape_is_seen_by_itself():
    times = np.linspace(0, 1, 16)
    video, circle = (render(scene_of(shape=shape), times, 32) for shape in ("cross", "circle"))
    asked = attributes(scene_of(shape="cross"))
    assert oracle.judge(video, asked).shape_throughout
    number = np.arange(16)[:, None, None, None]
    spoilt = np.where(number % 4 == 0, circle, video)
    judged = oracle.judge(spoilt, asked)
    assert judged.shape and judged.shape_frames == 0.75 and not judged.shape_throughout
    hidden = np.where(number < 4, -1.0, video)  # nothing but black
    assert oracle.judge(hidden, asked).shape_frames == 0.75


@pytest.mark.parametrize("resolution", [16, 32])
def test_two_objects_are_both_judged(resolution):
    scores = oracle.score(*clips(8, resolution, "test", 40, num_objects=2))
    assert all(scores[name] >= 0.95 for name in EVERY_FRAME), scores


@pytest.mark.parametrize("resolution", [16, 32])
@pytest.mark.parametrize("sigma", [0.0, 0.6])
def test_noise_and_softness_are_forgiven(resolution, sigma):
    videos, captions = clips(8, resolution, "test", 100)
    generator = np.random.default_rng(0)
    spoilt = [
        scipy.ndimage.gaussian_filter(video, (0, sigma, sigma, 0), mode="nearest")
        + 0.05 * generator.standard_normal(video.shape)
        for video in videos[:60]
    ]
    scores = oracle.score(spoilt, captions[:60])
    assert all(scores[name] >= 0.95 for name in EVERY_FRAME), scores


def test_long_wide_clips_are_read():
    scores = oracle.score(*clips(40, 128, "test", 4))
    assert all(scores[name] == 1 for name in EVERY), scores


def test_shuffled_captions_score_at_chance():
    videos, captions = clips(8, 16, "train", 100)
    runs = [oracle.chance(videos, captions, seed) for seed in range(2)]
    assert runs[0] != runs[1]
    expected = {"colour": 1 / 8, "shape": 1 / 6, "direction": 1 / 9, "background": 1 / 5}
    for name, probability in expected.items():
        # Three standard deviations of a mean of 200.
        margin = 3 * np.sqrt(probability * (1 - probability) / 200)
        assert abs(np.mean([run[name] for run in runs]) - probability) < margin
    assert max(run["all"] for run in runs) <= 0.02


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    direction=st.sampled_from(list(world.DIRECTIONS)),
    shape=st.sampled_from(world.SHAPES),
    colour=st.sampled_from(list(world.OBJECT_COLOURS)),
    background=st.sampled_from(list(world.BACKGROUND_COLOURS)),
    size=st.sampled_from(list(world.SIZES)),
    resolution=st.sampled_from([16, 20, 37, 48]),
    num_frames=st.integers(3, 20),
)
def test_any_scene_is_read_and_its_changes_are_seen(
    direction, shape, colour, background, size, resolution, num_frames
):
    scene = scene_of(direction, shape, colour, background, size)
    video = render(scene, np.linspace(0, 1, num_frames), resolution)
    judgement = oracle.judge(video, attributes(scene))
    assert judgement.all and judgement.size and judgement.background_kind
    # Time reversed, only the direction may change, and to its opposite.
    reversed_seen = oracle.look(video[::-1])
    step = np.array(world.DIRECTIONS[direction])
    assert np.allclose(world.DIRECTIONS[reversed_seen.objects[0].direction], -step)
    assert reversed_seen.objects[0].colour == colour
    # Rows and columns exchanged, the path's axes are exchanged.
    exchanged = oracle.look(video.swapaxes(1, 2))
    assert np.allclose(world.DIRECTIONS[exchanged.objects[0].direction], step[::-1])


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"direction": "left"}, "direction"),
        ({"direction": "still"}, "direction"),
        ({"direction": "upper right"}, "direction"),
        ({"colour": "orange"}, "colour"),
        ({"shape": "diamond"}, "shape"),
        ({"background": "navy"}, "background"),
        ({"size": "small"}, "size"),
    ],
)
def test_one_wrong_attribute_is_one_wrong_answer(change, wrong):
    video = render(scene_of(**change), np.linspace(0, 1, 8), 16)
    caption = "a large red circle moving to the right on a plain black background"
    judgement = oracle.judge(video, caption)
    assert [name for name in EVERY if not getattr(judgement, name)] == [wrong]
    assert judgement.all == (wrong == "size")


def test_swapped_properties_of_two_objects_are_seen():
    left = SceneObject("circle", "red", "small", "up", (0.25, 0.8), (0.25, 0.3))
    right = SceneObject("square", "blue", "large", "down", (0.7, 0.25), (0.7, 0.75))
    video = render(Scene((left, right), "white", "plain"), np.linspace(0, 1, 8), 32)
    true = "a small red circle going up and a large blue square going down on a white background"
    assert oracle.judge(video, true).all
    other = "a large blue square going down and a small red circle going up on a white background"
    assert oracle.judge(video, other).all
    shapes = "a small red square going up and a large blue circle going down on a white background"
    judgement = oracle.judge(video, shapes)
    assert judgement.colour and judgement.direction and not judgement.shape
    moves = "a small red circle going down and a large blue square going up on a white background"
    judgement = oracle.judge(video, moves)
    assert judgement.colour and judgement.shape and not judgement.direction


def test_what_is_not_named_is_not_judged():
    video = render(scene_of(), np.linspace(0, 1, 8), 16)
    judgement = oracle.judge(video, "a red circle moving right on a black background")
    assert judgement.all and judgement.size is None and judgement.background_kind is None
    scores = oracle.score([video], ["a red circle moving right on a black background"])
    assert scores["all"] == 1 and np.isnan(scores["size"]) and np.isnan(scores["background_kind"])


@pytest.mark.parametrize("name", ["noise", "empty", "beige"])
def test_clips_without_an_object_show_none(name):
    generator = np.random.default_rng(0)
    video = {
        "noise": generator.uniform(-1, 1, (8, 16, 16, 3)),
        "empty": np.full((8, 16, 16, 3), -0.84) + 0.05 * generator.standard_normal((8, 16, 16, 3)),
        "beige": np.broadcast_to([0.9, 0.6, 0.0], (8, 16, 16, 3)),
    }[name]
    seen = oracle.look(video)
    (found,) = seen.objects
    assert found.shape is None and found.direction in (None, "still")
    if name != "noise":
        assert found.colour is None
        assert seen.background == ("black" if name == "empty" else None)


def test_an_object_that_jumps_about_moves_nowhere():
    video = render(scene_of("right"), np.linspace(0, 1, 12), 16)
    shuffled = video[[0, 11, 2, 9, 4, 7, 6, 5, 8, 3, 10, 1]]
    (found,) = oracle.look(shuffled).objects
    assert found.colour == "red" and found.shape == "circle" and found.direction is None


def test_a_faint_object_is_none_and_one_frame_has_no_direction():
    scene = scene_of("right")
    video = render(scene, np.linspace(0, 1, 8), 16)
    background = world.render_background("black", "plain", 16)
    assert oracle.look(background + 0.2 * (video - background)).objects[0].colour is None
    judgement = oracle.judge(video[:1], attributes(scene))
    assert judgement.colour and judgement.shape and not judgement.direction and not judgement.all


def test_table_shows_every_row_and_column_aligned():
    scores = dict.fromkeys((*oracle.ATTRIBUTES, "all", *oracle.FRAME_ATTRIBUTES), 1.0) | {
        "size": 0.125,
        "background_kind": float("nan"),
    }
    lines = oracle.format_table({"ground truth": scores, "chance": scores}).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[0].split() == [*oracle.ATTRIBUTES, "all", "size", "background", "kind", "shape",
        "frames", "shape", "throughout"]  # fmt: skip
    assert lines[1].startswith("ground truth") and lines[2].split()[:2] == ["chance", "100.0%"]
    assert lines[1].split()[-4:] == ["12.5%", "nan%", "100.0%", "100.0%"]


@pytest.mark.parametrize("shape", [(8, 16, 16), (8, 16, 24, 3), (8, 16, 16, 1)])
def test_other_arrays_are_refused(shape):
    with pytest.raises(TypeCheckError):
        oracle.look(np.zeros(shape))


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="the oracle needs a frame of 16 x 16"):
        oracle.look(np.zeros((8, 8, 8, 3)))
    video = np.zeros((2, 16, 16, 3))
    with pytest.raises(UserError, match="dog"):
        oracle.judge(video, "a red dog moving left on a black background")
    with pytest.raises(ValueError, match="2 videos and 1 captions"):
        oracle.score([video, video], ["a red circle moving left on a black background"])
    with pytest.raises(ValueError, match="two clips"):
        oracle.chance([video], ["a red circle moving left on a black background"])
