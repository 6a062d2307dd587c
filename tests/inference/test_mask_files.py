"""Masks of all kinds of files, drawn in all the usual ways, and what becomes of a video."""

import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.inference import inputs
from lumiere_jax.inference.editing import fit_video
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.regions import in_words, read_region
from lumiere_jax.runtime.errors import UserError
from tests.inference.drawn_masks import (
    LOSSY,
    MOVING,
    PAINTS,
    STILLS,
    painted,
    write,
    write_mask,
    write_picture,
)

SHAPE = (8, 32, 32)
DRAWN = np.zeros(SHAPE, bool)
for _n in range(8):
    DRAWN[_n, 8:24, 2 * _n : 2 * _n + 12] = True


def assert_drawn(region, drawn, kind):
    """Lossy codecs may move the border by a pixel."""
    assert region.shape == drawn.shape
    if kind not in LOSSY:
        np.testing.assert_array_equal(region, drawn)
        return
    inner, outer = drawn.copy(), drawn.copy()
    for axis in (1, 2):
        for step in (-1, 1):
            inner &= np.roll(inner, step, axis)
            outer |= np.roll(outer, step, axis)
    assert region[inner].all() and not region[~outer].any()


@pytest.mark.parametrize("paint", PAINTS)
@pytest.mark.parametrize("kind", STILLS + MOVING)
def test_the_region_is_what_is_painted(tmp_path, kind, paint):
    drawn = DRAWN[:1] if kind in STILLS else DRAWN
    path = write_mask(tmp_path, kind, paint, drawn, 10)
    told = []
    assert_drawn(read_region(str(path), 10, SHAPE, tell=told.append), drawn, kind)
    assert told == []


@pytest.mark.parametrize("kind", MOVING)
def test_a_video_of_one_frame_is_a_still(tmp_path, kind):
    path = write_mask(tmp_path, kind, "red on clear", DRAWN[:1], 2)
    assert_drawn(read_region(str(path), 10, SHAPE), DRAWN[:1], kind)


@pytest.mark.parametrize("kind", [kind for kind in MOVING if "webm" not in kind])
def test_a_suffix_decides_nothing(tmp_path, kind):
    path = write_mask(tmp_path, kind, "white on clear", DRAWN, 10)
    for suffix in (".png", ".mov", ".mask"):
        path = path.rename(path.with_suffix(suffix))
        assert_drawn(read_region(str(path), 10, SHAPE), DRAWN, kind)


def test_other_formats_of_pictures_are_masks_too(tmp_path):
    for name, paint in (("a.tiff", "red on clear"), ("b.bmp", "black and white")):
        write_picture(tmp_path / name, painted(paint, DRAWN[:1]), 1)
        np.testing.assert_array_equal(read_region(str(tmp_path / name), 10, SHAPE), DRAWN[:1])
    grey = (DRAWN[0] * 65535).astype(np.uint16)
    for name, image in (("c.png", Image.fromarray(grey)), ("d.jpg", Image.fromarray(DRAWN[0]))):
        image.convert("L" if name == "d.jpg" else image.mode).save(tmp_path / name, quality=95)
        np.testing.assert_array_equal(read_region(str(tmp_path / name), 10, SHAPE), DRAWN[:1])
    first, *others = (Image.fromarray(frame) for frame in painted("red on clear", DRAWN))
    first.save(tmp_path / "e.avif", save_all=True, append_images=others, duration=100)
    assert_drawn(read_region(str(tmp_path / "e.avif"), 10, SHAPE), DRAWN, "webm")


def test_a_mask_with_a_frame_for_each_of_the_videos_belongs_to_it_frame_by_frame(tmp_path):
    write_lossless(tmp_path / "video.mkv", np.zeros((8, 32, 32, 3)), 8)
    path = write_mask(tmp_path, "animated gif", "red on clear", DRAWN, 8)
    assert probe_video(path).duration < 0.97  # GIF has no eighths of a second
    files = {"video": str(tmp_path / "video.mkv"), "mask": str(path)}
    np.testing.assert_array_equal(inputs.read(files, 8)["region"], DRAWN)


@pytest.mark.parametrize("paint", ["red on clear", "black and white"])
@pytest.mark.parametrize("kind", STILLS + MOVING)
def test_nothing_and_everything_are_refused(tmp_path, kind, paint):
    empty = np.zeros((1, 64, 64), bool)
    with pytest.raises(UserError, match="is empty"):
        read_region(str(write_mask(tmp_path, kind, paint, empty, 10)), 10, empty.shape)
    full = ~empty
    full[0, 0, 0] = False
    with pytest.raises(UserError, match="covers all of the frame"):
        read_region(str(write_mask(tmp_path, kind, paint, full, 10)), 10, full.shape)


def test_a_box_of_everything_is_refused():
    with pytest.raises(UserError, match=r"0,0,32,32 covers all .*video_to_video and animate"):
        read_region("0,0,32,32", 8, SHAPE)


def test_coloured_and_opaque_is_no_mask(tmp_path):
    for kind in STILLS + MOVING:
        pixels = painted("red on clear", DRAWN[:1] if kind in STILLS else DRAWN)
        pixels[..., 3] = 255
        with pytest.raises(UserError, match="is a coloured picture without an alpha channel"):
            read_region(str(write(tmp_path, kind, pixels, 10)), 10, SHAPE)


def test_paint_counts_from_half_opacity_on_and_black_paint_is_told(tmp_path):
    pixels = painted("white on clear", DRAWN[:1])
    for opacity in (130, 255):
        pixels[..., 3] = opacity * DRAWN[:1]
        write_picture(tmp_path / "mask.png", pixels, 1)
        np.testing.assert_array_equal(read_region(str(tmp_path / "mask.png"), 8, SHAPE), DRAWN[:1])
    pixels[..., 3] = 100 * DRAWN[:1]
    write_picture(tmp_path / "mask.png", pixels, 1)
    with pytest.raises(UserError, match="is empty: .* nothing in this one is at least half opaque"):
        read_region(str(tmp_path / "mask.png"), 8, SHAPE)
    pixels[..., 3] = 255 * DRAWN[:1]
    pixels[:, :12, :, :3] = 0
    write_picture(tmp_path / "mask.png", pixels, 1)
    told = []
    region = read_region(str(tmp_path / "mask.png"), 8, SHAPE, tell=told.append)
    np.testing.assert_array_equal(region, DRAWN[:1])
    assert len(told) == 1 and "its black parts are to change too" in told[0]


def test_a_picture_takes_no_mask_that_moves(tmp_path):
    for kind in MOVING:
        path = write_mask(tmp_path, kind, "red on clear", DRAWN, 10)
        with pytest.raises(UserError, match=r"moves \(8 frames at 10 fps\); a picture needs"):
            read_region(str(path), 10, (1, 32, 32))


def test_damaged_masks_are_told(tmp_path):
    for kind in STILLS + MOVING:
        drawn = DRAWN[:1] if kind in STILLS else DRAWN
        path = write_mask(tmp_path, kind, "red on clear", drawn, 10)
        whole = path.read_bytes()
        for size in (0, 20, len(whole) // 3):
            path.write_bytes(whole[:size])
            try:
                read_region(str(path), 10, SHAPE)
            except UserError as error:
                assert str(error).startswith(f"mask {path} ")  # noqa: PT017  # may be read in part


def test_a_region_in_words():
    assert in_words(DRAWN[:1]) == "18.8% of the frame" == in_words(DRAWN)
    moving = np.stack([DRAWN[0], DRAWN[0] & (np.arange(32) < 6)])
    assert in_words(moving) == "14.1% of the frame on average, 9.4% to 18.8%"
    tiny = np.zeros((1, 100, 100), bool)
    tiny[0, 0, 0] = True
    assert in_words(tiny) == "<0.1% of the frame"


# --- Results -----------------------------------------------------------------------------------


@pytest.fixture(name="pipeline", scope="module")
def fixture_pipeline(cascade):
    return LumierePipeline.from_checkpoints(cascade["stunet_conditional"])


@pytest.fixture(name="files", scope="module")
def fixture_files(tmp_path_factory):
    """A picture and a video of broad stripes."""
    folder = tmp_path_factory.mktemp("files")
    n, y, x = np.mgrid[:8, :32, :32]
    video = 0.8 * np.sin(np.stack([x / 9 + n / 4, y / 8, (x + y) / 11], axis=-1))
    write_lossless(folder / "video.mkv", video, 8)
    Image.fromarray(np.rint((video[0] + 1) * 127.5).astype(np.uint8)).save(folder / "image.png")
    return {"image": str(folder / "image.png"), "video": str(folder / "video.mkv")}


def halves(drawn):
    return drawn[:, ::2, ::2]


def assert_only_changed(made, source, drawn):
    """Outside nothing changes, but for pixels beside the border, which are made from both sides."""
    inside, beside = halves(drawn), halves(drawn)
    for axis in (1, 2):
        beside = beside | np.roll(beside, 1, axis) | np.roll(beside, -1, axis)
    changed = np.abs(made[0] - fit_video(source, 16)).max(axis=-1)
    outside = np.broadcast_to(~beside, changed.shape)
    assert changed[outside].max() < 0.005
    assert np.median(changed[1:][np.broadcast_to(inside, changed.shape)[1:]]) > 0.05


@pytest.mark.parametrize("paint", PAINTS)
@pytest.mark.parametrize("kind", STILLS + MOVING)
def test_inpainting_changes_what_is_painted_and_nothing_else(
    pipeline, files, tmp_path, capsys, kind, paint
):
    drawn = DRAWN[:1] if kind in STILLS else DRAWN
    mask = write_mask(tmp_path, kind, paint, drawn, 8)
    given = inputs.read({"video": files["video"], "mask": str(mask)}, 8)
    made = pipeline.inpaint(**given, prompts=["a red circle"], feather=0, num_steps=1)
    assert_only_changed(np.asarray(made), given["video"], drawn)
    assert capsys.readouterr().err.count("region: ") == 1


@pytest.mark.parametrize(("kind", "paint"), zip(STILLS, PAINTS[:0:-1], strict=True))
def test_a_cinemagraph_moves_what_is_painted_and_nothing_else(
    pipeline, files, tmp_path, capsys, kind, paint
):
    mask = write_mask(tmp_path, kind, paint, DRAWN[:1], 8)
    given = inputs.read({"image": files["image"], "mask": str(mask)}, 8)
    made = pipeline.cinemagraph(**given, prompts=["a red circle"], feather=0, num_steps=1)
    assert_only_changed(np.asarray(made), given["image"][None], DRAWN[:1])
    assert "region: 18.8% of the frame\n" in capsys.readouterr().err
