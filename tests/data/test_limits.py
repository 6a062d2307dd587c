"""Files that are too small, too slow, or repeat their frames."""

import numpy as np
import pytest

from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.limits import Limits, changes, repeated
from lumiere_jax.data.sources import create_source, report
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.data.video_io import write_image, write_mp4
from lumiere_jax.runtime.errors import UserError

SETTINGS = {"num_frames": 8, "resolution": 32, "fps": 16}


def moving(num_frames, height=48, width=64):
    t, y, x = np.mgrid[:num_frames, :height, :width]
    return np.stack([np.sin((x + 3 * t) / 5), np.sin((y - 2 * t) / 7), np.sin(t + x)], axis=-1)


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    videos = {
        "fine": (moving(32), 16),
        "film": (moving(32), 15.9),
        "small": (moving(32, 24, 64), 16),
        "slow": (moving(16), 8),
        "doubled": (moving(16).repeat(2, axis=0), 16),
        "slides": (moving(2).repeat(16, axis=0), 16),
        "converted": (moving(28)[[n * 7 // 8 for n in range(32)]], 16),
    }
    for name, (video, fps) in videos.items():
        write_mp4(folder / f"{name}.mp4", video, fps)
        (folder / f"{name}.txt").write_text(f"the video {name}")
    return folder


def test_each_is_left_out_with_its_reason(folder):
    source = VideoFolder(folder, **SETTINGS)
    skipped = source.report.skipped
    assert skipped.keys() == {"small.mp4", "slow.mp4", "doubled.mp4", "slides.mp4"}
    assert skipped["small.mp4"] == "too small: 64×24 of 32×32 pixels (data.min_size)"
    assert skipped["slow.mp4"] == "too slow: 8 of 14.4 frames a second (data.min_rate)"
    assert skipped["doubled.mp4"].startswith("repeated frames: 57% are the same as the one before")
    assert skipped["slides.mp4"].startswith("repeated frames: ")
    assert len(source) == 3  # of 14 frames a second that are shown as 16 every eighth repeats
    told = str(source.report)
    assert "at least 32×32 pixels, at least 14.4 frames a second, at most 25% repeated" in told


def test_limits_are_settings(folder):
    every = VideoFolder(folder, **SETTINGS, min_size=1, min_rate=0, max_repeats=1)
    assert len(every) == 7 and not every.report.skipped
    assert len(VideoFolder(folder, **SETTINGS, min_size=24)) == 4
    strict = VideoFolder(folder, **SETTINGS, max_repeats=0.1)
    assert "converted.mp4" in strict.report.skipped
    with pytest.raises(UserError, match="max_repeats=2 from 0 to 1"):
        VideoFolder(folder, **SETTINGS, max_repeats=2)
    with pytest.raises(UserError, match="7 too small"):
        VideoFolder(folder, **SETTINGS, min_size=100)


def test_pictures_have_the_same_limit(tmp_path):
    for side in (24, 48):
        write_image(tmp_path / f"{side}.png", moving(1, side, side)[0])
        (tmp_path / f"{side}.txt").write_text("waves")
    assert len(ImageFolder(tmp_path, resolution=32)) == 1
    assert len(ImageFolder(tmp_path, resolution=32, min_size=20)) == 2
    settings = {"name": "image_folder", "folder": str(tmp_path), "resolution": 32, "num_frames": 1}
    told = report(create_source(settings, "train"))
    assert "at least 32×32 pixels" in told and "24.png: too small: 24×24 of 32×32" in told


def test_frames_that_a_codec_has_changed_a_little_repeat_too():
    doubled = [9.4, 0.3, 4.2, 0.2, 6.8, 0.2, 2.6, 0.2, 3.0]  # of a clip of UCF101
    np.testing.assert_array_equal(repeated(doubled), np.array(doubled) < 0.4)
    tripled = [0.3, 0.4, 12.5, 0.3, 0.4, 12.7, 0.6, 1.2, 14.9]
    assert repeated(tripled).tolist() == [False] * 3 + [True, True, False, True, True, False]
    for real in ([0.5] * 9, [0.5, 0.6, 30, 0.5, 0.4], [2, 30, 25, 3, 1], [1, 3, 9, 20, 9, 3, 1]):
        assert not repeated(real).any()  # a still picture, a cut, a flash and a start
    assert repeated([0.05, 0.0]).all() and repeated([]).shape == (0,)


def test_changes_equal_numpy_in_float64():
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    expected = np.abs(np.diff(frames.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(changes(frames), expected, rtol=1e-12)


def test_a_mixture_reports_its_parts(folder, tmp_path):
    entry = {"name": "video_folder", "folder": str(folder), "weight": 1}
    settings = SETTINGS | {"name": "mixture", "mixture": (entry, {"name": "moving_shapes"})}
    assert "doubled.mp4: repeated frames" in report(create_source(settings, "train"))


def test_no_change_no_reason():
    assert Limits().repeating([]) is None
