"""Files that people have: each kind is made here, and its frames say which they are."""

import dataclasses
import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from lumiere_jax.data.image_folder import read_image
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoReadError, holds_fields, probe_video, usual
from tests.data.numbered_videos import Recipe, copy_packets, number, numbers, picture, write


def read_all(path, fps=None):
    info = probe_video(path)
    return numbers(read_video(path, fps=fps or info.fps, info=info))


def write_times(path, milliseconds, codec="libx264", last=None):
    """Frame n at a time of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for n, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(picture(n), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("b_frames", [1, 2, 3])
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_avi_with_b_frames(tmp_path, encoder, b_frames):
    recipe = Recipe(suffix="avi", encoder=encoder, b_frames=b_frames, num_frames=60)
    path = write(tmp_path / "a.avi", recipe)
    assert read_all(path) == list(range(60))
    at_16 = read_all(path, fps=16)
    assert np.abs(np.array(at_16) - np.arange(len(at_16)) * 1.5).max() <= 0.5
    info = probe_video(path)
    for start in range(0, 57, 7):
        part = read_video(path, fps=24, start=start, num_frames=3, info=info)
        assert numbers(part) == [start, start + 1, start + 2]


def copied(source, target, change=lambda packet: None):
    """The packets of a file in another container, each of them changed before."""
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                change(packet)
                packet.stream = stream
                container.mux(packet)
    return target


def shown_when_decoded(packet):
    """As FFmpeg copies H.264 out of AVI: no word on the order of being shown."""
    packet.dts = packet.pts = packet.dts + 2 * packet.duration


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("encoder", ["libx264", "libx265", "mpeg4"])
def test_b_frames_copied_out_of_avi(tmp_path, encoder, suffix):
    recipe = Recipe(suffix="mp4", encoder=encoder, b_frames=2, num_frames=40)
    whole = write(tmp_path / "whole.mp4", recipe)
    path = copied(whole, tmp_path / f"copy.{suffix}", shown_when_decoded)
    info = probe_video(path)
    assert round(info.fps, 3) == 24 and info.treated == ()
    assert read_all(path) == list(range(40))
    part = read_video(path, fps=info.fps, start=29, num_frames=6, info=info)
    assert numbers(part) == list(range(29, 35))


@pytest.mark.parametrize("encoder", ["mpeg1video", "mpeg2video"])
def test_a_bare_stream_has_one_rate(tmp_path, encoder):
    suffix = {"mpeg1video": "m1v", "mpeg2video": "m2v"}[encoder]
    recipe = Recipe(suffix=suffix, encoder=encoder, b_frames=2, rate=25, num_frames=40)
    path = write(tmp_path / f"a.{suffix}", recipe)
    info = probe_video(path)
    assert (info.fps, info.num_frames(25)) == (25, 40)
    assert read_all(path) == list(range(40))


def test_the_times_of_a_program_stream_are_guesses_and_its_rate_is_not(tmp_path):
    recipe = Recipe(
        suffix="mpg", encoder="mpeg1video", b_frames=2, key_every=18, num_frames=150,
        options={"qmin": "20"},
    )  # fmt: skip
    path = write(tmp_path / "a.mpg", recipe)
    with av.open(str(path)) as container:
        marks = [frame.pts for frame in container.decode(video=0)]
    assert len(set(np.diff(marks))) > 1  # what FFmpeg guesses
    assert read_all(path) == list(range(150))


def test_a_truncated_program_stream_keeps_what_is_there(tmp_path):
    recipe = Recipe(suffix="mpg", encoder="mpeg2video", b_frames=2, rate=25, num_frames=60)
    path = write(tmp_path / "whole.mpg", recipe)
    cut = tmp_path / "cut.mpg"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = read_all(cut)
    assert len(found) > 15 and found[:-3] == list(range(len(found) - 3))


def test_avi_with_empty_packets_is_not_called_truncated(tmp_path):
    """As FFmpeg copies H.264 into AVI: at twice the rate, with every second packet empty."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=48)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for n in range(40):
            frame = av.VideoFrame.from_ndarray(picture(n), "rgb24")
            frame.pts, frame.time_base = 2 * n, Fraction(1, 48)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    info = probe_video(path)
    assert info.treated == () and info.own_frames == 40
    assert read_all(path) == list(range(40))


def test_frames_that_make_no_sense_are_passed_over(tmp_path):
    path = write(tmp_path / "a.mov", Recipe(suffix="mov", encoder="prores_ks", num_frames=20))
    with av.open(str(path)) as given:
        place = [packet.pos for packet in given.demux(video=0) if packet.size][10]
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 200] = bytes(200)
    path.write_bytes(damaged)
    assert read_all(path) == [*range(10), 9, *range(11, 20)]


def test_a_truncated_animated_png_keeps_what_is_there(tmp_path):
    path = tmp_path / "a.apng"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("apng", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for n in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(n), "rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = read_all(path)
    assert found == list(range(len(found))) and len(found) > 20


def test_a_codec_that_ffmpeg_does_not_know_is_named_so(tmp_path):
    path = write(tmp_path / "a.mp4", Recipe(num_frames=5))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC"))
    with pytest.raises(VideoReadError, match="does not know its codec"):
        probe_video(path)


@pytest.mark.parametrize("rate", [23.976, 24, 30, 59.94, 60, 120])
@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_times_that_are_rounded_to_milliseconds_keep_the_rate(tmp_path, suffix, rate):
    encoder = "ffv1" if suffix == "mkv" else "libvpx-vp9"
    recipe = Recipe(suffix=suffix, encoder=encoder, rate=rate, num_frames=50)
    info = probe_video(write(tmp_path / f"a.{suffix}", recipe))
    np.testing.assert_allclose(info.fps, rate, rtol=1e-4)
    assert info.num_frames(info.fps) == 50
    assert read_all(tmp_path / f"a.{suffix}") == list(range(50))


def test_the_rate_of_a_phone_is_not_its_jitter(tmp_path):
    generator = np.random.default_rng(0)
    times = np.arange(60) * 1000 / 30 + generator.uniform(-9, 9, 60)
    info = probe_video(write_times(tmp_path / "a.mp4", [int(t) + 10 for t in times]))
    np.testing.assert_allclose(info.fps, 30, rtol=0.02)


@pytest.mark.parametrize(
    "steps, expected",
    [
        ([40] * 50 + [20] * 8, 40),  # a few frames in quick succession
        ([40] * 30 + [500] * 20, 40),  # a screen recording with pauses
        ([33, 34, 33] * 20, 100 / 3),
        ([120, 130] * 10, 125),  # a GIF of 8 frames a second
        ([41, 42] * 40 + [9_000], 41.5),
    ],
)
def test_the_usual_step(steps, expected):
    np.testing.assert_allclose(usual(np.array(steps, np.float64)), expected, rtol=0.01)


@pytest.mark.parametrize("name", ["a.ts", "hls.mp4"])
@pytest.mark.parametrize("start", [1.48, 3600.5])
def test_a_transport_stream_by_whatever_name(tmp_path, name, start):
    path = write(tmp_path / "a.ts", Recipe(suffix="ts", b_frames=2, start=start, num_frames=60))
    path = path.rename(tmp_path / name)
    assert read_all(path) == list(range(60))
    assert numbers(read_video(path, fps=24, start=40, num_frames=5)) == [40, 41, 42, 43, 44]


def test_transport_streams_that_follow_each_other_in_one_file(tmp_path):
    parts = [
        write(tmp_path / f"{first}.ts", Recipe(suffix="ts", num_frames=first + 24)).read_bytes()
        for first in (0, 6)
    ]
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    assert read_all(tmp_path / "all.ts") == [*range(24), *range(30)]


@pytest.mark.parametrize("seconds", [37_600, 1_700_000_000])
@pytest.mark.parametrize("after", [2, 30])
def test_a_clock_that_jumps_is_a_cut(tmp_path, seconds, after):
    times = [round(n * 1000 / 24) + 1000 * seconds * (n >= after) for n in range(48)]
    path = write_times(tmp_path / "a.mkv", times)
    info = probe_video(path)
    np.testing.assert_allclose((info.duration, info.fps), (2, 24), rtol=0.03)
    assert info.treated == ()
    assert read_all(path) == list(range(48))
    assert numbers(read_video(path, fps=24, start=40, num_frames=3)) == [40, 41, 42]


def test_a_frame_is_shown_for_ten_seconds_at_most(tmp_path):
    info = probe_video(write_times(tmp_path / "a.mkv", [0, 3_000_000, 6_000_000]))
    assert info.duration <= 30


def test_pauses_below_that_are_kept(tmp_path):
    path = write_times(tmp_path / "a.mp4", [0, 100, 200, 5200, 5300, 5400])
    assert read_all(path, fps=10) == [0, 1, *[2] * 50, 3, 4, 5]


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_truncated_file_says_how_much_can_be_read(tmp_path, suffix):
    recipe = Recipe(suffix=suffix, num_frames=72, options={"crf": "5"})
    path = write(tmp_path / f"whole.{suffix}", recipe)
    assert probe_video(path).treated == ()
    if suffix == "mp4":  # with its index in front
        front = tmp_path / "front.mp4"
        with av.open(str(path)) as given, av.open(
            str(front), "w", options={"movflags": "+faststart"}
        ) as container:  # fmt: skip
            copy_packets(
                given, container, container.add_stream_from_template(given.streams.video[0])
            )
        path = front
    half = tmp_path / f"half.{suffix}"
    half.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (told,) = probe_video(half).treated
    assert told.startswith("truncated: ") and told.endswith("of 3.00 s can be read")
    found = read_all(half)
    assert found == list(range(len(found))) and 20 < len(found) < 72


def test_what_is_not_truncated_is_not_called_so(tmp_path):
    late = write(tmp_path / "late.mkv", Recipe(suffix="mkv", num_frames=24, start=3600.5))
    longer = tmp_path / "longer.mkv"  # in sound
    with av.open(str(late)) as given, av.open(str(longer), "w") as container:
        copied = container.add_stream_from_template(given.streams.video[0])
        sound = container.add_stream("pcm_s16le", rate=8000)
        copy_packets(given, container, copied, shift=3_600_500)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 8000, 8000 * 20
        container.mux(sound.encode(silence))
    for path, seconds in ((late, 3601.5), (longer, 21)):
        with av.open(str(path)) as container:
            assert container.duration == seconds * av.time_base
        assert probe_video(path).treated == () and read_all(path) == list(range(24))


def test_an_aspect_ratio_does_not_decide_how_much_memory_is_used(tmp_path):
    path = write(tmp_path / "a.mp4", Recipe(num_frames=5))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 80  # of width and height as shown, with 16 bits of fractions
    content[place : place + 8] = struct.pack(">HHHH", 30_000, 0, 1, 0)
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match="more than 8192×8192 pixels"):
        probe_video(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VideoReadError, match="a pipe"):
        probe_video(tmp_path / "a.mp4")
    with pytest.raises(OSError, match="a pipe"):
        read_image(tmp_path / "a.mp4")


def test_a_file_without_its_index_is_called_truncated(tmp_path):
    path = write(tmp_path / "a.mp4", Recipe(num_frames=40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoReadError, match=r"truncated: its index \(moov\).* download it again"):
        probe_video(path)


def test_sizes_that_change_midway_become_the_first(tmp_path):
    path = tmp_path / "call.webm"
    with av.open(str(path), "w") as container:
        for part, (width, height) in enumerate(((64, 48), (128, 96))):
            codec = av.CodecContext.create("libvpx-vp9", "w")
            codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
            codec.time_base, codec.framerate = Fraction(1, 24), Fraction(24)
            codec.options = {"deadline": "realtime", "cpu-used": "8"}
            if part == 0:
                stream = container.add_stream("libvpx-vp9", rate=24)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            packets = []
            for n in range(24 * part, 24 * part + 24):
                frame = av.VideoFrame.from_ndarray(picture(n, width, height), "rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 24)
                packets += codec.encode(frame.reformat(format="yuv420p"))
            for packet in packets + codec.encode(None):
                packet.stream, packet.time_base = stream, Fraction(1, 24)
                container.mux(packet)
    video = read_video(path, fps=24)
    assert video.shape == (48, 48, 64, 3) and numbers(video) == list(range(48))
    later = read_video(path, fps=24, start=30, num_frames=2)
    assert later.shape == (2, 48, 64, 3) and number(later[0]) == 30


def test_a_list_of_files_is_no_video(tmp_path):
    write(tmp_path / "other.mp4", Recipe(num_frames=12))
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(VideoReadError, match="it is a list of other files, not a video"):
        probe_video(tmp_path / "a.mp4")


def test_packets_that_are_fields_are_not_taken_for_frames():
    frames = [n / 25 + 1.4 for n in range(8)]
    assert holds_fields(1 / 50, frames)
    assert not holds_fields(1 / 25, frames) and not holds_fields(1 / 25, frames[:1])


def test_the_first_moving_stream_is_read(tmp_path):
    whole = Recipe(suffix="mp4", num_frames=12)
    path = write(tmp_path / "a.mp4", whole)
    with av.open(str(path)) as given, av.open(str(tmp_path / "cover.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        copied = container.add_stream_from_template(given.streams.video[0])
        frame = av.VideoFrame.from_ndarray(picture(255), "rgb24")
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode())
        copy_packets(given, container, copied)
    assert read_all(tmp_path / "cover.mp4") == list(range(12))


def test_recipes_are_what_they_say(tmp_path):
    recipe = Recipe(b_frames=2, num_frames=30)
    with av.open(str(write(tmp_path / "a.mp4", recipe))) as container:
        kinds = {int(frame.pict_type) for frame in container.decode(video=0)}
    assert kinds == {1, 2, 3}  # I, P and B
    assert dataclasses.replace(recipe, cut=4).shown == list(range(4, 30))
