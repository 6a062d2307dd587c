"""The oracle of digits with long motions."""

import numpy as np
import pytest
from scipy import ndimage

from lumiere_jax.data import motions
from lumiere_jax.data.moving_digits import MovingDigit, MovingDigits, handwritings, ink, render
from lumiere_jax.metrics import long_digits
from lumiere_jax.metrics.long_digits import judge, look, score
from lumiere_jax.runtime.errors import UserError

TIMES = np.linspace(0.0, 1.0, 80)


@pytest.fixture(autouse=True)
def fixture_reader(monkeypatch):
    """A reader that is trained in half the time, and reads 97.8% of held-out handwriting."""
    monkeypatch.setattr(long_digits, "_PLACEMENTS", 1)


def clips(count, **settings):
    source = MovingDigits(80, 32, motions="long", split="test", **settings)
    return zip(*(source.example(index) for index in range(count)), strict=True)


def moving(handwriting, name, seed=0):
    path = motions.MOTIONS[name].draw(ink(handwriting)[1], np.random.default_rng(seed))
    return MovingDigit(handwriting, int(handwritings()[1][handwriting]), name, path=path)


def test_true_clips_are_right_also_softened_and_with_noise():
    videos, captions = clips(12)
    scores = score(videos, captions)
    assert scores["all"] >= 11 / 12 and scores["direction"] == 1 == scores["same"], scores
    noise = 0.05 * np.random.default_rng(0).standard_normal(videos[0].shape)
    soft = [ndimage.gaussian_filter(v, (0, 0.6, 0.6, 0)) + noise for v in videos[:6]]
    assert score(soft, captions[:6])["all"] >= 5 / 6
    others = score(videos, captions[1:] + captions[:1])
    assert others["all"] == 0 and others["direction"] < 0.4 and others["each"] < 0.5


def test_two_digits_are_followed_through_each_other():
    videos, captions = clips(10, max_objects=2, two_object_probability=1.0)
    scores = score(videos, captions)
    assert scores["direction"] >= 0.9 and scores["each"] >= 0.9, scores
    assert scores["order"] == 1 == scores["frequency"] and scores["same"] == 1


def test_defects_are_seen():
    seven, three = (
        np.flatnonzero(handwritings()[1] == 7)[3],
        np.flatnonzero(handwritings()[1] == 3)[1],
    )
    item, other = moving(int(seven), "right then up"), moving(int(three), "right then up")
    caption, video = "digit 7 is moving right then up", render((item,), TIMES, 32)
    assert judge(video, caption).all
    judged = judge(video[::-1], caption)
    assert judged.digit and judged.same and not judged.direction and judged.order is False
    spoilt = video.copy()
    spoilt[50] = render((other,), TIMES[50:51], 32)[0]
    judged = judge(spoilt, caption)
    assert judged.digit and judged.direction and not judged.same
    assert judged.frames == pytest.approx(79 / 80)
    swing = moving(int(seven), "swing up and down quickly")
    said = "digit 7 is swinging up and down quickly"
    assert judge(render((swing,), TIMES, 32), said).all
    slow = judge(render((swing,), TIMES / 2, 32), said)
    assert slow.direction and slow.frequency is False and slow.digit
    assert not judge(video, caption.replace("7", "3")).digit


def test_what_is_not_there_is_not_seen():
    empty = np.full((20, 32, 32, 3), -1.0)
    assert look(empty, 1) == look(empty, 2) == ()
    judged = judge(empty, "digit 3 is circling clockwise once and digit 4 is moving left then up")
    assert not (judged.digit or judged.direction or judged.same or judged.all)
    assert judged.order is False and judged.frequency is False and judged.each == 0
    with pytest.raises(UserError, match="no caption of moving_digits"):
        judge(empty, "a red circle")
