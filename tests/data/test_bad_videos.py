import subprocess
import sys

import numpy as np
import pytest

from lumiere_jax.data import video_io
from lumiere_jax.data.video_folder import VideoFolder
from tests.data import bad_videos

OPTIONS = {"num_frames": 4, "resolution": 16, "fps": bad_videos.RATE}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, bad_videos.write_corpus(folder)


def test_each_file_is_used_or_reported_with_its_reason(corpus):
    folder, expected = corpus
    source = VideoFolder(folder, **OPTIONS)
    skipped = source.report.skipped
    for name, reason in expected.items():
        assert (name in skipped) == (reason is not None), (name, skipped.get(name))
        assert reason is None or reason in skipped[name]
    used = {source.path(index).name: index for index in range(len(source))}
    assert used.keys() == {name for name, reason in expected.items() if reason is None}
    for index in used.values():
        frames, caption = source.frames(index, 1)
        assert frames.shape == (4, 16, 16, 3) and frames.dtype == np.uint8
        assert frames.std(axis=(1, 2)).min() > 5 and caption
    caption = source.frames(used["unicode.mp4"])[1]
    assert caption.split() == bad_videos.every_class_of_character().split()
    assert len(source.frames(used["long_caption.mp4"])[1]) == 9999


def test_unusual_formats_show_the_same_picture(corpus):
    folder, _ = corpus
    plain = video_io.read_video(folder / "fine.mp4", fps=bad_videos.RATE).astype(int)
    for name in ("ten_bit.mkv", "alpha.mkv", "mp4_inside.gif"):
        read = video_io.read_video(folder / name, fps=bad_videos.RATE)
        assert np.abs(read - plain).mean() < 4, name
    turned = video_io.read_video(folder / "rotated.mp4", fps=bad_videos.RATE)
    assert np.abs(np.rot90(turned, -1, axes=(1, 2)) - plain).mean() < 1
    held = video_io.read_video(folder / "variable_rate.mp4", fps=bad_videos.RATE)
    assert len(held) == 14
    np.testing.assert_array_equal(held[2], held[5])
    assert np.abs(held[6].astype(int) - held[5]).mean() > 5


MEMORY_PROGRAM = """
import sys
from pathlib import Path

import psutil

from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoReadError, probe_video

paths = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_file())
process, seen = psutil.Process(), []
for round in range(1000 // len(paths) + 2):
    for path in paths:
        try:
            probe_video(path)
            raise SystemExit(f"{path} was read")
        except VideoReadError:
            pass
    seen.append(process.memory_info().rss / 2**20)
assert len(seen) * len(paths) >= 1000
print(max(seen) - seen[len(seen) // 4], process.num_fds())
"""


def test_a_thousand_bad_files_leave_memory_flat_and_no_file_open(corpus, tmp_path):
    folder, _ = corpus
    whole = (folder / "fine.mp4").read_bytes()
    generator = np.random.default_rng(0)
    for name in ("truncated.mp4", "zero_bytes.mp4", "text.mkv", "audio_only.avi", "huge.mkv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for n in range(5):
        noise = generator.integers(0, 256, 2**16, np.uint8).tobytes()
        (tmp_path / f"noise_{n}.mp4").write_bytes(whole[: 64 * n] + noise)
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout
    growth, open_files = map(float, result.stdout.split())
    assert growth < 8 and open_files < 32
