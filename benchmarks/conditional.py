"""Does the conditional model do what it is asked for? See `conditional_tasks.py`.

python benchmarks/conditional.py --base=runs/conditional
"""

import json
from pathlib import Path

import numpy as np
from absl import flags
from conditional_tasks import TASKS, cell, held_out, measure

from lumiere_jax.data.masks import GENERATORS
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_BASE = flags.DEFINE_string("base", None, "Workdir of a run of the stage stunet_conditional.")
_CASES = flags.DEFINE_integer("cases", 64, "Clips of each task.", lower_bound=2)
_OUTPUT = flags.DEFINE_string("output", "conditional", "Folder for figures and pictures.")
_TASKS = flags.DEFINE_list("tasks", [], "Some of the tasks; all if empty.")
flags.mark_flags_as_required(["base"])


def draw_masks(path: Path, video: np.ndarray) -> None:
    """A picture of what each task shows of a clip: unknown pixels are grey."""
    shown, names = [], []
    for name, generator in GENERATORS.items():
        mask = generator(video.shape[:3], np.random.default_rng(3))
        shown.append(np.where(mask[..., None], video, 0))
        names.append(f"{name}: {mask.mean():.0%} known")
    write_contact_sheet(path, shown, names)


def main(argv: list[str]) -> None:
    """Runs all tasks, prints a table and writes figures and pictures."""
    del argv
    Path(_OUTPUT.value).mkdir(parents=True, exist_ok=True)
    pipeline = LumierePipeline.from_checkpoints(_BASE.value, show_progress=False)
    all_cases = held_out(pipeline, _CASES.value)
    draw_masks(Path(_OUTPUT.value) / "masks.png", all_cases[0].video)
    unknown = set(_TASKS.value) - set(TASKS)
    if unknown:
        raise UserError(f"--tasks={min(unknown)} is unknown; there are {', '.join(TASKS)}.")
    results = {
        task: measure(pipeline, task, all_cases, Path(_OUTPUT.value))
        for task in _TASKS.value or TASKS
    }
    (Path(_OUTPUT.value) / "conditional.json").write_text(json.dumps(results, indent=2) + "\n")
    print("| task | cases | figure | right condition | that of another clip |")
    print("| --- | --- | --- | --- | --- |")
    for task, found in results.items():
        for name, value in found["right"].items():
            cells = [cell(name, x) for x in (value, found["wrong"][name])]
            print(f"| {task} | {found['cases']} | {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    errors.run(main)
