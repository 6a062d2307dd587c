import hashlib
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lumiere_jax.data import scene as world
from lumiere_jax.data.moving_shapes import MovingShapes, is_held_out, parse_caption, render
from lumiere_jax.data.scene_captions import (
    MAX_WORDS,
    ObjectAttributes,
    SceneAttributes,
    all_combinations,
    attributes,
    describe,
)
from lumiere_jax.runtime.errors import UserError

REPOSITORY = Path(__file__).parents[2]

few = hypothesis.settings(deadline=None, max_examples=40)


def inside(shape, x, y):
    """Whether points of the square [-1, 1] x [-1, 1] lie in a shape; y points down."""
    square = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    radius = np.hypot(x, y)
    u, v = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    return {
        "circle": radius <= 1,
        "square": square,
        # Corners (0, -1), (-1, 1) and (1, 1).
        "triangle": (y <= 1) & (np.abs(x) <= (y + 1) / 2),
        "diamond": np.abs(x) + np.abs(y) <= 1,
        "ring": (radius <= 1) & (radius >= 0.5),
        "cross": square & ((np.abs(u) <= 0.33) | (np.abs(v) <= 0.33)),
    }[shape]


def supersampled(shape, centers, radius, resolution, samples=24):
    side = resolution * samples
    grid = (np.arange(side) + 0.5) / side
    masks = []
    for center_x, center_y in centers:
        x, y = (grid[None, :] - center_x) / radius, (grid[:, None] - center_y) / radius
        points = inside(shape, x, y).astype(np.float64)
        masks.append(points.reshape(resolution, samples, resolution, samples).mean(axis=(1, 3)))
    return np.stack(masks)


@pytest.mark.parametrize("shape", world.SHAPES)
@pytest.mark.parametrize(("resolution", "worst"), [(16, 0.06), (32, 0.06), (64, 0.14)])
def test_coverage_is_what_supersampling_gives(shape, resolution, worst):
    centers = np.random.default_rng(0).uniform(0.25, 0.75, (4, 2))
    for size in world.SIZES.values():
        mask = world.coverage(shape, centers, size / 2, resolution)
        reference = supersampled(shape, centers, size / 2, resolution)
        assert mask.dtype == np.float32
        assert np.abs(mask - reference).max() < worst
        edge = (reference > 0) & (reference < 1)
        assert np.abs(mask - reference)[edge].mean() < 0.03
        np.testing.assert_allclose(mask.sum(axis=(1, 2)), reference.sum(axis=(1, 2)), rtol=0.02)


@pytest.mark.parametrize("resolution", [24, 100, 128, 256])
@pytest.mark.parametrize("shape", world.SHAPES)
def test_area_is_the_same_at_every_resolution(shape, resolution):
    area = {
        "circle": np.pi,
        "square": 4,
        "triangle": 2,
        "diamond": 2,
        "ring": np.pi * 0.75,
        # Two bands of width 0.66 along the diagonals of the square, less what they share.
        "cross": 2 * (0.66 * 2 * np.sqrt(2) - 0.33**2 * 2) - 0.66**2,
    }[shape]
    mask = world.coverage(shape, np.array([[0.51, 0.47]]), 0.2, resolution)
    assert mask.mean() == pytest.approx(area * 0.2**2, rel=0.01)


@pytest.mark.parametrize("kind", world.BACKGROUND_KINDS)
@pytest.mark.parametrize("resolution", [16, 22, 64])
def test_background_is_what_supersampling_gives(kind, resolution):
    samples = 64
    phase = (np.arange(resolution * samples) + 0.5) / (resolution * samples) * 4 % 1
    wave = np.where(phase < 0.5, 1.0, -1.0)
    one = np.ones_like(wave)
    pattern = {"plain": 0 * wave, "striped": wave, "checkered": wave}[kind][None, :]
    pattern = pattern * (wave if kind == "checkered" else one)[:, None]
    tones = pattern.reshape(resolution, samples, resolution, samples).mean(axis=(1, 3))
    expected = 2 * (np.array(world.BACKGROUND_COLOURS["brown"]) + 0.08 * tones[..., None]) - 1
    image = world.render_background("brown", kind, resolution)
    np.testing.assert_allclose(image, expected, atol=0.01)


def test_small_render_is_the_average_of_the_large_one():
    source, large = MovingShapes(4, 16), MovingShapes(4, 128)
    for index in range(10):
        video, caption = source.example(index)
        fine, same_caption = large.example(index)
        averaged = fine.reshape(4, 16, 8, 16, 8, 3).mean(axis=(2, 4))
        assert caption == same_caption
        assert np.abs(video - averaged).max() < 0.1


@few
@hypothesis.given(
    index=st.integers(0, 10**6 - 1),
    num_frames=st.integers(1, 5),
    resolution=st.integers(8, 40),
    max_objects=st.sampled_from([1, 2]),
    split=st.sampled_from(["train", "test"]),
)
def test_every_clip_obeys_the_rules(index, num_frames, resolution, max_objects, split):
    source = MovingShapes(num_frames, resolution, split=split, max_objects=max_objects)
    video, caption = source.example(index, seed=3)
    scene = source.scene(index)
    assert video.shape == (num_frames, resolution, resolution, 3)
    assert video.dtype == np.float32
    assert -1 <= video.min() and video.max() <= 1
    assert caption == caption.lower() and len(caption.split()) <= MAX_WORDS
    assert parse_caption(caption) == attributes(scene)
    assert 1 <= len(scene.objects) <= max_objects
    assert len({item.colour for item in scene.objects}) == len(scene.objects)
    for item in scene.objects:
        for point in (*item.start, *item.end):
            assert item.radius <= point <= 1 - item.radius
        path = np.subtract(item.end, item.start)
        if item.direction == "still":
            assert not path.any()
        else:
            length = np.linalg.norm(path)
            assert 0.45 <= length <= 0.55
            np.testing.assert_allclose(path / length, world.DIRECTIONS[item.direction], atol=1e-9)
        names = (item.shape, item.colour, item.direction, scene.background_colour)
        assert is_held_out(*names) == (split == "test")


@few
@hypothesis.given(index=st.integers(0, 10**6 - 1), max_objects=st.sampled_from([1, 2]))
def test_pixels_show_the_record(index, max_objects):
    scene = MovingShapes(max_objects=max_objects, two_object_probability=1.0).scene(index)
    video = render(scene, np.array([0.0, 0.5, 1.0]), 32)
    expected = world.render_background(scene.background_colour, scene.background_kind, 32)
    expected = np.repeat(expected[None], 3, axis=0).astype(np.float64)
    for item in scene.objects:
        start, end = np.array(item.start), np.array(item.end)
        mask = supersampled(item.shape, [start, (start + end) / 2, end], item.radius, 32, 8)
        colour = 2 * np.array(world.OBJECT_COLOURS[item.colour]) - 1
        expected += mask[..., None] * (colour - expected)
    np.testing.assert_allclose(video, expected, atol=0.25)
    assert np.abs(video - expected).mean() < 0.004


def test_long_clips_are_rendered_in_chunks_that_do_not_show(monkeypatch):
    scene = MovingShapes().scene(5)
    times = np.linspace(0, 1, 7)
    whole = render(scene, times, 16)
    monkeypatch.setattr(world, "_POINTS_PER_CHUNK", 3 * 16**2)
    np.testing.assert_array_equal(render(scene, times, 16), whole)


def test_a_single_frame_is_a_moment_of_the_path():
    moments = []
    for index in range(200):
        scene = MovingShapes().scene(index)
        if scene.objects[0].direction != "right":
            continue
        frame = MovingShapes(num_frames=1).example(index)[0]
        background = world.render_background(scene.background_colour, scene.background_kind, 16)
        weight = np.abs(frame[0] - background).sum(axis=(0, 2))
        x = weight @ ((np.arange(16) + 0.5) / 16) / weight.sum()
        item = scene.objects[0]
        moments.append((x - item.start[0]) / (item.end[0] - item.start[0]))
    assert len(moments) > 8
    assert -0.05 < min(moments) < 0.35 and 0.65 < max(moments) < 1.05


def digest() -> str:
    total = hashlib.sha256()
    for max_objects in (1, 2):
        source = MovingShapes(3, 16, max_objects=max_objects, split="test", seed=7)
        for index in (0, 1, 12345, 999_999):
            video, caption = source.example(index)
            total.update(video.tobytes() + caption.encode())
    return total.hexdigest()


def test_another_process_draws_the_same_clips():
    program = "from tests.data.test_moving_shapes import digest; print(digest())"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.stdout.strip() == digest(), result.stderr


def test_index_seed_and_split_choose_the_clip():
    first = MovingShapes().scene(0)
    assert first == MovingShapes(num_frames=3, resolution=64).scene(0)
    assert first not in (
        MovingShapes().scene(1),
        MovingShapes(seed=1).scene(0),
        MovingShapes(split="test").scene(0),
    )
    source = MovingShapes()
    np.testing.assert_array_equal(source.example(4, seed=0)[0], source.example(4, seed=9)[0])


def test_held_out_combinations_are_about_a_tenth_and_cover_every_value():
    combinations = all_combinations()
    held_out = {c for c in combinations if is_held_out(*c)}
    kept = set(combinations) - held_out
    assert len(combinations) == 6 * 8 * 9 * 5
    assert 0.08 < len(held_out) / len(combinations) < 0.12
    for position in range(4):
        values = {c[position] for c in combinations}
        assert {c[position] for c in held_out} == {c[position] for c in kept} == values


def test_splits_draw_from_disjoint_combinations_and_use_them_all():
    drawn = {}
    for split in ("train", "test"):
        source = MovingShapes(split=split, max_objects=2)
        scenes = [source.scene(index) for index in range(1500)]
        drawn[split] = {
            (item.shape, item.colour, item.direction, scene.background_colour)
            for scene in scenes
            for item in scene.objects
        }
    assert not drawn["train"] & drawn["test"]
    assert drawn["test"] == {c for c in all_combinations() if is_held_out(*c)}
    assert len(drawn["train"]) > 1000


def test_textured_probability_is_the_share_of_textured_backgrounds():
    def share(probability):
        source = MovingShapes(textured_probability=probability)
        kinds = [source.scene(i).background_kind for i in range(400)]
        return sum(kind != "plain" for kind in kinds) / len(kinds)

    assert share(0.0) == 0.0
    assert share(1.0) == 1.0
    assert share(0.25) == pytest.approx(0.25, abs=0.07)


def test_two_object_probability_is_their_share():
    source = MovingShapes(max_objects=2, two_object_probability=0.25)
    share = np.mean([len(source.scene(index).objects) == 2 for index in range(600)])
    assert abs(share - 0.25) < 0.06
    assert all(len(MovingShapes().scene(index).objects) == 1 for index in range(100))


def test_a_segment_is_a_part_of_the_whole_clip():
    whole = MovingShapes(16, textured_probability=0.0)
    parts = MovingShapes(6, textured_probability=0.0, segments=3)
    found = []
    for index in range(30):
        video, caption = whole.example(index)
        part, same_caption = parts.example(index)
        assert caption == same_caption and parts.scene(index) == whole.scene(index)
        errors = [np.abs(part - video[first : first + 6]).max() for first in (0, 5, 10)]
        if whole.scene(index).objects[0].direction != "still":
            found.append(int(np.argmin(errors)))
        assert min(errors) < 1e-5
    assert set(found) == {0, 1, 2}


def test_a_single_frame_of_a_segment_is_a_moment_of_it():
    source = MovingShapes(1, segments=4)
    for index in range(20):
        (time,) = source._times(np.random.default_rng(index))
        begin = np.random.default_rng(index).integers(4) / 4
        assert begin <= time <= begin + 0.25


def test_a_source_without_segments_is_what_it_was_before_there_were_any():
    assert MovingShapes().fingerprint == "moving_shapes-c2a68524c96e3df5"
    assert MovingShapes(segments=1).fingerprint == MovingShapes().fingerprint
    assert MovingShapes(segments=3).fingerprint != MovingShapes().fingerprint


def test_colours_can_be_told_apart():
    everything = {**world.OBJECT_COLOURS, **world.BACKGROUND_COLOURS}
    assert len(everything) == len(world.OBJECT_COLOURS) + len(world.BACKGROUND_COLOURS)
    colours = np.array(list(everything.values()))
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 0.3
    objects = len(world.OBJECT_COLOURS)
    assert distances[:objects, objects:].min() > 0.45


def test_thousands_of_captions_are_read_back():
    seen = set()
    for max_objects in (1, 2):
        source = MovingShapes(max_objects=max_objects)
        for index in range(1000):
            scene = source.scene(index)
            caption = describe(scene, np.random.default_rng(index))
            assert parse_caption(caption) == attributes(scene), caption
            seen |= set(caption.split())
    assert {"little", "small", "large", "big", "gray", "grey", "front", "not", "still"} <= seen


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "A red circle is going up and left, on a black background.",
            SceneAttributes((ObjectAttributes("circle", "red", "upper left"),), "black"),
        ),
        (
            "over a striped grey background a big PINK cross not moving",
            SceneAttributes(
                (ObjectAttributes("cross", "pink", "still", "large"),), "gray", "striped"
            ),
        ),
        (
            "a red ring going down and right and a small blue square moving left on plain white",
            SceneAttributes(
                (
                    ObjectAttributes("ring", "red", "lower right"),
                    ObjectAttributes("square", "blue", "left", "small"),
                ),
                "white",
                "plain",
            ),
        ),
    ],
)
def test_free_prompts_are_read(caption, expected):
    assert parse_caption(caption) == expected


@pytest.mark.parametrize(
    ("caption", "part"),
    [
        ("a small red dog moving left on a plain black background", '"dog"'),
        ("a small red circle on a plain black background", "direction"),
        ("a small circle moving left on a plain black background", "colour"),
        ("a small red thing moving left", '"thing"'),
        ("a small red circle moving left", "background colour"),
        ("a red blue circle moving left on a black background", "twice"),
        ("", "colour"),
    ],
)
def test_other_captions_are_refused_in_one_message(caption, part):
    with pytest.raises(UserError, match=part):
        parse_caption(caption)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"split": "validation"}, "split"),
        ({"num_frames": 0}, "num_frames"),
        ({"segments": 0}, "segments"),
        ({"resolution": 4}, "resolution"),
        ({"fps": 0}, "fps"),
        ({"size": 0}, "size"),
        ({"max_objects": 3}, "max_objects"),
        ({"two_object_probability": 1.5}, "two_object_probability"),
        ({"textured_probability": -0.1}, "textured_probability"),
    ],
)
def test_impossible_settings_are_refused(settings, part):
    with pytest.raises(UserError, match=part):
        MovingShapes(**settings)


def test_index_outside_is_an_index_error():
    source = MovingShapes(size=3)
    assert len(source) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            source.example(index)
