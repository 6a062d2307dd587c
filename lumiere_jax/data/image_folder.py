"""`image_folder`: captioned images as clips of one frame, for the text-to-image stages."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from lumiere_jax.data.captions import FILE_NAMES, read_caption_beside, real_path
from lumiere_jax.data.fingerprint import fingerprint
from lumiere_jax.data.video_folder import FolderReport, load_captions, split_folder, with_progress
from lumiere_jax.data.video_io import resize_and_crop, to_float
from lumiere_jax.runtime.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class _Picture(NamedTuple):
    path: Path
    captions: tuple[str, ...]
    num_bytes: int


class ImageFolder:
    """Images under a folder, turned upright, scaled to cover the asked size and centrally cropped.

    Every image is opened once, at construction; those that are broken, smaller than the asked size
    or without a caption are left out, and `report` names each with its reason. Captions are found
    as those of `VideoFolder` are. What is transparent becomes white.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        resolution: int | tuple[int, int],
        num_frames: int = 1,
        split: str = "train",
        captions: str | os.PathLike | None = None,
    ):
        """Finds and checks the images.

        Args:
          root: folder with images in it or in folders below: PNG, JPEG, WebP, BMP. If it has a
            folder `train` or `test`, a split is the folder of its name.
          resolution: side of the square in pixels, or (height, width).
          num_frames: must be 1.
          split: "train" or "test".
          captions: CSV or JSONL file; see `VideoFolder`.

        Raises:
          UserError: no folder, no usable image in it, a malformed captions file, or clips of more
            than one frame are asked for.
        """
        if num_frames != 1:
            raise UserError(
                f"image_folder has single images, but data.num_frames={num_frames}; use it for the "
                "stages t2i and t2i_ssr"
            )
        self._size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
        root = Path(root).expanduser()
        self._folder = split_folder(root, split)
        listed, _ = load_captions([self._folder, root], captions)
        self.report = FolderReport(folder=str(self._folder), used=0, skipped={})
        self._pictures = list(self._usable(listed))
        self.report["used"] = len(self._pictures)
        if not self._pictures:
            raise UserError(
                f"no usable image in {self._folder} ({self.report.summary()}); it needs images "
                f"({' '.join(SUFFIXES)}) of at least {self._size[0]}×{self._size[1]} pixels, with "
                f"captions in one of {', '.join(FILE_NAMES)} or in .txt files beside them"
            )

    def __len__(self) -> int:
        return len(self._pictures)

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """An image, float32 [1, height, width, 3] in [-1, 1], and one of its captions."""
        frames, caption = self.frames(index, seed)
        return to_float(frames), caption

    def frames(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """What `example` gives, as bytes."""
        picture = self._pictures[index]
        generator = np.random.default_rng([seed, index])
        caption = picture.captions[int(generator.integers(len(picture.captions)))]
        try:
            image = read_image(picture.path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot read image {picture.path}: {error}; it was fine when the folder was read"
            ) from error
        return resize_and_crop(image, self._size)[None], caption

    @property
    def fingerprint(self) -> str:
        """Names the images: size, and each file's name, size and captions."""
        pictures = [
            [str(picture.path.relative_to(self._folder)), picture.num_bytes, picture.captions]
            for picture in self._pictures
        ]
        return fingerprint("image_folder", size=self._size, pictures=pictures)

    def _usable(self, listed: dict[Path, list[str]]) -> Iterator[_Picture]:
        paths = sorted(p for p in self._folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        paths = [path for path in paths if not path.is_dir() and not path.name.startswith(".")]
        with ThreadPoolExecutor(max_workers=4) as pool:
            checked = with_progress(pool.map(self._problem, paths), len(paths))
            for path, problem in zip(paths, checked, strict=True):
                captions = listed.get(real_path(path)) or read_caption_beside(path)
                if not problem and captions:
                    yield _Picture(path, tuple(captions), path.stat().st_size)
                else:
                    name = str(path.relative_to(self._folder))
                    self.report["skipped"][name] = problem or "without a caption"

    def _problem(self, path: Path) -> str:
        """Why an image cannot be used; empty if it can."""
        try:
            height, width = read_image(path).shape[:2]
        except (OSError, ValueError) as error:
            return f"broken: {str(error).splitlines()[0]}"
        if height < self._size[0] or width < self._size[1]:
            return f"too small: {width}×{height} pixels"
        return ""


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file as it is meant to be seen: upright by its EXIF note, on white, 8 bits.

    Returns:
      uint8 [height, width, 3].

    Raises:
      OSError: the file is missing, no image, or damaged.
      ValueError: it has more pixels than are safe to decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"too many pixels ({error})") from error
    except (SyntaxError, EOFError) as error:  # Pillow's for some damaged files
        raise OSError(f"damaged ({error})") from error
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype("u1"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
