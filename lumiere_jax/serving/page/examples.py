"""Clips, pictures and regions to try the tasks on: moving shapes, which small weights know."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.scene import OBJECT_COLOURS
from lumiere_jax.data.video_io import write_video

PROMPTS = (
    "a large red circle moving right on a plain black background",
    "a small yellow cross moving to the lower left on a striped navy background",
    "digit 7 is moving left and right",
)
SIDE = 128
"""Pixels of each side of an example."""
_FRAMES = 16


@dataclasses.dataclass(frozen=True)
class Example:
    """A clip with its first frame, both as files, and what can be asked for of it."""

    video: str
    image: str
    mask: str  # white where the object moves
    prompt: str  # what it shows
    changed: str  # the same with an object of another colour


def write(folder: Path, count: int, fps: float) -> list[Example]:
    """Writes clips, none of which small weights were trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    source = MovingShapes(
        num_frames=_FRAMES, resolution=SIDE, split="test", size=1000, textured_probability=0.0
    )
    moving = [n for n in range(100) if source.scene(n).objects[0].direction != "still"]
    return [_write(folder / str(n), source, n, fps) for n in moving[:count]]


def _write(path: Path, source: MovingShapes, index: int, fps: float) -> Example:
    video, prompt = source.example(index)
    files = Example(
        video=f"{path}.mp4", image=f"{path}.png", mask=f"{path}-mask.png", prompt=prompt,
        changed=_recoloured(prompt, source.scene(index).objects[0].colour),
    )  # fmt: skip
    write_video(files.video, video, fps)
    Image.fromarray(to_uint8(video[0])).save(files.image)
    moves = np.abs(video - np.median(video, axis=0)).max(axis=(0, 3)) > 0.2
    rows, columns = np.nonzero(moves)
    margin = SIDE // 16
    region = np.zeros((SIDE, SIDE), np.uint8)
    region[max(rows.min() - margin, 0) : rows.max() + margin,
           max(columns.min() - margin, 0) : columns.max() + margin] = 255  # fmt: skip
    Image.fromarray(region).save(files.mask)
    return files


def _recoloured(prompt: str, colour: str) -> str:
    other = next(name for name in OBJECT_COLOURS if name not in prompt)
    return prompt.replace(colour, other, 1)
