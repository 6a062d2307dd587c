"""`image_folder`: captioned images as clips of one frame, for the text-to-image stages."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, has_suffix
from lumiere_jax.data.finding import ENDLESS, is_endless
from lumiere_jax.data.folder import CaptionedFile, CaptionedFolder
from lumiere_jax.data.limits import Limits
from lumiere_jax.data.pixels import RGBA, Frames, Picture, as_size, resize_and_crop
from lumiere_jax.data.source import HoldsFrames, check_clip, choose_caption, fingerprint
from lumiere_jax.runtime.errors import UserError


class ImageFolder(HoldsFrames):
    """Images under a folder, turned upright, scaled to cover the asked size and centrally cropped.

    Every image is opened once, at construction; those that are broken, smaller than the asked size
    or without a caption are left out, and `report` names each with its reason. What is transparent
    becomes white.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        resolution: int | Sequence[int],
        num_frames: int = 1,
        split: str = "train",
        captions: str | os.PathLike | None = None,
        min_size: int = 0,
    ):
        """Finds and checks the images; arguments are the fields of `DataConfig`.

        For splits and captions see `CaptionedFolder`; `num_frames` must be 1. A `UserError` if no
        image can be used.
        """
        check_clip("image_folder", split)
        if num_frames != 1:
            raise UserError(
                f"image_folder has single images, but data.num_frames={num_frames}; use it for the "
                "stages t2i and t2i_ssr"
            )
        self._size = height, width = as_size(resolution)
        self._limits = Limits(min_size=min_size)
        self._folder = CaptionedFolder(folder, split, captions, "image", self._examine)
        self._folder.check_not_empty(f"{height}×{width} pixels")
        self._pictures, self.report = self._folder.files, self._folder.report
        self.report.note = self._limits.describe(self._size)

    def __len__(self) -> int:
        return len(self._pictures)

    def file(self, index: int) -> CaptionedFile[tuple[int, int]]:
        """What is known of image `index`: its facts are height and width."""
        return self._pictures[index]

    def frames(self, index: int, seed: int = 0) -> tuple[Frames, str]:
        """An image as a clip of one frame, and one of its captions."""
        picture = self._pictures[index]
        caption = choose_caption(np.random.default_rng([seed, index]), picture.captions)
        try:
            image = read_image(picture.path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot read image {picture.path}: {error}; it was fine when the folder was read"
            ) from error
        return resize_and_crop(image, self._size)[None], caption

    @property
    def is_held_out(self) -> bool:
        """Whether the split "test" keeps its files from training."""
        return self._folder.is_held_out

    @property
    def fingerprint(self) -> str:
        """Names the images: size, and each file's name, size and captions."""
        return fingerprint("image_folder", size=self._size, pictures=self._folder.names())

    def _examine(self, path: Path) -> tuple[int, int] | str:
        """The size of an image, or the reason why it cannot be used."""
        try:
            if is_endless(path):
                return f"broken: {ENDLESS}"
            if has_suffix(path, VIDEO_SUFFIXES) and _moves(path):
                return "a video, not an image"
            height, width = read_image(path).shape[:2]
        except (OSError, ValueError) as error:
            return f"broken: {str(error).splitlines()[0]}"
        return self._limits.too_small((height, width), self._size) or (height, width)


def _moves(path: Path) -> bool:
    with Image.open(path) as file:
        return getattr(file, "is_animated", False)


def read_image(path: str | os.PathLike) -> Picture:
    """An image file as it is meant to be seen: upright by its EXIF note, on white, 8 bits.

    An `OSError` if it is missing or damaged, a `ValueError` if it is too large to decode safely.
    """
    image = _upright(path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def read_image_with_alpha(path: str | os.PathLike, formats: tuple[str, ...]) -> RGBA:
    """As `read_image`, but with its transparency, and of some of Pillow's formats only."""
    image = _upright(path, formats)
    if not image.has_transparency_data:
        image = image.convert("RGB")
    return np.asarray(image.convert("RGBA"))


def _upright(path: str | os.PathLike, formats: tuple[str, ...] | None = None) -> Image.Image:
    try:
        if is_endless(path):
            raise OSError(ENDLESS)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(os.path.expanduser(path), formats=formats) as file:
                image: Image.Image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"too many pixels ({error})") from error
    except (SyntaxError, EOFError) as error:  # Pillow's for some damaged files
        raise OSError(f"damaged ({error})") from error
    if image.mode == "F":
        raise ValueError("its pixels are fractions; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype("u1"))
    return image
