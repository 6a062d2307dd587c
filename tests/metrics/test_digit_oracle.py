import numpy as np
import pytest

from lumiere_jax.data.moving_digits import MovingDigits, parse_caption
from lumiere_jax.metrics.digit_oracle import judge, look, score
from lumiere_jax.runtime.errors import UserError


def clips(count, **settings):
    source = MovingDigits(split="test", **settings)
    return zip(*(source.example(index) for index in range(count)), strict=True)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"num_frames": 8, "resolution": 16}, 0.95),
        ({"num_frames": 16, "resolution": 32}, 0.97),
        ({"num_frames": 16, "resolution": 32, "max_objects": 2, "two_object_probability": 1}, 0.9),
    ],
)
def test_held_out_handwriting_is_read_and_followed(settings, least):
    videos, captions = clips(100, **settings)
    scores = score(videos, captions)
    assert scores["all"] >= least and scores["motion"] >= least
    others = score(videos, captions[1:] + captions[:1])
    assert others["all"] < 0.15 and 0.05 < others["motion"] < 0.7


def test_noise_and_blur_as_of_a_model_are_borne():
    videos, captions = clips(60, num_frames=8, resolution=32)
    generator = np.random.default_rng(0)
    noisy = [np.clip(0.8 * v + generator.normal(0, 0.15, v.shape), -1, 1) for v in videos]
    assert score(noisy, captions)["all"] >= 0.85


def test_what_is_not_there_is_not_seen():
    empty = np.full((8, 32, 32, 3), -1.0)
    assert look(empty, 1) == (None,) and look(empty, 2) == (None, None)
    judged = judge(empty, "digit 3 is moving up and down")
    assert not (judged.digit or judged.motion or judged.all)
    (video,), _ = clips(1, num_frames=8, resolution=32)
    two = judge(video, "digit 3 is moving up and down and digit 3 is moving up and down")
    assert two.seen == (None, None) and not two.digit
    with pytest.raises(UserError, match="no caption of moving_digits"):
        judge(video, "a red circle")


def test_a_still_frame_is_read_but_its_motion_is_not_certain():
    (video,), (caption,) = clips(1, num_frames=1, resolution=32)
    (seen,) = look(video, 1)
    assert seen.digit == parse_caption(caption)[0].digit
