"""Files from strangers: what is taken, and that nothing else does harm."""

import dataclasses
import io
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.video_io import write_gif, write_mp4
from lumiere_jax.serving import uploads
from lumiere_jax.serving.settings import Limits
from lumiere_jax.serving.uploads import UploadError
from tests.data.numbered_videos import copy_packets
from tests.inference.drawn_masks import LOSSY, MOVING, PAINTS, STILLS, write_mask
from tests.serving.malformed import malformed

LIMITS = Limits(pixels=10_000, seconds=4, frames=24, video_pixels=200_000)


def picture(size=(48, 32), kind="PNG", mode="RGB", color=0):
    content = io.BytesIO()
    Image.new(mode, size, color).save(content, kind)
    return content.getvalue()


def mask(size=(48, 32), box=(4, 4, 20, 20)):
    image = Image.new("L", size)
    image.paste(255, box)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def video(tmp_path, frames=10, size=(32, 48), fps=8, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (frames, *size, 3)).astype(np.float32)
    write_mp4(tmp_path / "made.mp4", values, fps)
    return (tmp_path / "made.mp4").read_bytes()


@pytest.fixture(name="check")
def fixture_check(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def check(least_frames=2, **files):
        try:
            return uploads.check(files, 8, least_frames, LIMITS, scratch)
        finally:
            assert list(scratch.iterdir()) == []

    return check


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures(check, kind):
    image = check(image=picture(kind=kind, color=(255, 255, 255)))["image"]
    assert image.shape == (32, 48, 3) and image.dtype == np.float32 and image.min() > 0.9


def test_videos_come_at_the_models_rate(check, tmp_path):
    assert check(video=video(tmp_path, 20, fps=16))["video"].shape == (10, 32, 48, 3)
    values = np.random.default_rng(0).uniform(-1, 1, (6, 32, 48, 3))
    write_gif(tmp_path / "x.gif", values, 8)
    assert check(video=(tmp_path / "x.gif").read_bytes())["video"].shape == (6, 32, 48, 3)


def test_masks(check, tmp_path):
    region = check(image=picture(), mask=mask())["region"]
    assert region.shape == (32, 48) and region.sum() == 256
    moving = np.full((10, 32, 48, 3), -1.0, np.float32)
    moving[:, :16] = 1
    write_mp4(tmp_path / "m.mp4", moving, 8)
    arrays = check(video=video(tmp_path), mask=(tmp_path / "m.mp4").read_bytes())
    assert arrays["region"].shape == (10, 32, 48) and arrays["region"][:, :12].all()


@pytest.mark.parametrize("paint", PAINTS)
@pytest.mark.parametrize("kind", STILLS + MOVING)
def test_masks_of_all_kinds(check, tmp_path, kind, paint):
    drawn = np.zeros((1 if kind in STILLS else 10, 32, 48), bool)
    for number, frame in enumerate(drawn):
        frame[8:24, 2 * number + 4 : 2 * number + 20] = True
    content = write_mask(tmp_path, kind, paint, drawn, 8).read_bytes()
    region = check(video=video(tmp_path), mask=content)["region"]
    assert region.shape == drawn.shape
    assert (region != drawn).mean() < (0.01 if kind in LOSSY else 1e-9)


@pytest.mark.parametrize("kind", ["apng", "animated webp"])
def test_animations_are_within_the_limits_too(tmp_path, kind):
    drawn = np.zeros((12, 32, 48), bool)
    for number, frame in enumerate(drawn):
        frame[8:24, 2 * number + 4 : 2 * number + 20] = True
    others = {"video": video(tmp_path)}
    content = write_mask(tmp_path, kind, "red on clear", drawn, 4).read_bytes()
    for limits, message in (
        ({"pixels": 48 * 32 - 1}, "has 48×32 pixels"),
        ({"seconds": 2.9}, "is 3.0 s long; at most 2.9 s"),
        ({"frames": 23}, "has 24 frames at the model's 8 fps; at most 23"),
        ({"video_pixels": 48 * 32 * 23}, "24 frames of 0.0015 million pixels"),
        ({"decoded_pixels": 48 * 32 * 11}, "too many frames of this size to decode"),
    ):
        limits = dataclasses.replace(LIMITS, **limits)
        with pytest.raises(UploadError, match=f"^mask: .*{message}"):
            uploads.check({"mask": content} | others, 8, 2, limits, tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image": b""}, "image: is not a supported picture"),
        ({"image": b"text"}, "image: is not a supported picture"),
        ({"image": picture()[:60]}, "image: is damaged"),
        ({"image": picture(kind="BMP")}, "image: is not a supported picture"),
        ({"image": picture((200, 200))}, "200×200 pixels; at most 0.01 million"),
        ({"image": picture(), "mask": mask((47, 32))}, "mask mask.png is 47×32 pixels"),
        ({"image": picture(), "mask": mask(box=(0, 0, 0, 0))}, "is empty"),
        ({"image": picture(), "mask": picture(color=(250, 9, 9))}, "coloured picture"),
        ({"video": picture()}, "video: is not a supported video"),
        ({"video": b"\0" * 5000}, "video: is not a supported video"),
    ],
)  # fmt: skip
def test_what_is_refused(check, files, message):
    with pytest.raises(UploadError, match=message) as caught:
        check(**files)
    assert "/" not in str(caught.value)


def test_videos_that_are_refused(check, tmp_path):
    for content, message in (
        (video(tmp_path, 40), "is 5.0 s long; at most 4 s"),
        (video(tmp_path, 30), "has 30 frames at the model's 8 fps; at most 24"),
        (video(tmp_path, 22, (96, 100)), "22 frames of 0.0096 million pixels; send a smaller"),
        (video(tmp_path, 4, (112, 112)), "has 112×112 pixels"),
        (video(tmp_path, 1), "has 1 frames at 8 fps; at least 2"),
        (video(tmp_path)[:600], "damaged|not a supported video|no frames"),
    ):
        with pytest.raises(UploadError, match=message):
            check(video=content)


def held_gif(delay, size=(48, 32)):
    """One frame that is held for so many hundredths of a second."""
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "GIF", duration=10 * delay)
    return content.getvalue()


def held_video(path, seconds, frames=3, size=(48, 32)):
    """A frame each 1/8 s, the last one for longer."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p"
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (number, 0, 0)))
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = int(seconds / packets[-1].time_base)
        for packet in packets:
            container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["video", "mask"])
def test_a_last_frame_that_is_held_for_long(check, tmp_path, name):
    others = {"video": video(tmp_path)} if name == "mask" else {}
    for content, message in (
        (held_gif(65_535), "is 10.0 s long; at most 4 s"),
        (held_gif(375), "has 30 frames at the model's 8 fps; at most 24"),
        (held_gif(300, (98, 98)), "has 24 frames of 0.0096 million pixels"),
        (held_video(tmp_path / "held.mkv", 1000), "is 10.2 s long"),
        (held_video(tmp_path / "held.mov", 3.5), "has 30 frames at the model's 8 fps"),
    ):
        with pytest.raises(UploadError, match=f"^{name}: {message}"):
            check(**others, **{name: content})
    if name == "video":
        assert check(video=held_gif(300))["video"].shape == (24, 32, 48, 3)
        held = held_video(tmp_path / "held.mkv", 2.75)
        assert check(video=held)["video"].shape == (24, 32, 48, 3)


def test_a_cover_picture_is_not_measured_for_the_video(check, tmp_path):
    covered = tmp_path / "covered.mp4"
    with av.open(io.BytesIO(video(tmp_path, 40))) as given, av.open(str(covered), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        copied = container.add_stream_from_template(given.streams.video[0])
        frame = av.VideoFrame.from_image(Image.new("RGB", (48, 32)))
        frame.pts = 0
        container.mux([*cover.encode(frame), *cover.encode()])
        copy_packets(given, container, copied)
    content = covered.read_bytes()  # in which the cover comes first, if its box does
    place, udta = content.index(b"moov") + 4, content.index(b"udta") - 4
    content = content[:place] + content[udta:] + content[place:udta]
    with av.open(io.BytesIO(content)) as container:
        assert [s.codec_context.name for s in container.streams.video] == ["mjpeg", "h264"]
    with pytest.raises(UploadError, match="is 5.0 s long; at most 4 s"):
        check(video=content)


def test_more_frames_than_may_be_decoded(tmp_path):
    limits = Limits(decoded_pixels=32 * 48 * 9)
    with pytest.raises(UploadError, match="too many frames of this size to decode"):
        uploads.check({"video": video(tmp_path, 10)}, 8, 2, limits, tmp_path)


def test_jpegs_of_very_many_scans(check, tmp_path):
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(noise).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    assert whole.count(b"\xff\xda") > 5
    assert check(image=whole)["image"].shape == (32, 48, 3)
    begin, end = whole.rindex(b"\xff\xda"), whole.rindex(b"\xff\xd9")
    many = whole[:begin] + whole[begin:end] * 200 + whole[end:]
    for name, others in (("image", {}), ("mask", {"image": picture()})):
        with pytest.raises(UploadError, match=f"{name}: is a JPEG with too many scans"):
            check(**others, **{name: many})
    # The same as the frame of a video.
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for number in range(3):
            packet = av.Packet(many)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 8), True
            container.mux(packet)
    limits = Limits(decoded_pixels=32 * 48 * 500)
    with pytest.raises(UploadError, match="too many frames of this size to decode"):
        uploads.check({"video": (tmp_path / "x.avi").read_bytes()}, 8, 2, limits, tmp_path)


def test_pixels_that_are_stretched_count(check, tmp_path):
    write_gif(tmp_path / "x.gif", np.random.default_rng(0).uniform(-1, 1, (6, 48, 64, 3)), 8)
    content = bytearray((tmp_path / "x.gif").read_bytes())
    assert check(video=bytes(content))["video"].shape == (6, 48, 64, 3)
    content[12] = 255  # aspect of a pixel, (255 + 15) / 64
    with pytest.raises(UploadError, match="has 270×48 pixels"):
        check(video=bytes(content))


@pytest.mark.parametrize("name", ["video", "mask"])
def test_playlists_do_not_open_files(check, tmp_path, name):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video(tmp_path))
    others = {"image": picture()} if name == "mask" else {}
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"<?xml version='1.0'?><MPD><BaseURL>{secret}</BaseURL></MPD>",
    ):
        with pytest.raises(UploadError, match="is not a supported video"):
            check(**others, **{name: text.encode()})


def test_a_picture_that_says_it_is_larger_than_it_is(check):
    content = bytearray(picture((8, 8)))
    content[16:24] = (60_000).to_bytes(4) + (60_000).to_bytes(4)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    with pytest.raises(UploadError, match="more than 0.01 million pixels"):
        check(image=bytes(content))


@pytest.mark.parametrize("name", ["image", "video"])
def test_damaged_bytes_raise_nothing_else(check, tmp_path, name):
    whole = video(tmp_path) if name == "video" else picture(kind="JPEG")
    generator = np.random.default_rng(3)
    outcomes = set()
    for _ in range(60):
        content = bytearray(whole)
        for place in generator.integers(0, len(content), 12):
            content[place] = generator.integers(256)
        try:
            outcomes.add(check(**{name: bytes(content)})[name].shape[-1])
        except UploadError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_bytes_of_a_picture_are_those_of_the_array(check):
    content = io.BytesIO()
    values = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(values).save(content, "PNG")
    np.testing.assert_array_equal(to_uint8(check(image=content.getvalue())["image"]), values)


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/v1/videos"])
def test_malformed_uploads_are_refused_or_taken(shared_site, path):
    """A few of those that `benchmarks/serving/fuzz.py` sends."""
    for task, fields, files in malformed(3, seed=len(path)):
        reply = shared_site.client.post(f"http://x{path}", data=fields, files=files)
        assert reply.status_code in (200, 202, 400, 413, 415, 422), (task, reply.text)
    assert list(shared_site.settings.scratch.glob("tmp*")) == []
