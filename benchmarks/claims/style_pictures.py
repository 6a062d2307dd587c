"""Pictures of two styles, made from clips of `moving_shapes`, and how far frames are from them."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.pixels import resize_and_crop, to_float, to_uint8
from lumiere_jax.runtime.files import written

DRAWN_PIXELS = 64  # drawn so large, and scaled down after it
_SOURCE_SEED = 7  # other clips than those that are scored


def duotone(image: Image.Image) -> Image.Image:
    """Brightness alone, from navy to gold."""
    return ImageOps.colorize(ImageOps.grayscale(image), "navy", "gold")


def outline(image: Image.Image) -> Image.Image:
    """Dark contours on white paper."""
    edges = ImageOps.grayscale(image.filter(ImageFilter.FIND_EDGES))
    edges.paste(0, (0, 0, edges.width, 1))  # the filter copies the image at its border
    edges.paste(0, (0, edges.height - 1, edges.width, edges.height))
    edges.paste(0, (0, 0, 1, edges.height))
    edges.paste(0, (edges.width - 1, 0, edges.width, edges.height))
    thick = edges.filter(ImageFilter.MaxFilter(5)).point(lambda value: min(2 * value, 255))
    return ImageOps.invert(thick).convert("RGB")


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"duotone": duotone, "outline": outline}


def in_style(frames: np.ndarray, style: str, size: int) -> np.ndarray:
    """Frames in a style.

    Args:
      frames: `[time, height, width, 3]` in [-1, 1].
      style: a key of `STYLES`.
      size: of the result, in pixels.

    Returns:
      `[time, size, size, 3]` in [-1, 1].
    """
    pictures = []
    for frame in np.asarray(frames):
        image = Image.fromarray(to_uint8(frame))
        pictures.append(resize_and_crop(np.asarray(STYLES[style](image)), (size, size)))
    return to_float(np.stack(pictures))


def write_pictures(folder: Path, style: str, count: int) -> Path:
    """Writes pictures of a style with captions beside them, for the stage "style".

    They show random moments of clips for training, none of the combinations that are scored.
    Nothing is done if they are there.
    """
    if (folder / "captions.csv").is_file():  # which is written last
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    source = MovingShapes(1, DRAWN_PIXELS, split="train", textured_probability=0, seed=_SOURCE_SEED)
    rows = []
    for index in range(count):
        frames, caption = source.example(index)
        picture = in_style(frames, style, DRAWN_PIXELS)[0]
        Image.fromarray(to_uint8(picture)).save(folder / f"{index:04d}.png")
        rows.append((f"{index:04d}.png", caption))
    with written(folder / "captions.csv") as path, path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])
    return folder


def read_pictures(folder: Path, size: int) -> np.ndarray:
    """The pictures of `write_pictures` as training sees them, `[count, size, size, 3]`."""
    source = ImageFolder(folder, resolution=size)
    return np.concatenate([source.example(index)[0] for index in range(len(source))])


def statistics(frames: np.ndarray) -> np.ndarray:
    """Colours and textures of frames: means and Gram matrix of a fixed space of features.

    A pixel's ten features are 1, its three colours, and their differences from the pixel to the
    right and from the one below. The mean of their outer products over pixels is the Gram matrix
    (with 1 among the features, it holds their means as well), in the spirit of Gatys et al.
    (1508.06576), whose features are a trained network's.

    Args:
      frames: `[number, height, width, 3]` in [-1, 1].

    Returns:
      `[number, 10, 10]`, float64.
    """
    frames = np.asarray(frames, np.float64)
    here = frames[:, :-1, :-1]
    right, below = frames[:, :-1, 1:] - here, frames[:, 1:, :-1] - here
    features = np.concatenate([np.ones_like(here[..., :1]), here, right, below], axis=-1)
    pixels = features.reshape(len(features), -1, features.shape[-1])
    return np.einsum("npi,npj->nij", pixels, pixels) / pixels.shape[1]


def style_distance(frames: np.ndarray, pictures: np.ndarray) -> float:
    """Distance of the mean statistics of frames and of pictures of a style (Frobenius norm)."""
    difference = statistics(frames).mean(axis=0) - statistics(pictures).mean(axis=0)
    return float(np.linalg.norm(difference))


def flat(videos: Sequence[np.ndarray]) -> np.ndarray:
    """All frames of all clips, `[number, height, width, 3]`."""
    videos = np.asarray(videos)
    return videos.reshape(-1, *videos.shape[2:])
