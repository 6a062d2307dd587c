import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lumiere_jax.data.moving_digits import (
    MOTIONS,
    SIDE,
    DigitAttributes,
    MovingDigit,
    MovingDigits,
    handwritings,
    is_held_out,
    parse_caption,
    render,
)
from lumiere_jax.runtime.errors import UserError


def test_clips_are_pure_functions_of_their_index_and_say_what_they_show():
    source = MovingDigits(num_frames=6, resolution=24, max_objects=2)
    for index in (0, 1, 999_999):
        video, caption = source.example(index)
        assert video.shape == (6, 24, 24, 3) and video.dtype == np.float32
        assert video.min() == -1 and 0.3 < video.max() <= 1
        again, same = MovingDigits(num_frames=6, resolution=24, max_objects=2).example(index, 7)
        assert same == caption and again.tobytes() == video.tobytes()
        expected = tuple(DigitAttributes(d.digit, d.motion) for d in source.digits(index))
        assert parse_caption(caption) == expected
    with pytest.raises(IndexError, match="1000000 clips"):
        source.example(1_000_000)
    other = MovingDigits(num_frames=6, resolution=24, seed=1)
    assert other.fingerprint != source.fingerprint


def test_handwriting_of_the_test_split_is_held_out():
    used = {
        split: {MovingDigits(split=split).digits(n)[0].handwriting for n in range(4000)}
        for split in ("train", "test")
    }
    assert not used["train"] & used["test"]
    assert used["test"] == {n for n in range(1797) if is_held_out(n)}
    assert len(used["train"]) > 1400
    labels = handwritings()[1]
    assert all(np.bincount(labels[list(found)], minlength=10).min() > 5 for found in used.values())


@given(begin=st.floats(0, 1.999), travel=st.floats(0.9, 1.4), across=st.floats(0, 1))
def test_paths_bounce_within_the_frame(begin, travel, across):
    item = MovingDigit(0, 0, MOTIONS[0], begin, travel, across)
    corners = item.corner(np.linspace(0, 1, 101))
    assert corners.min() >= 0 and corners.max() <= 1 - SIDE + 1e-9
    np.testing.assert_allclose(corners[:, 1], across * (1 - SIDE))
    steps = np.abs(np.diff(corners[:, 0])) / (1 - SIDE)
    assert steps.max() <= travel / 100 + 1e-9
    assert np.ptp(corners[:, 0]) >= 0.4 * (1 - SIDE)
    turned = MovingDigit(0, 0, MOTIONS[1], begin, travel, across).corner(np.linspace(0, 1, 101))
    np.testing.assert_array_equal(turned, corners[:, ::-1])


def test_rendering_by_an_independent_resampling():
    """Eight pixels of the frame for each of the image's: bilinear enlargement by 8."""
    item = MovingDigit(11, 1, MOTIONS[0], 0.0, 0.0, 0.0)
    resolution = round(8 * 8 / SIDE)
    frame = (render((item,), np.zeros(1), resolution)[0, :, :, 0] + 1) / 2
    image = handwritings()[0][11]
    enlarged = ndimage.zoom(np.pad(image, 1), 8, order=1, mode="grid-constant", grid_mode=True)
    np.testing.assert_allclose(frame[:64, :64], enlarged[8:72, 8:72], atol=0.08)
    assert np.abs(frame[72:, 72:]).max() == 0


def test_two_digits_are_kept_apart_for_most_of_the_clip():
    source = MovingDigits(max_objects=2, two_object_probability=1.0)
    times = np.linspace(0, 1, 17)
    apart = []
    for index in range(200):
        first, second = source.digits(index)
        offset = np.abs(first.corner(times) - second.corner(times)).max(axis=1)
        apart.append((offset >= 0.7 * SIDE).mean())
    assert np.mean(apart) > 0.7 and np.min(apart) > 0.2


@pytest.mark.parametrize(
    "caption",
    ["", "digit 12 is moving left and right", "digit 1 is moving sideways", "a red circle"],
)
def test_other_captions_are_told(caption):
    with pytest.raises(UserError, match="no caption of moving_digits"):
        parse_caption(caption)


@pytest.mark.parametrize(
    "fields",
    [
        {"split": "valid"}, {"num_frames": 0}, {"resolution": 8}, {"fps": 0}, {"size": 0},
        {"max_objects": 3}, {"two_object_probability": 1.5},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_told(fields):
    (name,) = fields
    with pytest.raises(UserError, match=f"moving_digits: {name}="):
        MovingDigits(**fields)
