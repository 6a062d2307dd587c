"""Tiny studies for tests."""

from pathlib import Path

import numpy as np

from lumiere_jax.data.video_io import write_mp4
from lumiere_jax.metrics.user_study import QUESTIONS, Pair, Study
from lumiere_jax.study_page import making

NAMES = ("ball", "more/cube")


def write_videos(folder: Path, names: tuple[str, ...], seed: int = 0) -> Path:
    """A folder of different videos, 4 frames of 32x32 pixels."""
    generator = np.random.default_rng([seed, len(folder.name)])
    for name in names:
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = generator.uniform(-1, 1, (4, 1, 1, 3)).astype(np.float32)
        write_mp4(path, np.broadcast_to(colour, (4, 32, 32, 3)), 8)
    return folder


def write_prompts(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    path.write_text("name,prompt\n" + "".join(f"{name},a {name} moving\n" for name in names))
    return path


def make_study(root: Path, num_checks: int = 1, **settings) -> tuple[Path, Study]:
    """The folder of a study of two pairs."""
    folder = root / "study"
    study = making.make(
        folder,
        ours=write_videos(root / "mine", NAMES, seed=1),
        baselines=[write_videos(root / "theirs", NAMES, seed=2)],
        prompts_file=write_prompts(root / "prompts.csv"),
        title="Which is better?",
        num_checks=num_checks,
        **settings,
    )
    return folder, study


def abstract_study(num_pairs: int = 4, num_checks: int = 2, **settings) -> Study:
    """A study without videos."""
    pairs = [Pair(f"p{i}", f"n{i}", "base", "text", f"{i}a", f"{i}b") for i in range(num_pairs)]
    pairs += [Pair(f"c{i}", f"n{i}", None, "text", f"{i}a", f"{i}z") for i in range(num_checks)]
    values = {"title": "t", "seed": 3, "methods": ("ours", "base"), "questions": QUESTIONS}
    return Study(**(values | {"pairs": tuple(pairs)} | settings))
