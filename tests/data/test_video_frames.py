"""How frames look: colours, sides, transparency and fields, each against a file made here."""

from fractions import Fraction

import av
import numpy as np
import pytest

from lumiere_jax.data.video_frames import on_white, to_sdr
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import probe_video
from tests.data.numbered_videos import COLOURS, MATRICES, Recipe, picture, write

PQ, HLG, BT2020, BT709 = 16, 18, 9, 1


def encode(path, images, codec, pixel_format, *, given="rgb24", options=None, rate=24, **colours):
    """Images one after the other; `colours` are fields of the codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        first = images[0]
        is_frame = isinstance(first, av.VideoFrame)
        size = (first.height, first.width) if is_frame else first.shape[:2]
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for n, image in enumerate(images):
            if not is_frame:
                image = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), given)
            frame = image.reformat(
                format=pixel_format, dst_colorspace=colours.get("colorspace"),
                dst_color_range=colours.get("color_range"),
            )  # fmt: skip
            frame.pts, frame.time_base = n, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# --- Sides ---


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_turns_and_mirrorings(tmp_path, matrix):
    recipe = Recipe(num_frames=2, matrix=matrix, width=96, height=64)
    path = write(tmp_path / "a.mp4", recipe)
    a, b, c, d = matrix
    stored = picture(0, 96, 64)
    height, width = (96, 64) if b else (64, 96)
    expected = np.empty((height, width, 3), np.uint8)
    for y in range(64):
        for x in range(96):
            to_x = (a * x + c * y) % width
            to_y = (b * x + d * y) % height
            expected[to_y, to_x] = stored[y, x]
    # A mirrored side begins at its end: -x is the last but x, which a roll by one pixel says.
    shift = (-(min(b, d) < 0), -(min(a, c) < 0))
    expected = np.roll(expected, shift, axis=(0, 1))
    read = read_video(path, fps=24)[0]
    assert read.shape == expected.shape == (*probe_video(path).size, 3)
    assert np.abs(read.astype(int) - expected).mean() < 6


def test_a_stream_that_says_how_it_is_turned_in_key_frames_alone(tmp_path):
    upright = write(tmp_path / "a.mp4", Recipe(num_frames=12, key_every=6, width=96, height=64))
    path = tmp_path / "turned.mkv"
    with av.open(str(upright)) as given, av.open(str(path), "w") as container:
        stream = given.streams.video[0]
        copied = container.add_stream_from_template(stream)
        turning = av.BitStreamFilterContext(
            "h264_metadata=display_orientation=insert:rotate=90", stream
        )
        for packet in given.demux(stream):
            for turned in turning.filter(packet if packet.size else None):
                turned.stream = copied
                container.mux(turned)
    expected = np.rot90(read_video(upright, fps=24), 1, axes=(1, 2))  # against the clock
    np.testing.assert_array_equal(read_video(path, fps=24), expected)
    np.testing.assert_array_equal(read_video(path, fps=24, start=8, num_frames=2), expected[8:10])


# --- Colours ---


def hdr_signal(colours, transfer):
    """BT.2100 signals in [0, 1] of SDR colours, whose white is 203 cd/m², in float64."""
    light = (np.asarray(colours, np.float64) / 255) ** 2.4
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )  # ITU-R BT.2087
    light = light @ to_2020.T * 203
    if transfer == PQ:
        root = (light / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    luminance = np.maximum(light @ [0.2627, 0.6780, 0.0593] / 1000, 1e-12)
    scene = light / 1000 * luminance[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-12)) + c
    )


@pytest.mark.parametrize("transfer, name", [(HLG, "HLG"), (PQ, "PQ")])
def test_hdr_becomes_the_colours_that_were_filmed(tmp_path, transfer, name):
    signal = hdr_signal(COLOURS, transfer)
    image = np.repeat(np.repeat(signal[None], 48, 0), 16, 1)
    image = np.rint(image * 65535).astype(np.uint16)
    path = encode(
        tmp_path / "a.mov", [image] * 4, "libx264", "yuv444p10le", given="rgb48le",
        options={"crf": "1"}, colorspace=9, color_trc=transfer, color_primaries=BT2020,
        color_range=1,
    )  # fmt: skip
    read = read_video(path, fps=24)[0][24, 8::16]
    np.testing.assert_allclose(read, COLOURS, atol=6)
    assert probe_video(path).treated == (f"HDR ({name}), tone-mapped to SDR",)
    small = read_video(path, fps=24, size=(24, 32))[0][12, 4::8]
    np.testing.assert_allclose(small, COLOURS, atol=6)


def test_a_container_names_the_colours_that_frames_do_not(tmp_path):
    signal = np.repeat(np.repeat(hdr_signal(COLOURS, HLG)[None], 48, 0), 16, 1)
    image = np.rint(signal * 65535).astype(np.uint16)
    path = encode(
        tmp_path / "a.mov", [image], "prores_ks", "yuv422p10le", given="rgb48le", colorspace=9,
        color_trc=HLG, color_primaries=BT2020, color_range=1,
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    place = content.index(b"icpf") + 4 + 14  # the header of the frame: SMPTE RDD 36
    content[place : place + 3] = (2, 2, 2)  # unspecified
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).color_trc == 2
    read = read_video(path, fps=24)[0][24, 8::16]
    np.testing.assert_allclose(read, COLOURS, atol=15)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_what_is_brighter_than_white_is_compressed_and_keeps_its_order(transfer):
    light = np.linspace(0, 4.9, 200)
    colours = 255 * np.stack([light] * 3, axis=-1) ** (1 / 2.4)
    pixels = np.rint(hdr_signal(colours, transfer) * 65535).astype(np.uint16)
    read = to_sdr(pixels[None], transfer, BT2020)[0].astype(int)
    assert (np.diff(read, axis=0) >= 0).all() and (read.max(1) - read.min(1) <= 1).all()
    np.testing.assert_allclose(read[light < 0.7], colours[light < 0.7], atol=1.5)
    assert read[-1].min() >= 252 and 230 < read[np.searchsorted(light, 1.0)].min() < 250


@pytest.mark.parametrize("height, is_hd", [(480, False), (720, True), (1080, True)])
def test_untagged_video_is_decoded_as_players_do(tmp_path, height, is_hd):
    image = np.repeat(np.repeat(COLOURS[None], height, 0), 320, 1)[:, : 16 * height // 9 // 2 * 2]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24").reformat(
        format="yuv420p", dst_colorspace=1 if is_hd else 5, dst_color_range=1
    )
    plain = av.VideoFrame.from_ndarray(frame.to_ndarray(), "yuv420p")  # without what it says
    path = encode(tmp_path / "a.mp4", [plain], "libx264", "yuv420p", options={"crf": "5"})
    read = read_video(path, fps=24)[0][height // 2, 160::320]
    np.testing.assert_allclose(read, COLOURS[: len(read)], atol=4)


def test_sd_that_says_bt709_is_taken_at_its_word(tmp_path):
    image = np.repeat(np.repeat(COLOURS[None], 48, 0), 16, 1)
    path = encode(
        tmp_path / "a.mp4", [image], "libx264", "yuv444p", options={"crf": "3"},
        colorspace=BT709, color_range=1,
    )  # fmt: skip
    np.testing.assert_allclose(read_video(path, fps=24)[0][24, 8::16], COLOURS, atol=4)


# --- Transparency ---


def disc(n):
    """A red square on a transparent ground that hides green."""
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., 1] = 200
    image[10:30, 10 + n : 30 + n] = (220, 20, 20, 255)
    return image


@pytest.mark.parametrize(
    "name, codec, pixel_format",
    [
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_what_is_transparent_is_white(tmp_path, name, codec, pixel_format):
    path = tmp_path / name
    if codec == "gif":
        from PIL import Image

        first, *others = [Image.fromarray(disc(n)) for n in range(8)]
        first.save(path, save_all=True, append_images=others, duration=100, disposal=2)
    else:
        options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
        images = [disc(n) for n in range(8)]
        encode(path, images, codec, pixel_format, given="rgba", options=options)
    info = probe_video(path)
    assert info.treated == ("transparent, put on white",)
    video = read_video(path, fps=info.fps)
    for n in (0, 5):
        assert (video[n][:6] > 245).all() and (video[n][:, :6] > 245).all()
        np.testing.assert_allclose(video[n][20, 20 + n], (220, 20, 20), atol=12)
    small = read_video(path, fps=info.fps, size=(24, 32))
    # Nothing of the hidden green in the edges: red and white mix to what is red at most.
    assert (small[..., 0] >= small[..., 1].astype(int) - 25).all()
    part = read_video(path, fps=info.fps, start=3, num_frames=2, info=info)
    np.testing.assert_array_equal(part, video[3:5])


def test_white_under_alpha_in_float64():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 30, 4), np.uint8)
    alpha = pixels[..., 3:].astype(np.float64) / 255
    np.testing.assert_allclose(
        on_white(pixels), pixels[..., :3] * alpha + 255 * (1 - alpha), atol=0.5 + 1e-9
    )


# --- Fields ---


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.ts", "mpeg2video")])
def test_interlaced_frames_are_not_combed(tmp_path, name, codec):
    y, x = np.mgrid[:96, :128]
    moments = [
        np.repeat((((x - 6 * n) // 16 + y // 16) % 2 * 200 + 20)[..., None], 3, -1).astype(np.uint8)
        for n in range(40)
    ]
    woven = [first.copy() for first in moments[::2]]
    for frame, second in zip(woven, moments[1::2], strict=True):
        frame[1::2] = second[1::2]
    options = {"x264-params": "tff=1", "crf": "5"} if codec == "libx264" else {}
    options |= {"flags": "+ildct+ilme", "qmin": "1", "b": "8M"}
    path = encode(tmp_path / name, woven, codec, "yuv420p", options=options)
    info = probe_video(path)
    assert info.treated == ("interlaced, deinterlaced",)
    video = read_video(path, fps=info.fps, info=info)
    assert len(video) == 20

    def combing(frames):
        return np.abs(np.diff(frames[..., 1].astype(float), 2, axis=1)).mean()

    true = combing(np.stack(moments[::2]))
    assert combing(np.stack(woven)) > 3 * true and combing(video) < 1.7 * true
    part = read_video(path, fps=info.fps, start=12, num_frames=3, info=info)
    assert combing(part) < 1.7 * true
    np.testing.assert_allclose(part.mean((1, 2, 3)), video[12:15].mean((1, 2, 3)), atol=1)


@pytest.mark.parametrize("aspect, width, told", [
    ("256:255", 170, ()),  # of a size that was rounded
    ("321:320", 170, ()),
    ("64:51", 213, ("pixels of 1.255:1, stretched to square ones",)),
])  # fmt: skip
def test_pixels_are_square_but_for_rounding(tmp_path, aspect, width, told):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 192, 170), np.uint8)
    images = [av.VideoFrame.from_ndarray(frame, "yuv420p") for frame in pixels]
    path = encode(
        tmp_path / "a.mp4", images, "libx264", "yuv420p", rate=8, options={"crf": "0"},
        sample_aspect_ratio=Fraction(*map(int, aspect.split(":"))),
    )  # fmt: skip
    info = probe_video(path)
    assert info.size == (128, width) and info.treated == told
    read = read_video(path, fps=8)
    assert read.shape == (2, 128, width, 3)
    if not told:  # every pixel is where it was stored
        stored = images[1].to_ndarray(format="rgb24", interpolation="AREA")
        assert np.abs(read[1].astype(int) - stored).max() <= 1
