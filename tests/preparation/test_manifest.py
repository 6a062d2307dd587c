import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from lumiere_jax.preparation.manifest import Video, check_found, read_source
from lumiere_jax.preparation.splitting import choose_split, note_of_few
from lumiere_jax.runtime.errors import UserError
from tests.preparation.videos import make_folder

ROWS = [
    {"path": "a.mp4", "caption": "one, with a comma", "start": 1.5, "end": 3.0},
    {"path": "/far/b.mp4", "caption": "two", "start": None, "end": None},
    {"path": "a.mp4", "caption": "three", "start": 3.0, "end": None},
    {"path": "a.mp4", "caption": "another  one", "start": 1.5, "end": 3.0},
    {"path": "gs://bucket/c.mp4", "caption": "", "start": None, "end": 2.0},
]
VIDEOS = [
    Video("a.mp4", ("one, with a comma", "another one"), "train", 1.5, 3.0),
    Video("/far/b.mp4", ("two",), "train"),
    Video("a.mp4", ("three",), "train", 3.0, None),
    Video("gs://bucket/c.mp4", (), "train", None, 2.0),
]


def write_manifest(path, rows=ROWS):
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        fields = [[("" if v is None else json.dumps(v)) for v in row.values()] for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *map(",".join, fields)]) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifests_of_all_kinds_say_the_same(tmp_path, suffix):
    source = read_source(write_manifest(tmp_path / f"list{suffix}"), 0.0)
    assert source.root == str(tmp_path) and source.videos == VIDEOS
    assert [Video.from_line(video.to_line()) for video in source.videos] == VIDEOS


def test_times_are_optional_and_nan_is_none(tmp_path):
    (tmp_path / "list.csv").write_text("video,text\na.mp4,x\n")
    assert read_source(tmp_path / "list.csv", 0.0).videos == [Video("a.mp4", ("x",), "train")]
    rows = [{"path": "a.mp4", "caption": "x", "start": float("nan"), "end": 2.0}]
    source = read_source(write_manifest(tmp_path / "list.parquet", rows), 0.0)
    assert source.videos == [Video("a.mp4", ("x",), "train", None, 2.0)]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("m.csv", "path,title\na.mp4,x\n", "manifest .*m.csv, line 1: no column caption or text"),
        ("m.csv", "path,caption,start\na.mp4,x,soon\n", "line 2: start is 'soon', not a time"),
        ("m.csv", "path,caption,start\na.mp4,x,-1\n", "line 2: start is '-1', not a time"),
        ("m.csv", "path,caption,end\na.mp4,x,nan\n", "line 2: end is 'nan', not a time"),
        ("m.csv", "path,caption,end\na.mp4,x,inf\n", "line 2: end is 'inf', not a time"),
        ("m.csv", "path,caption,start,end\na.mp4,x,2,2\n", "line 2: end is 2 s, .*start, 2 s"),
        ("m.csv", "path,caption\n ,x\n", "line 2: the path is empty"),
        ("m.csv", "path,caption\na.mp4,b,c\n", "manifest .*line 2: 3 fields"),
        ("m.csv", b"path,caption\na.mp4,caf\xe9\n", "not UTF-8"),
        ("m.csv", "path,caption\n", "has no videos"),
        ("m.jsonl", '{"path": "a.mp4"}\n', "line 1: caption or text is missing"),
        ("m.jsonl", '\n{"path": 3, "caption": "x"}\n', "line 2: path.* is 3, not a text"),
        ("m.jsonl", '{"path": "a", "caption": "x", "end": true}\n', "line 1: end is True, not"),
        ("m.parquet", "no parquet", "m.parquet is not Parquet"),
        ("m.txt", "a.mp4", "must end in .csv, .jsonl or .parquet"),
    ],
)
def test_malformed_manifests_say_which_line(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read_source(tmp_path / name, 0.0)


def read_one(tmp_path, row, suffix=".jsonl"):
    (video,) = read_source(write_manifest(tmp_path / f"m{suffix}", [row]), 0.0).videos
    return video.start, video.end


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "times, expected",
    [
        ({"start_time": 1.5, "end_time": 3}, (1.5, 3)),
        ({"Start": 1.5, " END ": 3}, (1.5, 3)),
        ({"startTime": "00:01:02.5", "endTime": "1:05"}, (62.5, 65)),
        ({"time_start": "00:00:01,500", "time_end": "01:00:00"}, (1.5, 3600)),
        ({"t_start": 1.5, "t_end": 3.0}, (1.5, 3)),
        ({"start_ms": 1500, "end_ms": 3000}, (1.5, 3)),
        ({"begin (sec)": 1.5, "stop (sec)": 3}, (1.5, 3)),
        ({"start": 1.5, "duration": 1.5}, (1.5, 3)),
        ({"from_sec": 1.5, "to_sec": 3}, (1.5, 3)),
        ({"to": "me", "video_duration": 9, "start_date": "2020-02-02"}, (None, None)),
        ({"clip_start": 1.5, "clip_end": 3, "duration": 99}, (1.5, 3)),
        ({"temporal_start": 1.5, "temporal_end": 3}, (1.5, 3)),
        ({"begin_s": 1.5, "len_s": 1.5}, (1.5, 3)),
        ({"start_pose": 1, "end_pose": 2, "start_url": "a", "stop_url": "b"}, (None, None)),
        ({"start_city": "A", "end_city": "B", "opt_in": 1, "opt_out": 2, "len": 9}, (None, None)),
        ({"start-seconds": 1.5, "end-seconds": ""}, (1.5, None)),
        (
            {"duration": 99, "video_length": 99, "upload_time": "2020", "num_frames": 9},
            (None, None),
        ),
    ],
)
def test_times_are_read_by_whatever_name_is_plain(tmp_path, times, expected, suffix):
    row = {"path": "a.mp4", "caption": "x"} | times
    assert read_one(tmp_path, row, suffix) == pytest.approx(expected)


@pytest.mark.parametrize(
    "times, message",
    [
        ({"start_frame": 3, "end_frame": 9}, "the column start_frame does not count seconds"),
        ({"timestamps": "[0, 1]"}, "the column timestamps looks like times, but"),
        ({"time": 3}, "the column time looks like times"),
        ({"from": 3, "to": 5}, "the column from looks like times"),
        ({"t0": 3, "t1": 5}, "the column t0 looks like times"),
        ({"tc_in": 3, "tc_out": 5}, "the column tc_in looks like times"),
        ({"youtube_start": 3, "youtube_end": 5}, "the column youtube_start looks like times"),
        ({"ss": 3, "to": 5}, "the column ss looks like times"),
        ({"time_range": "3-5"}, "the column time_range looks like times"),
        ({"offset": 3, "duration": 5}, "the column offset looks like times"),
        ({"start": 1, "start_ms": 1000}, "start and start_ms both tell the start"),
        ({"start": "00:00:01:12"}, "start is '00:00:01:12', not a time in seconds or as 00:01:02"),
        ({"start": "00:75"}, "start is '00:75', not a time"),
        ({"start": "1,5"}, "start is '1,5', not a time"),
        ({"start": 5, "duration": 0}, "end is 5 s, which is not after start"),
        ({"Start": 1, "start ": 2}, "two columns are named start"),
    ],
)
def test_times_whose_meaning_is_not_plain_are_refused(tmp_path, times, message):
    with pytest.raises(UserError, match=message):
        read_one(tmp_path, {"path": "a.mp4", "caption": "x"} | times)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_columns_that_are_used_and_those_that_are_not_are_told(tmp_path, suffix):
    row = {"id": "7", "Path": "a.mp4", "caption": "x", "start_ms": 5, "end": 1.0, "duration": 1.0}
    source = read_source(write_manifest(tmp_path / f"m{suffix}", [row]), 0.0)
    assert source.columns == (
        "columns used: path, caption, start_ms (start in milliseconds), end (end in seconds); not "
        "used: id, duration"
    )


@pytest.mark.parametrize(
    "text, encoding",
    [
        ("path,caption,start\na.mp4,un café,1.5\n", "utf-8-sig"),
        ("path,caption,start\na.mp4,un café,1.5\n", "utf-16"),
        ("path;caption;start\r\na.mp4;un café;1.5\r\n", "utf-8"),
        ('sep=;\r\n"Path";"Caption";"start"\r\na.mp4;"un café";1.5\r\n', "utf-8"),
        ("path\tcaption\tstart\na.mp4\tun café\t1.5\n", "utf-16"),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, text, encoding):
    for name in ("m.csv", "m.tsv"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        video = Video("a.mp4", ("un café",), "train", 1.5)
        assert read_source(tmp_path / name, 0.0).videos == [video]


def test_one_file_in_two_spellings_is_one_video(tmp_path):
    rows = [{"path": f"caf{e}.mp4", "caption": e} for e in ("\u00e9", "e\u0301")]
    (video,) = read_source(write_manifest(tmp_path / "m.jsonl", rows), 0.0).videos
    assert video.captions == ("\u00e9", "e\u0301")
    assert choose_split("\u00e9", 0.5) == choose_split("e\u0301", 0.5)


def test_a_source_of_which_no_video_is_there_is_told_the_nearest_file(tmp_path):
    make_folder(tmp_path / "videos")
    rows = [{"path": f"clips/{name}.mp4", "caption": "x"} for name in ("good_a", "dark")]
    source = read_source(write_manifest(tmp_path / "m.jsonl", rows), 0.0)
    near = tmp_path / "videos" / "good_a.mp4"
    with pytest.raises(UserError, match=f"no file .*clips/good_a.mp4; the nearest is {near};"):
        check_found(source)
    rows.append({"path": "videos/dark.mp4", "caption": "x"})
    check_found(read_source(write_manifest(tmp_path / "m.jsonl", rows), 0.0))
    for path in (tmp_path / "videos").rglob("*.txt"):
        path.unlink()
    (tmp_path / "videos" / "captions.csv").write_text("path,caption\nclips/good_a.mp4,x\n")
    with pytest.raises(UserError, match=f"no video has a caption; captions.csv: .* is {near}"):
        read_source(tmp_path / "videos", 0.0)


def test_what_is_left_out_of_a_folder_is_known(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "good_a.gif").write_bytes(b"GIF89a")
    (tmp_path / "dark.txt").write_bytes(b"caf\xe9")
    left_out = read_source(tmp_path, 0.0).left_out
    assert left_out["good_a.gif"] == "repeated: the same clip as good_a.mp4"
    assert left_out["dark.mp4"].startswith("unreadable caption: dark.txt is not UTF-8")
    assert len(left_out) == 2


def test_other_mistakes_are_told(tmp_path):
    for name in ("nowhere", "nowhere.csv"):
        with pytest.raises(UserError, match=f"{name}.*(no such|No such)"):
            read_source(tmp_path / name, 0.0)
    with pytest.raises(UserError, match="has no videos"):
        read_source(tmp_path, 0.0)
    write_manifest(tmp_path / "m.parquet", [{"path": "a.mp4", "words": "x"}])
    with pytest.raises(UserError, match="no column caption or text among path, words"):
        read_source(tmp_path / "m.parquet", 0.0)


def test_a_folder_is_read_as_the_data_source_reads_it(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "captions.csv").write_text(
        "path,caption\ngood_a.mp4,first\ngood_a.mp4,second\ngone.mp4,it was here\n"
    )
    videos = {video.path: video.captions for video in read_source(tmp_path, 0.0).videos}
    assert list(videos)[:-1] == sorted(list(videos)[:-1], key=Path)
    assert videos["good_a.mp4"] == ("first", "second")
    assert videos["deep/good_b.mp4"] == ("the video good_b",)
    assert videos["untold.mp4"] == () and videos["gone.mp4"] == ("it was here",)


def test_splits_are_folders_or_shares_by_hash(tmp_path):
    rows = [{"path": f"{n // 2}.mp4", "caption": "x", "start": n % 2} for n in range(4000)]
    source = read_source(write_manifest(tmp_path / "m.jsonl", rows), 0.2)
    by_path = {}
    for video in source.videos:
        by_path.setdefault(video.path, set()).add(video.split)
    assert all(len(splits) == 1 for splits in by_path.values())
    share = np.mean([splits == {"test"} for splits in by_path.values()])
    assert abs(share - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 2000)
    # What is in a smaller share of tests stays in a larger one.
    assert all(choose_split(p, 0.3) == "test" for p, s in by_path.items() if s == {"test"})
    make_folder(tmp_path / "f" / "train")
    make_folder(tmp_path / "f" / "test")
    for video in read_source(tmp_path / "f", 0.5).videos:
        assert video.split == video.path.split("/")[0]
    assert read_source(tmp_path / "f", 0.5).splits == "split: by folders (train 8, test 8)"


def splits_of(tmp_path, rows, test_fraction=0.0):
    rows = [{"caption": "x"} | (row if isinstance(row, dict) else {"path": row}) for row in rows]
    source = read_source(write_manifest(tmp_path / "m.jsonl", rows), test_fraction)
    return [video.split for video in source.videos], source.splits


@pytest.mark.parametrize(
    "before", ["", "./", "/elsewhere/", "gs://bucket/ucf/", "clips/", "HERE/", "../near/test/"]
)
def test_the_folders_of_a_manifest_decide_wherever_its_videos_are(tmp_path, before):
    before = before.replace("HERE", str(tmp_path))
    names = ["train/a/1.mp4", "Test/b/2.mp4", "VAL/3.mp4", "validation/test.mp4", "c/4.mp4"]
    rows = [before + name for name in names]
    expected = ["train", "test", "test", "test", "train"]
    told = "split: by folders (train 1, test 3); by a hash of the path (train 1, test 0)"
    assert splits_of(tmp_path, rows) == (expected, told)


def test_the_column_split_goes_before_folders_and_is_told(tmp_path):
    rows = [
        {"path": "test/1.mp4", "split": "Train"},
        {"path": "2.mp4", "split": " validation"},
        {"path": "3.mp4", "split": "test", "start": 1},
        {"path": "3.mp4", "split": None, "start": 2},
        {"path": "test/4.mp4", "split": float("nan")},
        {"path": "5.mp4", "split": ""},
        {"path": "6.mp4", "split": "train", "start": 1},
        {"path": "6.mp4", "split": "valid", "start": 2},
    ]
    found, told = splits_of(tmp_path, rows)
    assert found == ["train", "test", "test", "test", "test", "train", "train", "test"]
    assert told == (
        "split: by the column split (train 2, test 4); by folders (train 0, test 1); by a hash of "
        "the path (train 1, test 0)\nnote: videos with parts in both splits: 1 (6.mp4 …)"
    )
    row = {"path": "a.mp4", "caption": "x", "split": "test"}
    for suffix in (".csv", ".parquet"):
        source = read_source(write_manifest(tmp_path / f"m{suffix}", [row]), 0.0)
        assert [video.split for video in source.videos] == ["test"]
        assert source.columns == "columns used: path, caption, split"
    with pytest.raises(UserError, match="line 1: split is 'dev'; use train, or test, testing, val"):
        splits_of(tmp_path, [{"path": "a.mp4", "split": "dev"}])
    with pytest.raises(UserError, match="line 2: .* train there and test here"):
        splits_of(tmp_path, [{"path": "a.mp4", "split": split} for split in ("train", "val")])


def test_folders_named_as_splits_that_do_not_decide_are_told(tmp_path):
    _, told = splits_of(tmp_path, ["Archery/test/1.mp4", "Archery/2.mp4", "test.mp4"])
    assert "not the first of their path: 1 (Archery/test/1.mp4 …)" in told
    assert "note" not in splits_of(tmp_path, ["/test/a/1.mp4", "/test/a/2.mp4"])[1]


def test_few_clips_to_test_with_are_told():
    assert "note: the split test has few clips (6;" in note_of_few(6, "clips", 0.01)
    assert note_of_few(0, "clips", 0.01) and note_of_few(3, "clips", 0.0)
    assert not note_of_few(64, "clips", 0.01) and not note_of_few(0, "clips", 0.0)


def test_each_split_of_a_folder_has_its_own_captions_file(tmp_path):
    """As `VideoFolder` reads it; the video of a split that is a link is read as well."""
    linked = tmp_path / "linked"
    for folder in (tmp_path / "f" / "Train", linked):
        folder.mkdir(parents=True)
        (folder / "1.mp4").touch()
        (folder / "captions.csv").write_text(f"path,caption\n1.mp4,{folder.name}\n9.mp4,gone\n")
    (tmp_path / "f" / "valid").symlink_to(linked)
    (tmp_path / "f" / "2.mp4").touch()
    (tmp_path / "f" / "captions.csv").write_text("path,caption\n2.mp4,two\nTrain/1.mp4,root\n")
    source = read_source(tmp_path / "f", 0.0)
    there = [video for video in source.videos if "9" not in video.path]
    assert there == [
        Video("2.mp4", ("two",), "train"),
        Video("Train/1.mp4", ("Train",), "train"),
        Video("valid/1.mp4", ("linked",), "test"),
    ]
    assert len(source.videos) == 5 and source.left_out == {}
