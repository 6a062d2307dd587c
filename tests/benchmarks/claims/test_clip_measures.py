import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.data.scene import DIRECTIONS, Scene, SceneObject, render

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import clip_measures as measures  # noqa: E402

FRAMES = 16
MOMENTS = np.linspace(0, 1, FRAMES)


def scene(direction="right", length=0.5, shape="square", colour="red", size="small", start=None):
    step = np.asarray(DIRECTIONS[direction]) * length
    start = 0.5 - step / 2 if start is None else np.asarray(start)
    item = SceneObject(shape, colour, size, direction, tuple(start), tuple(start + step))
    return Scene((item,), "black", "plain")


def made_up(centres, seen=None):
    """A track with given centres."""
    seen = np.ones(len(centres), bool) if seen is None else np.asarray(seen)
    centres = np.where(seen[:, None], np.asarray(centres, float), np.nan)
    colours = np.where(seen[:, None], 0.5, np.nan) * np.ones(3)
    return measures.Track(seen, centres, seen * 0.1, colours)


def path(direction, length, start=(0.3, 0.6)):
    return np.asarray(start) + MOMENTS[:, None] * length * np.asarray(DIRECTIONS[direction])


@pytest.mark.parametrize("resolution", [16, 32])
@pytest.mark.parametrize("direction", ["right", "upper left", "still"])
def test_a_true_clip_is_followed(direction, resolution):
    truth = scene(direction, shape="circle", colour="cyan")
    found = measures.track(render(truth, MOMENTS, resolution))
    assert found.seen.all()
    np.testing.assert_allclose(found.centres, truth.objects[0].centers(MOMENTS), atol=0.01)
    np.testing.assert_allclose(found.areas, np.pi * 0.14**2, rtol=0.1)
    np.testing.assert_allclose(found.colours.mean(axis=0), (0.10, 0.88, 0.92), atol=0.05)
    assert measures.path_error(found, direction) < 0.006
    assert measures.bend(found) < 0.006
    assert measures.colour_change(found) < 0.05
    assert measures.size_variation(found) < 0.05


def test_frames_without_an_object_are_told():
    video = render(scene(), MOMENTS, 16)
    video[3:5] = video[0, 0, 0]
    found = measures.track(video)
    np.testing.assert_array_equal(np.flatnonzero(~found.seen), [3, 4])
    assert np.isnan(found.centres[3:5]).all() and (found.areas[3:5] == 0).all()
    assert measures.path_error(found, "right") < 0.006
    assert measures.size_variation(found) > 0.3
    empty = measures.track(np.full_like(video, video[0, 0, 0]))
    assert not empty.seen.any()
    for figure in (measures.bend, measures.colour_change, measures.size_variation):
        assert np.isnan(figure(empty))
    assert np.isnan(measures.path_error(empty, "right"))
    assert measures.slice_in_time(video, empty, along_x=True).shape == (FRAMES, 16, 3)


@settings(deadline=None, max_examples=50)
@given(
    direction=st.sampled_from(sorted(DIRECTIONS)),
    length=st.floats(0.45, 0.55),
    start=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_paths_that_a_caption_allows_have_no_error(direction, length, start):
    found = made_up(path(direction, length, start))
    assert measures.path_error(found, direction) < 1e-12
    assert measures.bend(found) < 1e-12


def test_path_error_by_hand():
    spread = np.sqrt(np.mean((MOMENTS - 0.5) ** 2))
    # Too long by 0.15, opposite (the shortest allowed path is nearest), and none at all.
    assert measures.path_error(made_up(path("right", 0.7)), "right") == pytest.approx(0.15 * spread)
    wrong = measures.path_error(made_up(path("left", 0.5)), "right")
    assert wrong == pytest.approx(0.95 * spread)
    still = measures.path_error(made_up(path("still", 0)), "up")
    assert still == pytest.approx(0.45 * spread)
    # Across: both components are off.
    across = measures.path_error(made_up(path("down", 0.5)), "right")
    assert across == pytest.approx(np.hypot(0.5, 0.45) * spread)
    moving = measures.path_error(made_up(path("right", 0.5)), "still")
    assert moving == pytest.approx(0.5 * spread)
    # A straight path has no bend, whatever its direction and length.
    assert measures.bend(made_up(path("lower left", 0.9))) < 1e-12


def test_path_error_is_the_least_over_starts_and_lengths():
    rng = np.random.default_rng(0)
    centres = path("upper right", 0.48) + rng.normal(0, 0.05, (FRAMES, 2))
    unit = np.asarray(DIRECTIONS["upper right"])
    tried = []
    for length in np.linspace(0.45, 0.55, 41):
        rest = centres - MOMENTS[:, None] * length * unit
        tried.append(np.sqrt(((rest - rest.mean(axis=0)) ** 2).sum(axis=1).mean()))
    found = measures.path_error(made_up(centres), "upper right")
    assert found == pytest.approx(min(tried), rel=1e-4)
    assert found <= min(tried) + 1e-12


def test_unseen_frames_are_left_out_of_a_path():
    centres = path("right", 0.5)
    centres[7] = 9.0
    seen = np.arange(FRAMES) != 7
    assert measures.path_error(made_up(centres, seen), "right") < 1e-12
    assert np.isnan(measures.changes_of_velocity(made_up(centres, seen))[5:9]).sum() == 3


def test_a_kink_is_a_bend_and_a_change_of_velocity():
    centres = np.where(MOMENTS[:, None] < 1 / 3, (0, 1), (1, 0)) * 0.03
    centres = np.cumsum(centres, axis=0)
    turns = measures.changes_of_velocity(made_up(centres))
    kink = np.flatnonzero(turns > 1e-9)
    np.testing.assert_array_equal(kink + 1, [4])  # frame 4 is the last of the first leg
    assert turns[3] == pytest.approx(np.hypot(0.03, 0.03) / 2)
    assert measures.bend(made_up(centres)) > 0.01
    # A parabola: its residual by NumPy's own fit.
    curve = np.stack([MOMENTS, MOMENTS**2], axis=1)
    fit = np.polyval(np.polyfit(MOMENTS, MOMENTS**2, 1), MOMENTS)
    expected = np.sqrt(np.mean((MOMENTS**2 - fit) ** 2))
    assert measures.bend(made_up(curve)) == pytest.approx(expected)


def test_change_of_colour_and_size_by_hand():
    red = render(scene(), MOMENTS, 32)
    blue = render(scene(colour="blue"), MOMENTS, 32)
    half = np.concatenate([red[:8], blue[8:]])
    # Of 120 pairs of frames, 64 are of one red and one blue.
    distance = np.linalg.norm(np.subtract((0.88, 0.05, 0.08), (0.10, 0.30, 1.00)))
    found = measures.colour_change(measures.track(half))
    assert found == pytest.approx(64 / 120 * distance, rel=0.1)
    large = render(scene(size="large"), MOMENTS, 32)
    grown = np.concatenate([red[:8], large[8:]])
    areas = np.repeat([0.28**2, 0.40**2], 8)
    expected = areas.std() / areas.mean()
    assert measures.size_variation(measures.track(grown)) == pytest.approx(expected, rel=0.1)


def test_shapes_and_colours_are_read_frame_by_frame():
    square = render(scene(size="large"), MOMENTS, 16)
    circle = render(scene(size="large", shape="circle", colour="green"), MOMENTS, 16)
    mixed = np.concatenate([square[:12], circle[12:]])
    shapes, colours = measures.read_frames(mixed)
    assert shapes == ["square"] * 12 + ["circle"] * 4
    assert colours == ["red"] * 12 + ["green"] * 4
    assert measures.majority_share(shapes) == 0.75


def test_majority_share():
    assert measures.majority_share(["ring", None, "ring", "cross"]) == 0.5
    assert measures.majority_share([None, None]) == 0
    assert measures.majority_share([None, None, None, "ring"]) == 0.25


def test_neighbour_differences_and_key_frames_by_hand():
    video = np.zeros((16, 4, 4, 3))
    video[6:] = 1.0  # half of the range of colours, at once
    differences = measures.neighbour_differences(video)
    np.testing.assert_allclose(differences, 0.5 * (np.arange(15) == 5))
    # Steps to and from 0, 5, 10, 15: six of the fifteen.
    steps = np.isin(np.arange(15), (0, 4, 5, 9, 10, 14))
    assert measures.at_key_frames(np.where(steps, 3.0, 2.0), (0, 5, 10, 15)) == 1.5
    assert measures.at_key_frames(np.ones(15), (0, 5, 10, 15)) == 1
    assert np.isnan(measures.at_key_frames(differences, (0, 5, 10, 15)))


def test_slices_show_the_path():
    across = render(scene("right", start=(0.25, 0.7)), MOMENTS, 16)
    lines = measures.slice_in_time(across, measures.track(across), along_x=True)
    np.testing.assert_array_equal(lines, across[:, 11])
    down = render(scene("down", start=(0.3, 0.25)), MOMENTS, 16)
    lines = measures.slice_in_time(down, measures.track(down), along_x=False)
    np.testing.assert_array_equal(lines, down[:, :, 4])
    reds = lines[..., 0].argmax(axis=1)
    assert reds[-1] - reds[0] == pytest.approx(8, abs=1)
