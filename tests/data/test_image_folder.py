import os

import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.image_folder import ImageFolder, read_image
from lumiere_jax.data.pixels import resize_and_crop, to_float
from lumiere_jax.runtime.errors import UserError


def picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, image, caption="a picture", **options):
    Image.fromarray(image).save(path, **options)
    path.with_suffix(".txt").write_text(caption)


def test_images_are_fitted_and_captioned(tmp_path):
    (tmp_path / "below").mkdir()
    save(tmp_path / "below" / "a.png", picture(), "first")
    save(tmp_path / "b.webp", picture(seed=1), "second", lossless=True)
    source = ImageFolder(tmp_path, resolution=(16, 20))
    assert len(source) == 2 and source.report.skipped == {}
    for index, (seed, caption) in enumerate([(1, "second"), (0, "first")]):
        frames, got = source.frames(index)
        np.testing.assert_array_equal(frames, resize_and_crop(picture(seed=seed), (16, 20))[None])
        assert got == caption
        np.testing.assert_array_equal(source.example(index)[0], to_float(frames))


def test_a_picture_is_shown_upright_on_white_and_in_eight_bits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(picture()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(picture(), -1))

    alpha = np.dstack([picture(), np.zeros((40, 60), np.uint8)])
    alpha[:, 30:, 3] = 255
    Image.fromarray(alpha).save(tmp_path / "clear.png")
    read = read_image(tmp_path / "clear.png")
    assert (read[:, :30] == 255).all()
    np.testing.assert_array_equal(read[:, 30:], picture()[:, 30:])

    deep = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., 1], deep >> 8)
    Image.fromarray(picture()).convert("P").save(tmp_path / "palette.gif")
    assert read_image(tmp_path / "palette.gif").shape == (40, 60, 3)


def test_what_cannot_be_used_is_reported(tmp_path, monkeypatch):
    save(tmp_path / "fine.png", picture())
    save(tmp_path / "small.png", picture(8, 60))
    (tmp_path / "cut.png").write_bytes((tmp_path / "fine.png").read_bytes()[:2000])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.webp").write_text("no image")
    Image.fromarray(picture()).save(tmp_path / "silent.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    save(tmp_path / "bomb.png", picture(90, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    skipped = ImageFolder(tmp_path, resolution=16).report.skipped
    reasons = {
        "small.png": "too small: 60×8 of 16×16 pixels",
        "cut.png": "broken: ",
        "empty.jpg": "broken: cannot identify",
        "text.webp": "broken: cannot identify",
        "silent.png": "without a caption",
        "loop.png": "broken: ",
        "bomb.png": "broken: too many pixels",
    }
    assert skipped.keys() == reasons.keys()
    assert all(skipped[name].startswith(reason) for name, reason in reasons.items())


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="no usable image in .*none found"):
        ImageFolder(tmp_path, resolution=16)
    with pytest.raises(UserError, match=r"num_frames=8; use it for the stages t2i"):
        ImageFolder(tmp_path, resolution=16, num_frames=8)
    save(tmp_path / "a.png", picture())
    source = ImageFolder(tmp_path, resolution=16)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.png.*was fine"):
        source.frames(0)


def test_the_fingerprint_changes_with_what_is_shown(tmp_path):
    save(tmp_path / "a.png", picture(), "one")
    prints = [ImageFolder(tmp_path, resolution=r).fingerprint for r in (16, 16, 20)]
    save(tmp_path / "a.png", picture(), "another")
    prints.append(ImageFolder(tmp_path, resolution=16).fingerprint)
    save(tmp_path / "a.png", picture(50), "one")
    prints.append(ImageFolder(tmp_path, resolution=16).fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_a_pipe_is_left_out_and_not_waited_for(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "fine.png")
    os.mkfifo(tmp_path / "pipe.gif")
    for name in ("fine", "pipe"):
        (tmp_path / f"{name}.txt").write_text("a picture")
    folder = ImageFolder(tmp_path, resolution=32)
    assert len(folder) == 1 and "a pipe" in folder.report.skipped["pipe.gif"]
