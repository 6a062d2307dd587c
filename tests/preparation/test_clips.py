import numpy as np
import pytest

from lumiere_jax.data import video_io
from lumiere_jax.data.limits import Limits
from lumiere_jax.data.prepared_format import Thresholds
from lumiere_jax.preparation.clips import Clip, Rejection, find_clips
from lumiere_jax.preparation.manifest import Video
from tests.data.numbered_videos import Recipe
from tests.data.numbered_videos import write as made
from tests.preparation.videos import REAL_CLIPS, make_folder, moving, settings, write

NO_FILTERS = Thresholds(brightness=0, motion=0, cut=0)


def clips_of(root, name, start=None, end=None, captions=("x",), **changes):
    video = Video(name, captions, "train", start, end)
    return list(find_clips(video, str(root), settings(**changes)))


def reasons(found):
    return [entry.reason if isinstance(entry, Rejection) else "clip" for entry in found]


def test_clips_follow_each_other_and_are_the_frames_of_the_video():
    found = clips_of(REAL_CLIPS, "bigbuckbunny.mp4", fps=12.5, num_frames=16)
    whole = video_io.read_video(REAL_CLIPS / "bigbuckbunny.mp4", fps=12.5, size=(16, 16))
    assert len(found) == len(whole) // 16 == 4
    for n, clip in enumerate(found):
        np.testing.assert_array_equal(clip.frames, whole[16 * n : 16 * n + 16])
        assert clip.start == pytest.approx(16 * n / 12.5, abs=1e-9)


def test_small_slow_and_repeating_videos_are_rejected(tmp_path):
    write(tmp_path / "slow.mp4", moving(40), fps=4)
    write(tmp_path / "doubled.mp4", moving(20).repeat(2, axis=0))
    write(tmp_path / "large.mp4", moving(16, height=64, width=64))
    assert reasons(clips_of(tmp_path, "slow.mp4")) == [
        "too slow: 4 of 7.2 frames a second (data.min_rate)"
    ]
    found = reasons(clips_of(tmp_path, "doubled.mp4"))
    assert "clip" not in found and any(reason.startswith("repeated frames: ") for reason in found)
    assert reasons(clips_of(tmp_path, "large.mp4", resolution=(80, 80))) == [
        "too small: 64×64 of 80×80 pixels (data.min_size)"
    ]
    limits = Limits(min_size=1, min_rate=0, max_repeats=1)
    for name in ("slow.mp4", "doubled.mp4", "large.mp4"):
        assert "clip" in reasons(clips_of(tmp_path, name, limits=limits, thresholds=NO_FILTERS))


def test_what_is_done_to_a_video_is_told(tmp_path):
    recipe = Recipe(suffix="mkv", num_frames=96, rate=8, options={"crf": "5"})
    whole = made(tmp_path / "whole.mkv", recipe).read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    clips = [c for c in clips_of(tmp_path, "half.mkv") if isinstance(c, Clip)]
    assert clips
    for clip in clips:
        assert clip.treated[0].startswith("truncated: ") and "of 12.00 s" in clip.treated[0]


def test_clips_begin_at_cuts():
    found = clips_of(REAL_CLIPS, "bikes.mp4", fps=16, num_frames=12)
    whole = video_io.read_video(REAL_CLIPS / "bikes.mp4", fps=16, size=(16, 16))
    shots = [0, 19, 49, 88, 120, 155, 160]
    expected = [
        start
        for begin, end in zip(shots[:-1], shots[1:], strict=True)
        for start in range(begin, end - 11, 12)
    ]
    clips = [entry for entry in found if isinstance(entry, Clip)]
    assert [round(clip.start * 16) for clip in clips] == expected
    for clip, start in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(clip.frames, whole[start : start + 12])
    cuts = [entry for entry in found if isinstance(entry, Rejection)]
    assert [round(cut.end * 16) for cut in cuts] == [19, 49, 88, 120, 155]
    assert cuts[0] == Rejection("shot cut: at 1.19 s, after 7 frames", 12 / 16, 19 / 16)


@pytest.mark.parametrize(
    "start, end, frames",
    [(1.0, 3.0, range(8, 24)), (None, 2.49, range(0, 16)), (2.9, None, range(24, 40)),
     (0.5, 1.5, range(4, 12)), (0, 99.0, range(0, 40))],
)  # fmt: skip
def test_parts_are_kept_to(tmp_path, start, end, frames):
    write(tmp_path / "a.mp4", moving(40))
    whole = video_io.read_video(tmp_path / "a.mp4", fps=8, size=(16, 16))
    found = clips_of(tmp_path, "a.mp4", start, end)
    np.testing.assert_array_equal(np.concatenate([clip.frames for clip in found]), whole[frames])


def test_no_more_clips_than_asked_for(tmp_path):
    write(tmp_path / "a.mp4", np.concatenate([moving(8, brightness=1), moving(32, seed=1)]))
    found = clips_of(tmp_path, "a.mp4", max_clips_per_video=2)
    assert [kind.split(":")[0] for kind in reasons(found)] == ["too dark", "clip", "clip"]
    assert len(clips_of(tmp_path, "a.mp4", thresholds=NO_FILTERS)) == 5


def test_every_kind_of_reason(tmp_path):
    make_folder(tmp_path)
    content = (REAL_CLIPS / "bikes.mp4").read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(content[:100_000])
    (tmp_path / "folder.mp4").mkdir()
    expected = {
        "dark.mp4": ["too dark", "too dark"],
        "static.mp4": ["static", "static"],
        "cut.mp4": ["clip", "shot cut", "clip", "clip"],
        "short.mp4": ["too short"],
        "broken.mp4": ["broken"],
        "truncated.mp4": ["broken"],
        "folder.mp4": ["broken"],
        "gone.mp4": ["missing"],
    }
    for name, kinds in expected.items():
        assert [text.split(":")[0] for text in reasons(clips_of(tmp_path, name))] == kinds, name
    assert reasons(clips_of(tmp_path, "good_a.mp4", captions=())) == ["without a caption"]
    assert reasons(clips_of(tmp_path, "good_a.mp4", 4.0, 4.5)) == [
        "too short: 4 of 8 frames at 8 fps"
    ]
    assert reasons(clips_of(tmp_path, "good_a.mp4", 99.0)) == ["too short: 0 of 8 frames at 8 fps"]


def test_what_a_decoder_raises_late_rejects_the_rest(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", moving(40))
    whole = clips_of(tmp_path, "a.mp4")
    from lumiere_jax.preparation import clips

    def read_frames(*args, **kwargs):
        for n, frame in enumerate(video_io.read_frames(*args, **kwargs)):
            if n == 20:
                raise ValueError("cannot reshape array")
            yield frame

    monkeypatch.setattr(clips, "read_frames", read_frames)
    found = clips_of(tmp_path, "a.mp4")
    assert reasons(found) == ["clip", "clip", "broken: ValueError: cannot reshape array"]
    np.testing.assert_array_equal(found[1].frames, whole[1].frames)
    assert found[2].start == 1.0
