"""Writes docs/images/demo.gif, the picture in README.md: `python docs/demo_picture.py`.

It needs the videos of `make demo`, and those of docs/editing.md, "With the shipped weights".
"""

import itertools
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lumiere_jax.data.video_io import read_video

OUTPUT = "docs/images/demo.gif"
VIDEOS = {
    "demo/videos/00.mp4": "text to video: a large red circle moving right",
    "demo/videos/02.mp4": "a large green ring moving up on a checkered gray background",
    "demo/videos/01.mp4": "a small yellow cross moving to the lower left",
    "demo/videos/04.mp4": "digit 7 is moving left and right",
    "shipped_moving.mp4": "image to video: a large red diamond moving left",
    "shipped_edited.mp4": "inpainting, of such a clip: a large blue diamond moving left",
}
COLUMNS, SIDE, LETTERS, FONT_SIZE, COLOURS, FPS, HARDLY = 3, 192, 30, 11, 128, 8, 10
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def main() -> None:
    """Places the videos in a grid, each above its text."""
    cells = [_cell(path, text) for path, text in VIDEOS.items()]
    rows = [np.concatenate(cells[i : i + COLUMNS], 2) for i in range(0, len(cells), COLUMNS)]
    frames = [Image.fromarray(frame) for frame in _without_flicker(np.concatenate(rows, 1))]
    # One palette for all frames and no dithering: nothing flickers, and the file stays small.
    palette = Image.fromarray(np.concatenate(frames[::4])).quantize(COLOURS)
    first, *others = [frame.quantize(palette=palette, dither=0) for frame in frames]
    first.save(
        OUTPUT, save_all=True, append_images=others, duration=1000 // FPS, loop=0, optimize=True
    )


def _without_flicker(video: np.ndarray) -> np.ndarray:
    """Leaves pixels as they were where they hardly change, which GIF stores in no bytes."""
    kept = video.copy()
    for before, now in itertools.pairwise(kept):
        change = np.abs(now.astype(int) - before).max(axis=-1, keepdims=True)
        np.copyto(now, before, where=change < HARDLY)
    return kept


def _cell(path: str, text: str) -> np.ndarray:
    """A video with a text below it, as bytes [time, height, width, 3]."""
    video = read_video(path, fps=FPS, size=(SIDE, SIDE))
    caption = Image.new("RGB", (SIDE, 3 * FONT_SIZE), "white")
    font = ImageFont.truetype(FONT, FONT_SIZE)
    text = textwrap.fill(text, LETTERS)
    ImageDraw.Draw(caption).text((SIDE // 2, 2), text, "black", font, "ma", align="center")
    below = np.repeat(np.asarray(caption)[None], len(video), axis=0)
    margins = [(0, 0), (4, 0), (4, 4), (0, 0)]
    return np.pad(np.concatenate([video, below], 1), margins, constant_values=255)


if __name__ == "__main__":
    main()
