"""The demo from nothing: train the tiny cascade, sample held-out prompts, score, show."""

import json
import time
from pathlib import Path

import numpy as np

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import CASCADE, STAGES
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.demos import page
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle
from lumiere_jax.runtime import config_file
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import duration
from lumiere_jax.training.train import train

NUM_SHOWN = 12
NUM_SCORED = 64


def run_demo(output: str | Path, configs: str | Path = "configs") -> Path:
    """Does what is not done yet of the demo, in the folder `output`; returns the page's path."""
    begin = time.monotonic()
    output = Path(output).expanduser()
    for index, stage in enumerate(CASCADE):
        print(f"\n== {index + 1}/{len(CASCADE) + 1}: training stage {stage} ==", flush=True)
        train(stage_config(stage, configs, output), output / "runs" / stage)
    print(f"\n== {len(CASCADE) + 1}/{len(CASCADE) + 1}: videos of held-out prompts ==", flush=True)
    scores = make_videos(output)
    print(f"\n{oracle.format_table(scores)}\n")
    print(export([str(output / "runs" / stage) for stage in CASCADE], output / "bundle"))
    print(f"{output / 'bundle'}: these weights to take along, see docs/bundles.md\n")
    path = page.write_trained(output, scores)
    print(f"done in {duration(time.monotonic() - begin)}; open {path.resolve()} in a browser")
    return path


def stage_config(stage: str, configs: str | Path, output: Path) -> ConfigDict:
    """The tiny config of a stage, within the demo's folder."""
    path = Path(configs).expanduser() / f"{stage}.py"
    if not path.is_file():
        raise UserError(f"there is no {path}; run the demo from the project's root.")
    config = config_file.load(f"{path}:tiny")
    if source := STAGES[stage]:
        config.init_from = str(output / "runs" / source)
    config.train.eval_every = config.train.sample_every = 0  # the demo is short of time
    return config


def make_videos(output: Path) -> dict[str, dict[str, float]]:
    """Writes `videos/` of held-out captions, and scores of them, of true clips and of chance.

    `scores.json` comes last: it says that all is there.
    """
    runs, folder = output / "runs", output / "videos"
    pipeline = LumierePipeline.from_checkpoints(runs / "stunet", [runs / "ssr"])
    fingerprint = _fingerprint(output)
    done = output / "scores.json"
    if done.is_file():
        saved = json.loads(done.read_text())
        if saved["fingerprint"] == fingerprint:
            print(f"the videos in {folder} are up to date")
            return saved["scores"]
    folder.mkdir(exist_ok=True)
    source = create_source(pipeline.base[0].config.data, "test")
    truth, captions = zip(*(source.example(i) for i in range(NUM_SCORED)), strict=True)
    videos = pipeline(captions, base_only=True, batch_size=32)
    scores = {
        "generated": oracle.score(list(videos), list(captions)),
        "ground truth": oracle.score(list(truth), list(captions)),
        "chance": oracle.chance(list(truth), list(captions)),
    }
    shown = list(captions[:NUM_SHOWN])
    refined = np.asarray(pipeline.refine(videos[:NUM_SHOWN], shown, range(NUM_SHOWN)))
    for i, (caption, video) in enumerate(zip(shown, refined, strict=True)):
        for suffix in (".mp4", ".gif"):
            write_viewable(folder / f"{i:02d}{suffix}", video, pipeline.fps, caption)
    write_contact_sheet(output / "contact_sheet.png", refined, shown)
    write_contact_sheet(output / "contact_sheet_base.png", videos[:NUM_SHOWN], shown)
    write_text(output / "prompts.json", json.dumps(shown, indent=2) + "\n")
    write_text(done, json.dumps({"fingerprint": fingerprint, "scores": scores}, indent=2) + "\n")
    return scores


def _fingerprint(output: Path) -> dict[str, str]:
    """What the videos depend on: the configs of the runs, and how many are shown and scored."""
    runs = {stage: (output / "runs" / stage / "config.json").read_text() for stage in CASCADE}
    return runs | {"counts": f"{NUM_SHOWN} {NUM_SCORED}"}
