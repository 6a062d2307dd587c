import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.inference.regions import read_region
from lumiere_jax.runtime.errors import UserError

SHAPE = (8, 20, 30)
DRAWN = np.zeros(SHAPE[1:], bool)
DRAWN[3:9, 10:25] = True


def save(path, image):
    Image.fromarray(image).save(path)
    return str(path)


def test_images_are_white_or_painted_where_they_change(tmp_path):
    grey = np.where(DRAWN, 250, 5).astype(np.uint8)
    alpha = np.dstack([np.full((*DRAWN.shape, 3), 90, np.uint8), 255 * DRAWN.astype(np.uint8)])
    for name, image in [("grey", grey), ("rgb", np.dstack([grey] * 3)), ("alpha", alpha)]:
        region = read_region(save(tmp_path / f"{name}.png", image), 8, SHAPE)
        np.testing.assert_array_equal(region, DRAWN[None])
    bits = Image.fromarray(DRAWN)
    bits.save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_region(str(tmp_path / "bits.png"), 8, SHAPE), DRAWN[None])


def test_videos_are_masks_of_every_frame(tmp_path):
    drawn = np.stack([np.roll(DRAWN, n, axis=1) for n in range(8)])
    video = np.repeat(np.where(drawn, 1.0, -1.0)[..., None], 3, axis=-1)
    write_lossless(tmp_path / "mask.mkv", video, 8)
    np.testing.assert_array_equal(read_region(str(tmp_path / "mask.mkv"), 8, SHAPE), drawn)
    with pytest.raises(UserError, match="has 8 frames at 8 fps and the video 5; cut it"):
        read_region(str(tmp_path / "mask.mkv"), 8, (5, 20, 30))
    with pytest.raises(UserError, match="has 8 frames and the video 9"):
        read_region(str(tmp_path / "mask.mkv"), 8, (9, 20, 30))


def test_boxes_stand_still_or_move_between_key_frames():
    expected = np.broadcast_to(DRAWN, SHAPE)
    np.testing.assert_array_equal(read_region("10,3,15,6", 8, SHAPE), expected)
    moving = read_region("0:0,0,4,4; 4:8,4,8,4", 8, SHAPE)
    for frame, (x, y, width) in enumerate([(0, 0, 4), (2, 1, 5), (4, 2, 6), (6, 3, 7), (8, 4, 8)]):
        picture = np.zeros(SHAPE[1:], bool)
        picture[y : y + 4, x : x + width] = True
        np.testing.assert_array_equal(moving[frame], picture)
    np.testing.assert_array_equal(moving[7], moving[4])


@pytest.mark.parametrize(
    "spec, message",
    [
        ("10,3,15", "is not a box"),
        ("10,3,15,6;", "is not a box"),
        ("-1,3,15,6", "is not a box"),
        ("9:10,3,15,6", "frame 9 is not among the 8"),
        ("10,3,0,6", "is empty"),
        ("40,3,5,6", "is empty within the picture of 30×20"),
        ("nowhere.png", "cannot be read"),
    ],
)
def test_what_is_no_region_is_told(spec, message):
    with pytest.raises(UserError, match=message):
        read_region(spec, 8, SHAPE)


def test_pictures_that_are_no_masks_are_told(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with pytest.raises(UserError, match="without an alpha channel"):
        read_region(save(tmp_path / "photo.png", photo), 8, SHAPE)
    black = np.zeros((20, 30), np.uint8)
    with pytest.raises(UserError, match="is empty"):
        read_region(save(tmp_path / "black.png", black), 8, SHAPE)
    white = np.full((21, 30), 255, np.uint8)
    with pytest.raises(UserError, match="is 30×21 pixels and the picture 30×20"):
        read_region(save(tmp_path / "white.png", white), 8, SHAPE)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot be read"):
        read_region(str(tmp_path / "text.png"), 8, SHAPE)
