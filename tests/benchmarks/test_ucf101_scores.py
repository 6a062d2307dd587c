"""What `benchmarks/ucf101.py --stage=scores` computes itself, on made-up clips."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.video_io import read_video, write_lossless
from lumiere_jax.metrics import frechet
from lumiere_jax.metrics.inception_score import inception_score
from lumiere_jax.metrics.preprocessing import prepare

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import independent_scores as independent  # noqa: E402
import ucf101_scores as scores  # noqa: E402

NEEDS_FFMPEG = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="needs the program ffmpeg"
)


@pytest.mark.parametrize("size", [(20, 30), (240, 320)])
def test_preprocessing_is_the_packages(size):
    clip = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    # Of [-1, 1]: places are float32 in TensorFlow, and neighbours here differ by up to 2.
    np.testing.assert_allclose(independent.prepared(clip), prepare(clip), atol=1e-4)


@pytest.mark.parametrize("dim", [6, 30])  # 30: fewer clips than features, as on real clips
def test_figures_are_the_packages(dim):
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(20, dim)), 1.5 * rng.normal(size=(25, dim)) + 0.3
    moments = (frechet.Moments.of(x) for x in (first, second))
    assert independent.frechet_distance(first, second) == pytest.approx(
        frechet.frechet_distance(*moments), rel=1e-5
    )
    assert independent.kernel_distance(first, second) == pytest.approx(
        frechet.kernel_distance(first, second).value, rel=1e-9
    )
    for splits, epsilon in ((1, 0.0), (3, 0.0), (1, 1e-7)):
        assert independent.inception_score(first, splits, epsilon) == pytest.approx(
            inception_score(first, splits, epsilon)[0], rel=1e-9
        )


def test_halves_of_scenes_share_none():
    paths = [Path(f"v_X_g{n:02}_c{c:02}.avi") for n in range(7) for c in range(1 + n % 3)]
    one, two = scores.halves_of_scenes(paths, np.random.default_rng(2))
    assert sorted([*one, *two]) == list(range(len(paths))) and abs(len(one) - len(two)) <= 2
    scenes = [{paths[number].stem[:7] for number in half} for half in (one, two)]
    assert not scenes[0] & scenes[1]


@pytest.fixture(name="videos")
def fixture_videos(tmp_path):
    """Two videos of 21 and 24 frames: a bright square that moves by 3 pixels a frame."""
    paths = []
    for number, frames in enumerate((21, 24)):
        video = np.full((frames, 48, 96, 3), 30, np.uint8)
        for n in range(frames):
            video[n, 10 : 30 + number, 3 * n : 3 * n + 20] = 220
        paths.append(tmp_path / f"v_Square_g01_c0{number}.mkv")
        write_lossless(paths[-1], to_float(video), 25)
    return paths


@NEEDS_FFMPEG
def test_logits_of_both_ways_are_of_the_same_frames_and_kept(videos, tmp_path, monkeypatch):
    seen = []

    class Network:
        batch_size = 2

        def __call__(self, clips):
            seen.append(list(clips))
            return np.stack([np.full(3, clip.mean(), np.float32) for clip in clips])

    monkeypatch.setattr(scores, "i3d_network", lambda profile: Network())
    monkeypatch.setattr(independent, "network", Network)
    scored = scores.Extractor(tmp_path / "work")("squares", videos)
    assert scored.paths == tuple(videos) and scored.is_same.all()
    for video, start, *clips in zip(videos, (2, 4), *seen, strict=True):
        for clip in clips:
            np.testing.assert_array_equal(clip, read_video(video, fps=25)[start : start + 16])
    whole = scores.by_ffmpeg
    monkeypatch.setattr(
        scores, "by_ffmpeg", lambda path, kind: whole(path, kind)[path == videos[0] :]
    )
    again = scores.Extractor(tmp_path / "work")("squares", videos)
    assert len(seen) == 2 and again.paths == (videos[1],)  # the other one counts otherwise
    np.testing.assert_array_equal(again.here, scored.here[1:])


@NEEDS_FFMPEG
def test_damaged_copies(videos, tmp_path):
    originals = [scores.RULE.read(path, path.name).astype(int) for path in videos]
    for name in ("H.264 at 50 kbit/s", "frames shuffled", "half of the frames dropped"):
        copies = list(scores.damaged_copies(name, videos, tmp_path / "work"))
        made = [copy.stat().st_mtime_ns for copy in copies]
        assert list(scores.damaged_copies(name, videos, tmp_path / "work")) == copies
        assert [copy.stat().st_mtime_ns for copy in copies] == made
        for copy, original in zip(copies, originals, strict=True):
            clip = scores.RULE.read(copy, copy.name)
            apart = np.abs(clip[:, None] - original[None]).mean((2, 3, 4))  # of each two frames
            place = apart.argmin(axis=1).tolist()
            if name == "frames shuffled":
                assert sorted(place) == list(range(16)) and place != sorted(place)
            elif name.startswith("H.264"):
                assert place == list(range(16)) and apart.min(axis=1).max() > 0
            else:
                assert place == sorted(place) and len(set(place)) == 8
