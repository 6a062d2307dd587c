"""A folder of classes of UCF101: which videos go where, with which captions."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ucf101_folder  # noqa: E402

from lumiere_jax.data.captions import read_captions_file  # noqa: E402
from lumiere_jax.runtime.errors import UserError  # noqa: E402


def test_videos_and_captions(tmp_path):
    videos, output = tmp_path / "UCF-101", tmp_path / "videos"
    names = ("v_Archery_g07_c01.avi", "v_Archery_g08_c01.avi", "v_Surfing_g10_c02.AVI")
    for name in (*names, "v_Rowing_g01_c01.avi", "notes.txt"):
        path = videos / name[2:5] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    assert ucf101_folder.arrange(videos, output) == 3
    found = {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("v_*")}
    assert found == {
        "test/Archery/v_Archery_g07_c01.avi": b"v_Archery_g07_c01.avi",
        "train/Archery/v_Archery_g08_c01.avi": b"v_Archery_g08_c01.avi",
        "train/Surfing/v_Surfing_g10_c02.AVI": b"v_Surfing_g10_c02.AVI",
    }
    captions = read_captions_file(output / "captions.csv")
    assert set(captions) == {str(output / path) for path in found}
    assert captions[str(output / "train/Surfing/v_Surfing_g10_c02.AVI")].captions == [
        "surfing", "a surfer rides a wave", "a person on a surfboard in the sea",
    ]  # fmt: skip


def test_no_video(tmp_path):
    with pytest.raises(UserError, match="holds no video of Archery"):
        ucf101_folder.arrange(tmp_path, tmp_path / "videos")
