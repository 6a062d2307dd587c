import shutil

import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.video_io import write_lossless, write_video
from lumiere_jax.data.video_timing import VideoReadError
from lumiere_jax.evaluation.clips import ClipRule, choose
from lumiere_jax.runtime.errors import UserError


def find(label, folder, rule, skip_unusable=False, **options):
    chosen = choose(label, folder, skip_unusable=skip_unusable, **options)
    return chosen.examined(rule, skip_unusable)


def numbered(frames: int, height: int = 12, width: int = 20) -> np.ndarray:
    """A video whose frame n has the byte value n."""
    values = np.arange(frames, dtype=np.float32)[:, None, None, None] / 127.5 - 1
    return np.broadcast_to(values, (frames, height, width, 3))


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
    for name, frames in (("a/one", 20), ("a/two", 30), ("b/three", 40)):
        path = tmp_path / f"{name}.mkv"
        path.parent.mkdir(exist_ok=True)
        write_lossless(path, numbered(frames), 10)
    return tmp_path


def frames_of(rule: ClipRule, path) -> list[int]:
    return rule.read(path, path.name)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"position": "first"}, [0, 1, 2, 3]),
        ({"position": "center"}, [18, 19, 20, 21]),
        ({"position": "first", "stride": 3}, [0, 3, 6, 9]),
        ({"position": "center", "stride": 3}, [15, 18, 21, 24]),
        ({"position": "first", "fps": 5.0}, [0, 2, 4, 6]),
    ],
)
def test_which_frames(folder, fields, expected):
    assert frames_of(ClipRule(num_frames=4, **fields), folder / "b" / "three.mkv") == expected


def test_random_clips_depend_on_seed_and_name_alone(folder):
    path = folder / "b" / "three.mkv"
    starts = {}
    for seed in range(30):
        rule = ClipRule(num_frames=4, position="random", seed=seed)
        clip = rule.read(path, "three")[:, 0, 0, 0]
        assert (np.diff(clip) == 1).all()
        starts[seed] = clip[0]
        assert (rule.read(path, "three")[:, 0, 0, 0] == clip).all()
    assert len(set(starts.values())) > 10 and max(starts.values()) <= 36
    other = ClipRule(num_frames=4, position="random", seed=0)
    assert len({other.start(f"name {i}", 40) for i in range(30)}) > 10


def test_aspect_and_size(tmp_path):
    x = np.broadcast_to(np.linspace(-1, 1, 40, dtype=np.float32)[:, None], (9, 20, 40, 3))
    write_lossless(tmp_path / "x.mkv", x, 10)
    whole = ClipRule(num_frames=9).read(tmp_path / "x.mkv", "x")
    assert whole.shape == (9, 20, 40, 3)
    square = ClipRule(num_frames=9, aspect="1:1").read(tmp_path / "x.mkv", "x")
    np.testing.assert_array_equal(square, whole[:, :, 10:30])
    flat = ClipRule(num_frames=9, aspect="4:1").read(tmp_path / "x.mkv", "x")
    np.testing.assert_array_equal(flat, whole[:, 5:15])
    small = ClipRule(num_frames=9, size=(10, 10)).read(tmp_path / "x.mkv", "x")
    assert small.shape == (9, 10, 10, 3)
    np.testing.assert_allclose(small.mean(), square.mean(), atol=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "--num_frames=0"),
        ({"stride": 0}, "--stride=0"),
        ({"fps": 0.0}, "--fps=0.0"),
        ({"position": "last"}, "--clip=last"),
        ({"aspect": "wide"}, "--aspect=wide must be WIDTH:HEIGHT"),
        ({"aspect": "0:3"}, "--aspect=0:3"),
        ({"size": (0, 4)}, "--size="),
    ],
)
def test_rules_that_cannot_be(fields, message):
    with pytest.raises(UserError, match=message):
        ClipRule(**fields)


def test_too_short_is_told(folder):
    with pytest.raises(VideoReadError, match="too short: 20 of 25 frames"):
        ClipRule(num_frames=25).read(folder / "a" / "one.mkv", "one")


def test_sets_are_sorted_listed_and_drawn(folder, tmp_path):
    rule = ClipRule(num_frames=4)
    videos = find("real", folder, rule)
    assert list(videos.names) == ["a/one.mkv", "a/two.mkv", "b/three.mkv"]
    assert videos.fps == (10.0, 10.0) and videos.left_out == {} and videos.treated == ()
    listed = tmp_path / "list.txt"
    listed.write_text("b/three.mkv 3\na/one.mkv 1\n\n")
    assert list(find("real", folder, rule, listed=listed).names) == ["a/one.mkv", "b/three.mkv"]
    drawn = {find("real", folder, rule, most=2, seed=seed).names for seed in range(12)}
    assert len(drawn) == 3 and all(len(set(pair)) == 2 for pair in drawn)
    listed.write_text("c/none.avi 3\n")
    with pytest.raises(UserError, match="not one of the 1 listed videos is in .*c/none.avi"):
        find("real", folder, rule, listed=listed)
    listed.write_text("c/none.avi 3\r\nb/one.mkv 3\r\nb/three.avi 3\r\n")
    with pytest.raises(
        UserError, match="2 of 3 .* cannot be used .b/one.mkv: missing: listed, but"
    ):
        find("real", folder, rule, listed=listed)
    videos = find("real", folder, rule, listed=listed, skip_unusable=True)
    assert videos.names == ("b/three.mkv",) and set(videos.left_out) == {"b/one.mkv", "c/none.avi"}
    listed.write_text("a/one.mkv\n" + "".join(f"{n}.avi\n" for n in range(30)))
    videos = find("real", folder, rule, listed=listed, skip_unusable=True)
    assert list(videos.left_out) == ["30 files, as 0.avi"]


def test_a_clip_in_several_formats_is_scored_once(tmp_path, capsys):
    for name in ("0000.mp4", "0000.gif", "step/0000.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, np.zeros((8, 16, 16, 3), np.float32), 8)
    (tmp_path / "contact_sheet.png").touch()
    rule = ClipRule(num_frames=4)
    videos = find("generated", tmp_path, rule)
    assert videos.names == ("0000.mp4", "step/0000.gif")
    assert videos.left_out == {"0000.gif": "repeated: the same clip as 0000.mp4"}
    told = capsys.readouterr()
    assert (told.out + told.err).count("left out 0000.gif (repeated: the same clip as") == 1
    for n in range(30):
        for suffix in (".mkv", ".gif"):
            shutil.copy(tmp_path / "0000.gif", tmp_path / f"{n + 1:04d}{suffix}")
    videos = find("generated", tmp_path, rule)
    assert len(videos.names) == 32 and len(videos.left_out) == 1
    assert "31 files, as 0000.gif" in videos.left_out
    (tmp_path / "list.txt").write_text("0000.gif\n")  # a list decides
    assert find("real", tmp_path, rule, listed=tmp_path / "list.txt").names == ("0000.gif",)


@pytest.mark.parametrize(
    "line", ["caf\u00e9/v_a.avi 3", "cafe\u0301/v_a.mkv", "caf\u00e9/v_a.mkv 3"]
)
def test_lists_mean_files_of_another_format_and_form(tmp_path, line):
    (tmp_path / "cafe\u0301").mkdir()
    path = tmp_path / "cafe\u0301" / "v_a.mkv"
    write_lossless(path, np.zeros((8, 16, 16, 3), np.float32), 8)
    (tmp_path / "list.txt").write_text(line, encoding="utf-8")
    videos = find("real", tmp_path, ClipRule(num_frames=4), listed=tmp_path / "list.txt")
    assert videos.names == ("cafe\u0301/v_a.mkv",)
    (tmp_path / "list.txt").write_bytes("café".encode("cp1252"))
    with pytest.raises(UserError, match="list.txt cannot be read: list.txt is not UTF-8 text"):
        find("real", tmp_path, ClipRule(num_frames=4), listed=tmp_path / "list.txt")


def test_unusable_files_stop_or_are_left_out_by_name(folder):
    (folder / "a" / "broken.mp4").write_bytes(b"no video")
    rule = ClipRule(num_frames=25)
    with pytest.raises(UserError, match=r"2 of 4 .*broken.mp4: .*--skip_unusable"):
        find("generated", folder, rule)
    videos = find("generated", folder, rule, skip_unusable=True)
    assert list(videos.names) == ["a/two.mkv", "b/three.mkv"]
    assert videos.left_out["a/one.mkv"] == "too short: 20 of 25 frames"
    assert set(videos.left_out) == {"a/one.mkv", "a/broken.mp4"}
    with pytest.raises(UserError, match="4 of 4"):
        find("generated", folder, ClipRule(num_frames=50), skip_unusable=True)


def test_no_videos(tmp_path):
    with pytest.raises(UserError, match="real videos: .* holds none"):
        find("real", tmp_path, ClipRule())
    with pytest.raises(UserError, match="there is no folder"):
        find("real", tmp_path / "absent", ClipRule())


def test_fingerprint_changes_with_the_files(folder):
    rule = ClipRule(num_frames=4)
    before = find("real", folder, rule).fingerprint
    assert find("real", folder, rule).fingerprint == before
    write_lossless(folder / "a" / "one.mkv", numbered(21), 10)
    assert find("real", folder, rule).fingerprint != before


def test_files_whose_frames_are_changed_in_reading_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (16, 16, 4), np.uint8)) for _ in range(4)]
    for name in ("a.apng", "b.apng"):
        frames[0].save(tmp_path / name, format="PNG", save_all=True, append_images=frames[1:])
    write_lossless(tmp_path / "c.mkv", numbered(4), 8)
    videos = find("real", tmp_path, ClipRule(num_frames=4))
    assert len(videos.names) == 3 and videos.treated == ("2 × transparent, put on white",)
