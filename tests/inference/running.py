"""The commands that make videos, as users run them, and what they wrote."""

import subprocess
from pathlib import Path

import av
from PIL import Image

from tests.warm_python import REPOSITORY, python

PROMPT = "a large red circle moving right"


def run(command: str, *arguments: str, **named: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `python -m lumiere_jax.COMMAND`; `named` are flags."""
    flags = [f"--{name}={value}" for name, value in named.items()]
    process = subprocess.run(
        [python(), "-m", f"lumiere_jax.{command}", *arguments, *flags],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return process.returncode, process.stdout, process.stderr


def size_and_frames(path: Path) -> tuple[int, int, int]:
    """Width, height and number of frames of a video or picture, each decoded."""
    if path.suffix == ".mp4":
        with av.open(path) as container:
            frames = list(container.decode(video=0))
        return frames[0].width, frames[0].height, len(frames)
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
        return *image.size, index + 1
