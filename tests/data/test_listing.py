"""Folders as people have them: odd names, odd endings, odd encodings, and what is nobody's data."""

import shutil
import unicodedata
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data import finding
from lumiere_jax.data.file_kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.listing import Listing
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.runtime.errors import UserError
from tests.data.bad_videos import write_video

SETTINGS = {"num_frames": 4, "resolution": 16, "fps": 8}
NFC, NFD = (unicodedata.normalize(form, "café été") for form in ("NFC", "NFD"))


def captioned(path, text=None, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.with_suffix(".txt").write_bytes((text or f"the video {path.stem}").encode(encoding))
    return path


def test_videos_of_all_endings_are_read_whatever_their_case(tmp_path):
    codecs = {
        ".MTS": "libx264", ".m2ts": "libx264", ".ts": "libx264", ".wmv": "mpeg4", ".3gp": "libx264",
        ".flv": "libx264", ".vob": "mpeg2video", ".MPG": "mpeg2video", ".mxf": "mpeg2video",
        ".nut": "ffv1", ".F4V": "libx264", ".ogv": "libvpx", ".asf": "mpeg4",
    }  # fmt: skip
    formats = {".wmv": "asf", ".f4v": "mp4", ".ogv": "ogg", ".m2ts": "mpegts", ".MTS": "mpegts"}
    for n, (suffix, codec) in enumerate(codecs.items()):
        path = captioned(tmp_path / f"{n}{suffix}")
        kind = formats.get(suffix) or formats.get(suffix.lower())
        with av.open(str(path), "w", format=kind) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuv420p"
            for shade in range(25):
                image = np.full((48, 64, 3), 9 * shade, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            container.mux(stream.encode())
    source = VideoFolder(tmp_path, **SETTINGS)
    assert source.report.skipped == {} and len(source) == len(codecs)


def test_what_is_no_video_is_named_and_many_of_a_kind_together(tmp_path):
    write_video(captioned(tmp_path / "a.mp4"))
    for name in ("README", "b.png", "c.mp4.part", "note.txt", "metadata.jsonl", "clip.srt"):
        (tmp_path / name).touch()
    (tmp_path / "Captions.CSV").write_text("path,caption\na.mp4,one\n")
    for n in range(30):
        (tmp_path / f"{n:02d}.json").touch()
    report = VideoFolder(tmp_path, **SETTINGS).report
    assert report.skipped == {
        "README": "not a video by the ending of its name",
        "b.png": "an image, not a video",
        "c.mp4.part": "not a video by the ending of its name",
        "clip.srt": "not a video by the ending of its name",
        "note.txt": "a text without a video of its name",
        "metadata.jsonl": "not read: the captions are in Captions.CSV",
        "30 files ending in .json (00.json …)": "not a video by the ending of its name",
    }
    assert all(f"{name}: {why}" in str(report) for name, why in report.skipped.items())


def test_an_image_folder_names_videos_and_reads_still_gifs_and_tiffs(tmp_path):
    image = Image.fromarray(np.full((20, 20, 3), 99, np.uint8))
    for name in ("a.TIF", "b.jfif", "c.gif", "d.avif"):
        image.save(captioned(tmp_path / name), format="JPEG" if "jfif" in name else None)
    image.save(captioned(tmp_path / "moving.gif"), save_all=True, append_images=[image.rotate(9)])
    Image.fromarray(np.zeros((20, 20), np.float32)).save(captioned(tmp_path / "depth.tiff"))
    captioned(tmp_path / "clip.mp4")
    captioned(tmp_path / "phone.HEIC")
    source = ImageFolder(tmp_path, resolution=16)
    assert len(source) == 4
    assert source.report.skipped.pop("phone.HEIC").startswith("a format of images that is not read")
    assert source.report.skipped.pop("phone.txt") == "a text without an image of its name"
    assert source.report.skipped.pop("clip.txt") == "a text without an image of its name"
    assert source.report.skipped == {
        "moving.gif": "a video, not an image",
        "clip.mp4": "a video, not an image",
        "depth.tiff": "broken: its pixels are fractions; convert it to 8 or 16 bits",
    }


def test_what_systems_leave_in_folders_is_nobodys_data(tmp_path):
    hidden = [
        "._a.mp4", ".cache/b.mp4", "__MACOSX/a.mp4", "deep/__MACOSX/._a.mp4", "$RECYCLE.BIN/c.mp4",
        ".Trash-1000/files/d.mp4", "@eaDir/a.mp4/e.mp4", "lost+found/f.mp4", "Thumbs.db",
        ".DS_Store", "System Volume Information/g.mp4", "desktop.ini",
    ]  # fmt: skip
    for name in hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    captioned(tmp_path / "deep" / "h.mp4")
    listing = Listing(tmp_path, "video")
    assert list(listing.captions) == [tmp_path / "deep" / "h.mp4"] and listing.left_out == {}
    (tmp_path / "captions.csv").write_text("path,caption\n.cache/b.mp4,one\n")
    assert list(Listing(tmp_path, "video").left_out.values()) == [
        "hidden, by its name or a folder's: listed in captions.csv"
    ]
    (tmp_path / ".own").mkdir()
    captioned(tmp_path / ".own" / "i.mp4")  # a folder that is asked for by its name counts
    assert len(Listing(tmp_path / ".own", "video").captions) == 1


@pytest.mark.parametrize("on_disk, in_table", [(NFD, NFC), (NFC, NFD)])
def test_names_meet_however_their_accents_are_stored(tmp_path, on_disk, in_table):
    captioned(tmp_path / on_disk / f"{on_disk}.mp4")
    (tmp_path / on_disk / f"{on_disk}.txt").rename(tmp_path / on_disk / f"{in_table}.txt")
    assert list(Listing(tmp_path, "video").captions.values()) == [(f"the video {on_disk}",)]
    (tmp_path / "captions.csv").write_text(f"path,caption\n{in_table}/{in_table}.mp4,un café\n")
    listing = Listing(tmp_path, "video")
    assert listing.captions == {tmp_path / on_disk / f"{on_disk}.mp4": ("un café",)}
    assert not listing.missing and not listing.left_out
    wanted = tmp_path / in_table / f"{in_table}.mp4"
    assert finding.stored(wanted) == tmp_path / on_disk / f"{on_disk}.mp4"


def test_a_folder_may_be_given_with_accents_of_another_form(tmp_path):
    write_video(captioned(tmp_path / NFD / "a.mp4"))
    assert len(VideoFolder(tmp_path / NFC, **SETTINGS)) == 1
    with pytest.raises(UserError, match="there is no folder"):
        VideoFolder(tmp_path / "été", **SETTINGS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_captions_are_decoded_where_their_encoding_is_certain(tmp_path, encoding):
    text = "a cafe in Paris" if encoding == "utf-16-le" else "un café à Paris – l’été"
    captioned(tmp_path / "a.mp4", text, encoding)
    assert list(Listing(tmp_path, "video").captions.values()) == [(text,)]


@pytest.mark.parametrize("content", ["café – été".encode("cp1252"), b"a\0b", b"x" * 2**21])
def test_captions_of_another_encoding_are_left_out_by_name(tmp_path, content):
    write_video(captioned(tmp_path / "fine.mp4"))
    shutil.copy(tmp_path / "fine.mp4", tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_bytes(content)
    source = VideoFolder(tmp_path, **SETTINGS)
    assert len(source) == 1 and list(source.report.skipped) == ["a.mp4"]
    assert source.report.skipped["a.mp4"].startswith("unreadable caption: a.txt ")
    (tmp_path / "fine.mp4").unlink()
    with pytest.raises(UserError, match="no usable video .*unreadable caption: a.txt"):
        VideoFolder(tmp_path, **SETTINGS)
    (tmp_path / "captions.csv").write_text("path,caption\na.mp4,listed\n")  # the text is not needed
    assert VideoFolder(tmp_path, **SETTINGS).example(0)[1] == "listed"


def test_a_clip_in_several_formats_is_used_once(tmp_path):
    for name in ("0.gif", "0.mp4", "below/0.gif", "1.webm", "1.gif"):
        captioned(tmp_path / name)
    (tmp_path / "captions.csv").write_text("path,caption\n1.gif,told of the gif\n")
    listing = Listing(tmp_path, "video")
    used = {str(path.relative_to(tmp_path)): text for path, text in listing.captions.items()}
    assert used == {
        "0.mp4": ("the video 0",),
        "1.webm": ("told of the gif",),
        "below/0.gif": ("the video 0",),
    }
    assert listing.left_out == {
        "0.gif": "repeated: the same clip as 0.mp4",
        "1.gif": "repeated: the same clip as 1.webm",
    }


def test_the_order_of_the_file_system_does_not_count(tmp_path, monkeypatch):
    for name in ("b.mp4", "a/z.mp4", "a.mp4", "c/a.mp4"):
        captioned(tmp_path / name)
    walk, found = finding.os.walk, []
    for is_reversed in (False, True):

        def ordered(*args, is_reversed=is_reversed, **options):
            for place, folders, names in walk(*args, **options):
                folders.sort(reverse=is_reversed)
                yield place, folders, sorted(names, reverse=is_reversed)

        monkeypatch.setattr(finding.os, "walk", ordered)
        found.append((finding.all_files(tmp_path), finding.first_files(tmp_path)))
    assert found[0] == found[1] and found[0][0] == sorted(found[0][0])


@pytest.mark.parametrize(
    "wanted, nearest",
    [
        ("videos/a.mp4", "deep/a.mp4"),
        (r"C:\videos\a.mp4", "deep/a.mp4"),
        ("A.MP4", "deep/a.mp4"),
        ("holiday 1.avi", "holiday 1.mp4"),
        ("holliday_1.mp4", "holiday 1.mp4"),
    ],
)
def test_a_table_of_which_no_path_is_there_is_told_the_nearest_file(tmp_path, wanted, nearest):
    for name in ("deep/a.mp4", "holiday 1.mp4"):
        write_video(captioned(tmp_path / name))
        (tmp_path / name).with_suffix(".txt").unlink()
    (tmp_path / "captions.csv").write_text(f"path,caption\n{wanted},one\ngone.mp4,two\n")
    with pytest.raises(UserError) as caught:
        VideoFolder(tmp_path, **SETTINGS)
    looked_for, found = tmp_path / wanted, tmp_path / nearest
    assert f"there is no file {looked_for}; the nearest is {found}" in str(caught.value)


def test_a_table_of_which_no_path_is_there_is_told_beside_other_captions(tmp_path):
    write_video(captioned(tmp_path / "a.mp4"))
    (tmp_path / "captions.csv").write_text("path,caption\nclips/a.mp4,one\ngone.mp4,two\n")
    wanted, gone = str(tmp_path / "clips" / "a.mp4"), str(tmp_path / "gone.mp4")
    skipped = VideoFolder(tmp_path, **SETTINGS).report.skipped
    near = f"there is no file {wanted}; the nearest is {tmp_path / 'a.mp4'}"
    assert skipped == {
        wanted: f"missing: captions.csv: {near}",
        gone: "missing: listed in captions.csv",
    }


def test_captions_of_parts_of_videos_are_refused(tmp_path):
    captioned(tmp_path / "a.mp4")
    for column in ("start", "End_Time", "timestamps", "start_frame", "t_start"):
        (tmp_path / "captions.csv").write_text(f"path,caption,{column}\na.mp4,one,3\n")
        with pytest.raises(UserError, match=f"has {column.lower()}, .*a whole video.*--source="):
            Listing(tmp_path, "video")
    (tmp_path / "captions.csv").write_text("path,caption,duration,id\na.mp4,one,3,4\n")
    assert list(Listing(tmp_path, "video").captions.values()) == [("one",)]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(finding.os, "scandir", denied)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        finding.all_files(tmp_path)
    assert finding.first_files(tmp_path) == []


def test_every_ending_is_declared_once():
    for suffixes in (VIDEO_SUFFIXES, IMAGE_SUFFIXES):
        assert len(set(suffixes)) == len(suffixes)
        assert all(suffix == suffix.lower() == Path(f"a{suffix}").suffix for suffix in suffixes)
    assert set(IMAGE_SUFFIXES) <= Image.registered_extensions().keys()
