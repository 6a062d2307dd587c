"""What the methods of the pipeline show to the base model, and what they do with the result."""

import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.inference.editing import fit_video, padded_to_square, paste_back
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.regions import check_region
from lumiere_jax.runtime.errors import UserError

FRAMES, SIZE = 8, 16
MADE = 0.75


def picture(height=40, width=60, seed=0):
    """Broad stripes in [-0.9, 0.9], kind to scaling."""
    y, x = np.mgrid[:height, :width]
    phases = np.stack([x / 11 + seed, y / 13, (x + y) / 17], axis=-1)
    return (0.9 * np.sin(phases)).astype(np.float32)


def movie(frames=FRAMES, height=40, width=60):
    return np.stack([picture(height, width, n / 5) for n in range(frames)])


class Recording(LumierePipeline):
    """Keeps what a call is given, and makes flat videos of twice the base's size."""

    def __call__(self, prompts, *, known=None, finish=None, num_frames=None, **options):
        self.calls = [*getattr(self, "calls", []), options | {"known": known}]
        size = SIZE if options.get("base_only") else 2 * SIZE
        made = np.full((len(prompts), num_frames or FRAMES, size, size, 3), MADE, np.float32)
        self._given(len(prompts), num_frames or FRAMES, "", known, options.get("initial"))
        return made if finish is None else finish(made)


@pytest.fixture(name="pipeline")
def fixture_pipeline(cascade):
    return Recording.from_checkpoints(cascade["stunet_conditional"], show_progress=False)


def test_animate_shows_the_first_frame(pipeline):
    made = pipeline.animate(picture(), ["a", "b"])
    assert made.shape[:2] == (2, FRAMES)
    video, mask = pipeline.calls[0]["known"]
    assert video.shape == (1, FRAMES, SIZE, SIZE, 3)
    assert mask[0, 0].all() and not mask[0, 1:].any()
    flat = np.repeat(np.repeat(picture(16, 16), 5, 0), 5, 1)
    pipeline.animate(flat, ["a"])
    np.testing.assert_allclose(pipeline.calls[1]["known"][0][0, 0], picture(16, 16), atol=0.25)


def test_a_picture_that_is_padded_leaves_what_is_beside_it_unknown(pipeline):
    pipeline.animate(picture(), ["a"], fit="pad")
    _, mask = pipeline.calls[0]["known"]
    rows = mask[0, 0, :, :, 0].all(axis=1)
    assert rows.tolist() == [False] * 3 + [True] * 10 + [False] * 3
    with pytest.raises(UserError, match="fit=stretch must be one of crop, pad"):
        pipeline.animate(picture(), ["a"], fit="stretch")


def test_cinemagraph_knows_the_first_frame_and_all_outside_of_the_region(pipeline):
    region = np.zeros((32, 32), bool)
    region[8:24, 4:12] = True
    still = picture(32, 32)
    made = pipeline.cinemagraph(still, region, ["a"], feather=0)
    video, mask = pipeline.calls[0]["known"]
    assert mask[0, 0].all()
    assert (mask[0, 1:, :, :, 0] == ~region[::2, ::2]).all()
    np.testing.assert_array_equal(video[0], np.broadcast_to(video[0, 0], video[0].shape))
    np.testing.assert_array_equal(made[0][:, region], MADE)
    expected = np.broadcast_to(still[~region], made[0][:, ~region].shape)
    np.testing.assert_allclose(made[0][:, ~region], expected, atol=0.005)


def test_inpaint_keeps_known_pixels_and_can_be_told_not_to(pipeline):
    region = np.zeros((1, 32, 32), bool)
    region[:, :, 16:] = True
    video = movie(height=32, width=32)
    made = pipeline.inpaint(video, region, ["a"], feather=0)
    np.testing.assert_allclose(made[0][:, :, :16], video[:, :, :16], atol=0.005)
    np.testing.assert_array_equal(made[0][:, :, 16:], MADE)
    _, mask = pipeline.calls[0]["known"]
    assert mask[0, :, :, :8].all() and not mask[0, :, :, 8:].any()
    assert (pipeline.inpaint(video, region, ["a"], paste=False) == MADE).all()
    # A source that is much smaller than the output would only blur it.
    small = pipeline.inpaint(movie(height=20, width=20), np.ones((1, 20, 20), bool), ["a"])
    assert (small == MADE).all()
    small = pipeline.inpaint(movie(height=15, width=15), region[:, 8:23, 8:23], ["a"])
    assert (small == MADE).all()


def test_known_pixels_are_kept_where_the_video_is_a_little_smaller_than_the_result(pipeline):
    region = np.zeros((1, 24, 32), bool)
    region[:, :, 16:] = True
    video = movie(height=24, width=32)
    made = pipeline.inpaint(video, region, ["a"], feather=0)
    enlarged = fit_video(video, 2 * SIZE)
    np.testing.assert_allclose(made[0][:, :, :14], enlarged[:, :, :14], atol=0.005)
    np.testing.assert_array_equal(made[0][:, :, 16:], MADE)


def test_known_pixels_are_kept_before_super_resolution_too(cascade, monkeypatch):
    pipeline = LumierePipeline.from_checkpoints(
        cascade["stunet_conditional"], [cascade["ssr"]], show_progress=False
    )
    refined = []

    def refine_all(video, *_):
        refined.append(np.asarray(video))
        return jnp.full((1, FRAMES, 64, 64, 3), MADE)

    monkeypatch.setattr(pipeline, "refine_all", refine_all)
    video, region = movie(height=16, width=16), np.zeros((1, 16, 16), bool)
    region[:, :8] = True
    made = pipeline.inpaint(video, region, ["a"], feather=0, num_steps=1)
    np.testing.assert_allclose(refined[0][0][:, 8:], video[:, 8:], atol=0.005)
    assert np.abs(refined[0][0][:, :8] - video[:, :8]).max() > 0.05
    assert (made == MADE).all()  # the source is smaller than that
    pipeline.inpaint(video, region, ["a"], paste=False, num_steps=1)
    assert np.abs(refined[1][0][:, 8:] - video[:, 8:]).max() > 0.05


def test_frames_that_the_network_cannot_divide_are_left_out(pipeline):
    region = np.ones((7, 32, 32), bool)
    made = pipeline.inpaint(movie(7, 32, 32), region, ["a"])
    assert made.shape[1] == 6
    assert pipeline.inpaint(movie(11, 32, 32), np.ones((11, 32, 32), bool), ["a"]).shape[1] == 11
    with pytest.raises(UserError, match="has 1 frames at the model's 8 fps; at least 2"):
        pipeline.inpaint(movie(1, 32, 32), region[:1], ["a"])


def test_outpaint_makes_a_square_around_the_video(pipeline):
    pipeline.outpaint(movie(height=32, width=64), ["a"])
    _, mask = pipeline.calls[0]["known"]
    rows = mask[0, 0, :, :, 0].all(axis=1)
    assert rows.tolist() == [False] * 4 + [True] * 8 + [False] * 4
    pipeline.outpaint(movie(height=32, width=32), ["a"], zoom=0.5)
    _, mask = pipeline.calls[1]["known"]
    assert mask[0, 0].sum() == 64 and mask[0, 0, 4:12, 4:12].all()
    with pytest.raises(UserError, match="square already"):
        pipeline.outpaint(movie(height=32, width=32), ["a"])
    with pytest.raises(UserError, match="zoom=0"):
        pipeline.outpaint(movie(height=32, width=32), ["a"], zoom=0)


def test_strength_0_gives_the_video_back(pipeline):
    video = movie(8, 16, 16)
    told = []
    made = pipeline.video_to_video(
        video, ["a", "b"], strength=0, on_batch=lambda first, videos: told.append(videos)
    )
    np.testing.assert_array_equal(made, np.stack([video, video]))
    assert told[0] is made and not hasattr(pipeline, "calls")
    pipeline.video_to_video(video, ["a"], strength=0.5, num_steps=10)
    assert pipeline.calls[0]["strength"] == 0.5 and pipeline.calls[0]["base_steps"] == 5
    assert pipeline.calls[0]["num_steps"] == 10  # of super-resolution
    np.testing.assert_array_equal(pipeline.calls[0]["initial"][0], video)
    pipeline.video_to_video(video, ["a"], strength=1, num_steps=10)
    assert pipeline.calls[1]["initial"] is None and pipeline.calls[1]["base_steps"] == 10
    with pytest.raises(UserError, match="strength=1.5"):
        pipeline.video_to_video(video, ["a"], strength=1.5)


def test_extend_shows_the_last_frames_of_what_there_is(pipeline):
    video = movie(9, 16, 16)
    made = pipeline.extend(video, ["a"], num_frames=13, context=2, seeds=[5])
    assert made.shape == (1, 22, 16, 16, 3)
    np.testing.assert_array_equal(made[0, :9], video)
    assert (made[0, 9:] == MADE).all()
    assert len(pipeline.calls) == 3  # of six new frames each
    first, second, _ = (call["known"] for call in pipeline.calls)
    np.testing.assert_array_equal(first[0][0, :2], video[-2:])
    assert first[1][0, :2].all() and not first[1][0, 2:].any()
    assert (second[0][0, :2] == MADE).all()
    seeds = [call["seeds"] for call in pipeline.calls]
    assert len({tuple(seed) for seed in seeds}) == 3
    given = {"num_frames": 6, "context": 2, "seeds": [5, 6, 7], "each": [{"eta": n} for n in "abc"]}
    told = []
    pipeline.super_resolution = [None]  # for a batch that is refined before the next one is made
    pipeline.refine_all = lambda made, prompts, seeds, options: told.append(prompts) or made
    made = pipeline.extend(
        video, ["a", "b", "c"], batch_size=2, on_batch=lambda *batch: told.append(batch), **given
    )
    assert [call["seeds"] for call in pipeline.calls[3:]] == [[5, 6], [7, 7]]
    assert [call["each"] for call in pipeline.calls[3:]] == [
        given["each"][:2],
        given["each"][2:] * 2,
    ]
    assert [told[0], told[1][0], told[2], told[3][0]] == [["a", "b"], 0, ["c", "c"], 2]
    np.testing.assert_array_equal(np.concatenate([told[1][1], told[3][1]]), made)
    assert made.shape[:2] == (3, 15)
    for fields in ({"context": 8}, {"context": 0}, {"context": 10}):
        with pytest.raises(UserError, match="context="):
            pipeline.extend(video, ["a"], num_frames=4, **fields)
    with pytest.raises(UserError, match="num_frames=0"):
        pipeline.extend(video, ["a"], num_frames=0)


def test_regions_that_do_not_belong_to_the_video_are_told():
    video = movie(4).shape
    with pytest.raises(UserError, match="60×41 pixels and the picture 60×40"):
        check_region(np.ones((4, 41, 60), bool), video)
    with pytest.raises(UserError, match="has 3 frames and the video 4"):
        check_region(np.ones((3, 40, 60), bool), video)
    with pytest.raises(UserError, match="is empty"):
        check_region(np.zeros((1, 40, 60), bool), video)


@pytest.mark.parametrize(("rows", "columns"), [(slice(0, 1), slice(0, 1)), (slice(40), slice(8))])
def test_a_region_that_the_model_would_not_see_is_told(pipeline, rows, columns):
    region = np.zeros((1, 40, 60), bool)
    region[:, rows, columns] = True  # one pixel; or beside the central square
    with pytest.raises(UserError, match="nothing of the region is left .* at 16×16 pixels"):
        pipeline.inpaint(movie(), region, ["a"])
    with pytest.raises(UserError, match="nothing of the region"):
        pipeline.cinemagraph(picture(), region[0], ["a"])


def test_a_model_that_cannot_be_shown_pixels_says_so(cascade):
    pipeline = LumierePipeline.from_checkpoints(cascade["stunet"], show_progress=False)
    with pytest.raises(UserError, match="'stunet', which cannot be shown.*stunet_conditional"):
        pipeline.animate(picture(), ["a"])


@pytest.mark.parametrize("feather", [0, 1, 4])
def test_feathering_blends_known_pixels_by_their_distance(feather):
    video = movie(2, 32, 32)
    region = np.zeros((1, 32, 32), bool)
    region[:, :, 20:] = True
    made = np.zeros((1, 2, 32, 32, 3), np.float32)
    pasted = paste_back(made, video, region, feather)
    distance = np.clip(20 - np.arange(32), 0, None)
    weight = np.clip(distance / (feather + 1), 0, 1)
    np.testing.assert_allclose(pasted[0], video * weight[None, None, :, None], atol=1e-6)


def test_a_square_holds_the_video_in_its_middle():
    canvas, inside = padded_to_square(movie(2, 20, 30), zoom=0.6, most=99)
    assert canvas.shape == (2, 50, 50, 3)
    assert inside.sum() == 2 * 20 * 30
    np.testing.assert_array_equal(canvas[:, 15:35, 10:40], movie(2, 20, 30))
    assert not canvas[~inside].any()
