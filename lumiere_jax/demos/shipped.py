"""What the demo shows: videos by the weights that travel with the project."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.checkpoints import bundle
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.demos import page
from lumiere_jax.inference import vocabulary
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import duration

PROMPTS = (
    "a large red circle moving right on a plain black background",
    "a small yellow cross moving to the lower left on a striped navy background",
    "a large green ring moving up on a checkered gray background",
    "a small blue triangle standing still on a plain white background",
    "digit 7 is moving left and right",
    "digit 3 is moving up and down and digit 8 is moving left and right",
)


def show(
    output: str | Path, weights: str | Path, prompts: Sequence[str] = (), seed: int = 0
) -> Path:
    """Makes a video of every prompt, or of `PROMPTS`, and a page, whose path it returns.

    The weights are a bundle with the stages "stunet" and "ssr"; the seed is that of the first
    video, and the others follow.

    Raises:
      UserError: for a prompt that the weights know nothing of, or a bundle that cannot be read.
    """
    begin = time.monotonic()
    output, weights = Path(output).expanduser(), Path(weights).expanduser()
    prompts = list(prompts) or list(PROMPTS)
    missing = {"stunet", "ssr"} - set(bundle.entries(weights))
    if missing:
        raise UserError(f"{weights} has no stage {min(missing)!r}; give a bundle that has it.")
    config = StageConfig.parse(bundle.read_config(weights / "stunet"))
    for prompt in prompts:
        if doubt := vocabulary.doubt(config, prompt):
            raise UserError(doubt)
    pipeline = LumierePipeline.from_checkpoints(weights / "stunet", [weights / "ssr"])
    folder = output / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [seed + i for i in range(len(prompts))]
    videos = pipeline(prompts, seeds=seeds, batch_size=min(len(prompts), 8))
    for i, (prompt, video) in enumerate(zip(prompts, videos, strict=True)):
        for suffix in (".mp4", ".gif"):
            write_viewable(folder / f"{i:02d}{suffix}", video, pipeline.fps, prompt)
    every_second = videos[:, ::2, ::2, ::2]  # frame and pixel: a contact sheet is an overview
    write_contact_sheet(output / "contact_sheet.png", every_second, prompts)
    write_text(output / "prompts.json", json.dumps(prompts, indent=2) + "\n")
    path = page.write_shown(
        output, prompts, videos.shape[1:4], pipeline.fps, vocabulary.known(config)
    )
    print(f"{len(prompts)} videos in {duration(time.monotonic() - begin)}: {folder}")
    print(f"open {path.resolve()} in a browser")
    print(f"made by the exported bundle {weights}, which `make playground` serves on a page")
    return path
