"""The world of long motions: paths, captions, and the clips of both sources."""

import hashlib
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lumiere_jax.data import motions, moving_digits
from lumiere_jax.data import scene as world
from lumiere_jax.data.moving_digits import DigitAttributes, MovingDigits
from lumiere_jax.data.moving_shapes import MovingShapes, is_held_out, render
from lumiere_jax.data.scene_captions import MAX_WORDS, attributes, fits, parse_caption
from lumiere_jax.runtime.errors import UserError

TIMES = np.linspace(0.0, 1.0, 401)


def directions_of(steps):
    """Names of the steps of a way, neighbours different; the shortest true step is 0.1."""
    units = np.array(list(world.DIRECTIONS.values())).T
    names = [
        list(world.DIRECTIONS)[int((step @ units).argmax())]
        if np.linalg.norm(step) > 1e-6
        else "still"
        for step in steps
    ]
    return [name for name, _ in itertools.groupby(names)]


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(
    name=st.one_of(*(st.sampled_from([m.name for m in ms]) for _, ms in motions.KINDS.values())),
    half=st.tuples(st.floats(0.07, 0.225), st.floats(0.14, 0.225)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_path_is_what_its_name_says_and_inside_the_frame(name, half, seed):
    motion = motions.MOTIONS[name]
    path = motion.draw(half, np.random.default_rng(seed))
    way, half = path(TIMES), np.asarray(half)
    border = np.minimum(way - half, 1.0 - half - way)
    assert border.min() >= -1e-9
    middle = way - (way.max(axis=0) + way.min(axis=0)) / 2
    match motion:
        case motions.Phases(directions):
            assert directions_of(np.diff(path.points, axis=0)) == list(directions)
            parts = np.diff(path.times) * len(directions)
            assert np.abs(parts - 1.0).max() < 0.25  # equal, or nearly so
            moving = [d for d in np.diff(path.points, axis=0) if d.any()]
            least = 0.4 if len(directions) == 1 else 0.12  # four pixels of 32
            assert not moving or np.linalg.norm(moving, axis=1).min() >= least
        case motions.Bounce(direction):
            assert directions_of(np.diff(path.points, axis=0)) == [
                direction, motions.OPPOSITE[direction],
            ]  # fmt: skip
            speeds = np.linalg.norm(np.diff(path.points, axis=0), axis=1) / np.diff(path.times)
            np.testing.assert_allclose(speeds, speeds[0])
            contact = np.add(path.points[1], half * np.array(world.DIRECTIONS[direction]))
            assert contact[np.abs(world.DIRECTIONS[direction]).argmax()] in (
                pytest.approx(0.0, abs=1e-9), pytest.approx(1.0),
            )  # fmt: skip
        case motions.Circle(sense, turns):
            centred = way - path.middle
            angle = np.unwrap(np.arctan2(centred[:, 1], centred[:, 0]))  # y points down
            turned = (angle[-1] - angle[0]) / (2 * np.pi)
            expected = motions.TURNS[turns] * (1 if sense == "clockwise" else -1)
            assert turned == pytest.approx(expected, rel=0.051)
            np.testing.assert_allclose(np.linalg.norm(centred, axis=1), path.reach[0])
        case motions.Swing(axis, speed):
            along = 0 if axis == "left and right" else 1
            assert np.ptp(middle[:, 1 - along]) < 1e-12 and np.ptp(middle[:, along]) >= 0.29
            turns = (np.diff(np.sign(np.diff(middle[:, along]))) != 0).sum()
            assert abs(turns - 2 * motions.CYCLES[speed]) <= 1.6


def test_key_frames_can_tell_slow_swings_and_no_quick_ones():
    rate = 0.5 * motions.SECONDS  # Nyquist's, of one key frame a second, in cycles a clip
    assert 1.05 * motions.CYCLES["slowly"] < rate < 0.95 * motions.CYCLES["quickly"]


def test_every_wording_is_read_back_and_is_no_other():
    said = [wording for wordings in motions.WORDINGS.values() for wording in wordings]
    assert len(set(said)) == len(said) == 1500
    for name, wordings in motions.WORDINGS.items():
        assert len(wordings) >= 2
        assert motions.shortest(name) == min(len(wording.split()) for wording in wordings)
        for wording in wordings:
            longest = f"in front of a plain black background a small red circle {wording}"
            assert len(longest.split()) <= MAX_WORDS
            assert parse_caption(longest).objects[0].direction == name
            two = f"digit 3 is {wording} and digit 4 is {wording}"
            found = (DigitAttributes(3, name), DigitAttributes(4, name))
            assert moving_digits.parse_caption(two) == found


def test_captions_of_two_objects_are_read_back():
    caption = (
        "a red circle moving up then right passing behind a big blue square swinging left and "
        "right slowly on white"
    )
    found = parse_caption(caption)
    assert found.passing and found.objects[0].direction == "up then right"
    assert found.objects[1].direction == "swing left and right slowly"
    assert not parse_caption(caption.replace("passing behind", "and")).passing
    swings = ["swing left and right quickly"] * 2
    assert fits(swings) and not fits(["upper left then lower left", *swings[:1]])
    with pytest.raises(UserError, match='grammar of moving_shapes at "passing"'):
        parse_caption("a red circle moving up passing a blue square moving up on white")


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    index=st.integers(0, 10**6 - 1),
    max_objects=st.sampled_from([1, 2]),
    split=st.sampled_from(["train", "test"]),
)
def test_every_clip_of_shapes_obeys_the_rules(index, max_objects, split):
    settings = {"split": split, "max_objects": max_objects, "motions": "long"}
    source = MovingShapes(3, 8, **settings, two_object_probability=1.0)
    video, caption = source.example(index)
    scene = source.scene(index)
    assert video.shape == (3, 8, 8, 3) and len(scene.objects) == max_objects
    assert parse_caption(caption) == attributes(scene)
    assert caption == caption.lower() and len(caption.split()) <= MAX_WORDS
    # The scene is the same whatever is shown of it.
    other, same = MovingShapes(5, 16, **settings, two_object_probability=1.0).example(index)
    assert same == caption
    averaged = other[::2].reshape(3, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    assert np.abs(averaged - video).mean() < 0.02
    for item in scene.objects:
        assert is_held_out(item.shape, item.colour, item.direction, scene.background_colour) == (
            split == "test"
        )
        centres = item.centers(TIMES)
        assert item.radius - 1e-6 <= centres.min() <= centres.max() <= 1 - item.radius + 1e-6
        np.testing.assert_allclose(centres[[0, -1]], [item.start, item.end], atol=1e-6)
    if max_objects == 2:
        first, second = scene.objects
        assert first.colour != second.colour and "small" in (first.size, second.size)
        offsets = (first.centers(TIMES) - second.centers(TIMES)) / (first.radius + second.radius)
        gaps = np.linalg.norm(offsets, axis=1)
        if scene.passing:
            assert gaps.argmin() not in (0, len(TIMES) - 1) and gaps.min() < 0.3
            assert np.abs(offsets[[0, -1]]).max(axis=1).min() >= 0.9 - 1e-6
        else:
            assert gaps.min() >= 0.55


def test_the_object_that_passes_is_hidden_by_the_other():
    source = MovingShapes(max_objects=2, two_object_probability=1.0, motions="long")
    passing = [scene for scene in map(source.scene, range(60)) if scene.passing]
    assert len(passing) == pytest.approx(0.3 * 60, abs=10)
    for scene in passing:
        _, front = scene.objects
        video = (render(scene, TIMES[::20], 32) + 1) / 2
        mask = world.coverage(front.shape, front.centers(TIMES[::20]), front.radius, 32) > 0.99
        assert np.abs(video[mask] - world.OBJECT_COLOURS[front.colour]).max() < 0.02


def test_a_single_frame_and_a_segment_are_parts_of_the_clip():
    shown = {"motions": "long", "textured_probability": 0.0}
    whole, parts = MovingShapes(49, **shown), MovingShapes(25, segments=2, **shown)
    frames, scenes = MovingShapes(1, **shown), []
    for index in range(12):
        video, caption = whole.example(index)
        part, same = parts.example(index)
        assert caption == same
        assert min(np.abs(part - video[first : first + 25]).max() for first in (0, 24)) < 1e-5
        frame, _ = frames.example(index)
        change = np.abs(frame - video).max(axis=(1, 2, 3)).min()
        scenes.append(change)
    assert np.median(scenes) < 0.5  # some moment of the clip, between two frames of `whole`


def test_every_clip_of_digits_obeys_the_rules():
    source = MovingDigits(5, 32, motions="long", max_objects=2)
    seen, apart = set(), []
    for index in range(30):
        video, caption = source.example(index)
        digits = source.digits(index)
        assert len(caption.split()) <= MAX_WORDS
        told = tuple(DigitAttributes(item.digit, item.motion) for item in digits)
        assert moving_digits.parse_caption(caption) == told
        seen |= {item.motion.split()[0] for item in digits}
        for item in digits:
            centre, half = moving_digits.ink(item.handwriting)
            centres = item.corner(TIMES) + centre
            assert np.all(centres >= np.subtract(half, 1e-9))
            assert np.all(centres <= np.subtract(1 + 1e-9, half))
        if len(digits) == 2:
            places = [d.corner(TIMES) + moving_digits.ink(d.handwriting)[0] for d in digits]
            reach = np.sum([moving_digits.ink(d.handwriting)[1] for d in digits], axis=0)
            gaps = (np.abs(places[0] - places[1]) - reach).max(axis=1)
            apart.append((gaps > 0.02).mean())
        again, _ = MovingDigits(9, 32, motions="long", max_objects=2).example(index)
        np.testing.assert_array_equal(again[::2], video)
    assert {"bounce", "circle", "swing", "still", "right"} <= seen
    assert min(apart) >= 0.5


def test_the_ink_is_where_it_is_said_to_be():
    """Within half a pixel of the handwriting, between which and the next it is interpolated."""
    for handwriting in (0, 1, 7, 44):
        item = moving_digits.MovingDigit(
            handwriting, 0, "still", path=motions.Polyline((0.0, 1.0), ((0.5, 0.4),) * 2)
        )
        frame = moving_digits.render((item,), np.zeros(1), 160)[0, :, :, 0]
        rows, columns = np.nonzero(frame > 2 * 0.25 - 1)
        _, half = moving_digits.ink(handwriting)
        for places, middle, extent in ((columns, 0.5, half[0]), (rows, 0.4, half[1])):
            ends = np.array([places.min(), places.max() + 1]) / 160
            np.testing.assert_allclose(ends, [middle - extent, middle + extent], atol=0.035)


@pytest.mark.parametrize("source", [MovingShapes, MovingDigits])
def test_the_motions_are_a_setting_of_both_sources(source):
    with pytest.raises(UserError, match="motions is 'curly'; use straight or long"):
        source(motions="curly")
    assert source(motions="long").fingerprint != source().fingerprint
    assert source(motions="straight").fingerprint == source().fingerprint


@pytest.mark.parametrize(
    ("source", "captions", "means"),
    [
        (
            MovingShapes,
            "87ab06f6aa1c3f86",
            [-0.2205, -0.21498, 0.36741, 0.01085, 0.38576, -0.20563],
        ),
        (
            MovingDigits,
            "0ec32f37a63f1ce0",
            [-0.35347, -0.38111, -0.43542, -0.29659, -0.36972, -0.37985],
        ),
    ],
)
def test_what_is_drawn_for_an_index_stays(source, captions, means):
    """Else weights would have seen other clips than their config says."""
    long = source(2, 16, motions="long", max_objects=2)
    said = "".join(long.example(index)[1] for index in range(40))
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == captions
    columns = np.arange(16)[:, None] / 16  # for the means to depend on places
    found = [(long.example(index)[0][-1] * columns).mean() for index in range(6)]
    np.testing.assert_allclose(found, means, atol=1e-4)
