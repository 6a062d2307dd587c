"""The oracle of shapes with long motions, on true clips and on clips with a known defect."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import ndimage

from lumiere_jax.data import motions
from lumiere_jax.data.moving_shapes import MovingShapes, Scene, SceneObject, render
from lumiere_jax.data.scene_captions import attributes
from lumiere_jax.metrics import long_oracle
from lumiere_jax.metrics.long_vision import look
from lumiere_jax.runtime.errors import UserError

TIMES = np.linspace(0.0, 1.0, 80)


@functools.cache
def clips(count, num_objects=1, num_frames=80, resolution=32):
    source = MovingShapes(
        num_frames, resolution, split="test", max_objects=num_objects,
        two_object_probability=1.0, motions="long",
    )  # fmt: skip
    told = [source.example(index) for index in range(count)]
    return [told for told in told if num_frames == 80 or "quickly" not in told[1]]


def right(scores, least=1.0):
    return all(value >= least or np.isnan(value) for value in scores.values())


def softened(video):
    noise = 0.05 * np.random.default_rng(0).standard_normal(video.shape)
    return ndimage.gaussian_filter(video, (0, 0.6, 0.6, 0), mode="nearest") + noise


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (12, {}),
        (8, {"num_objects": 2}),
        (1, {"resolution": 128}),
        (8, {"num_frames": 16}),
    ],
)
def test_true_clips_are_right(count, settings):
    scores = long_oracle.score(*zip(*clips(count, **settings), strict=True))
    assert right(scores), scores
    assert (settings.get("num_objects") == 2) != np.isnan(scores["passing"])


def test_noise_and_softness_are_forgiven():
    for drawn in (clips(12)[:5], clips(8, num_objects=2)[:4]):
        videos, captions = zip(*drawn, strict=True)
        scores = long_oracle.score([softened(video) for video in videos], captions)
        assert right(scores), scores


def test_others_captions_are_wrong():
    videos, captions = zip(*clips(12), strict=True)
    seen = [look(video) for video in videos]
    wanted = [long_oracle.parse_caption(caption) for caption in captions]
    judged = [long_oracle.compare(w, s) for i, s in enumerate(seen) for w in wanted[:i]]
    found = long_oracle.shares(judged)
    assert found["same"] == 1.0 and found["all"] == 0.0
    # 66 pairs, of 12 clips: within four standard deviations of 12 independent ones.
    for name, chance in {"colour": 1 / 8, "shape": 1 / 6, "background": 1 / 5}.items():
        assert abs(found[name] - chance) < 4 * np.sqrt(chance * (1 - chance) / 12)
    assert found["direction"] < 0.2 and found["frequency"] < 0.5 and found["frames"] < 0.15


def scene(name, colour="red", shape="square", behind=None, seed=0):
    path = motions.MOTIONS[name].draw((0.14, 0.14), np.random.default_rng(seed))
    item = SceneObject(shape, colour, "small", name, (0.0, 0.0), (0.0, 0.0), path)
    return Scene((item,), "black", "plain")


def changed(drawn, **fields):
    item = dataclasses.replace(drawn.objects[0], **fields)
    return dataclasses.replace(drawn, objects=(item, *drawn.objects[1:]))


TURN = scene("right then up")
SWING = scene("swing up and down quickly")


@pytest.mark.parametrize(
    ("shown", "other", "frames", "wrong"),
    [
        (TURN, TURN, slice(0, 0), set()),
        (SWING, SWING, slice(0, 0), set()),
        (TURN, changed(TURN, shape="circle"), slice(37, 38), {"same"}),
        (TURN, changed(TURN, colour="blue"), slice(0, 1), {"same"}),
        (
            TURN,
            changed(TURN, colour="orange", shape="ring"),
            slice(40, 80),
            {"same", "direction", "order"},
        ),
        (TURN, changed(TURN, size="large"), slice(60, 80), {"same"}),
        (TURN, changed(TURN, colour="blue"), slice(0, 80), {"colour"}),
        (TURN, changed(TURN, shape="diamond"), slice(0, 80), {"shape"}),
        (TURN, scene("up then right"), slice(0, 80), {"direction", "order"}),
        (TURN, scene("right then upper right"), slice(0, 80), {"direction"}),
        (SWING, scene("swing up and down slowly"), slice(0, 80), {"frequency"}),
        (SWING, scene("swing left and right quickly"), slice(0, 80), {"direction"}),
    ],
)
def test_a_defect_costs_what_it_should(shown, other, frames, wrong):
    video = render(shown, TIMES, 32)
    video[frames] = render(other, TIMES[frames], 32) if frames.stop else video[frames]
    judged = long_oracle.judge(video, attributes(shown))
    assert {name for name in long_oracle.SCORES if getattr(judged, name) is False} == wrong
    assert judged.all == (not wrong)
    length = frames.stop - frames.start
    if wrong <= {"same"} and shown.objects[0].size == other.objects[0].size:
        assert judged.frames == pytest.approx(1 - length / 80)


def test_time_reversed_and_jumps_are_seen():
    video = render(TURN, TIMES, 32)
    judged = long_oracle.judge(video[::-1], attributes(TURN))
    assert not judged.direction and not judged.order and judged.same
    there = changed(TURN, path=lambda times: 1.0 - TURN.objects[0].path(times))
    video[40:] = render(there, TIMES[40:], 32)
    assert not long_oracle.judge(video, attributes(TURN)).same


@pytest.mark.parametrize("index", [0, 1, 2])
def test_who_passes_behind_whom_is_seen(index):
    source = MovingShapes(max_objects=2, two_object_probability=1.0, motions="long")
    drawn = [found for found in map(source.scene, range(40)) if found.passing][index]
    judged = long_oracle.judge(render(drawn, TIMES, 32), attributes(drawn))
    assert judged.passing and judged.all and judged.seen.behind == 0
    turned = dataclasses.replace(drawn, objects=drawn.objects[::-1])
    judged = long_oracle.judge(render(turned, TIMES, 32), attributes(drawn))
    assert judged.passing is False and judged.same and judged.seen.behind == 1
    half = render(drawn, TIMES[:30] * 0.8, 32)  # it never comes out
    assert long_oracle.judge(half[:20], attributes(drawn)).passing is False


def test_sizes_and_backgrounds_are_judged_where_they_are_named():
    video = render(TURN, TIMES[::4], 32)
    said = "a large red square moving right then up on a striped black background"
    judged = long_oracle.judge(video, said)
    assert judged.all and judged.size is False and judged.background_kind is False
    judged = long_oracle.judge(video, "a red square moving right then up on a navy background")
    assert judged.size is None and judged.background_kind is None and not judged.background
    assert (
        judged.frequency is None and judged.passing is None and judged.frequency_errors == (None,)
    )
    with pytest.raises(UserError, match="dog"):
        long_oracle.judge(video, "a red dog moving left on a black background")


@pytest.mark.parametrize("kind", ["noise", "empty", "one frame", "two frames"])
@pytest.mark.parametrize("count", [1, 2])
def test_clips_that_show_nothing_or_no_motion(kind, count):
    generator = np.random.default_rng(0)
    video = {
        "noise": generator.uniform(-1, 1, (12, 16, 16, 3)),
        "empty": np.full((12, 32, 32, 3), -0.84),
        "one frame": render(TURN, TIMES[:1], 32),
        "two frames": render(TURN, TIMES[:2], 32),
    }[kind]
    caption = " and ".join(["a red square moving right then up", "a blue ring moving up"][:count])
    judged = long_oracle.judge(video, f"{caption} on a black background")
    assert not judged.all and not judged.direction and judged.order is False
    if count == 1 and "frame" in kind:
        assert judged.colour and judged.shape and judged.same
    if kind == "empty":
        assert not judged.colour and not judged.shape and not judged.same and judged.frames == 0.0
