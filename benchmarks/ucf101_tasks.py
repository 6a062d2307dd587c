"""What a conditional model does with real clips, for `benchmarks/ucf101.md`. See `real_tasks.py`.

    python benchmarks/ucf101_tasks.py --clips=CLIPS --base=WORKDIR

CLIPS is what `prepare_data` wrote and the model was trained on, WORKDIR a run of the stage
stunet_conditional. A classifier that learnt I3D's logits of the training clips says which class a
clip shows. What is made is kept in --work, so the same command resumes; prints a table, and writes
a picture for each task.
"""

from pathlib import Path

import numpy as np
from absl import flags
from cached_features import CachedFeatures
from clip_figures import Clips, Set, classifier
from conditional_tasks import cell
from real_clips import logits_of, prepared
from real_tasks import TASKS, Case, cases, given_to, means

from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.pixels import to_float, to_uint8
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.evaluation.networks import i3d_network
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.files import written
from lumiere_jax.runtime.progress import Progress

_CLIPS = flags.DEFINE_string("clips", None, "Folder that prepare_data wrote.", required=True)
_BASE = flags.DEFINE_string("base", None, "Run of the stage stunet_conditional.", required=True)
_CASES = flags.DEFINE_integer("cases", 64, "Held-out clips of each task.", lower_bound=2)
_WORK = flags.DEFINE_string("work", ".cache/ucf101_model", "Folder of clips and logits.")
_OUTPUT = flags.DEFINE_string("output", ".", "Folder for the pictures.")

SHOWN = 4  # cases of a picture, each of another class
CONDITIONS = {"its own condition": True, "that of another clip": False}


def made(pipeline: LumierePipeline, task: str, own: bool, all_cases: list[Case]) -> Clips:
    """The clips of a task, each kept as soon as it is there."""
    weights = checkpoint.fingerprint(pipeline.base[1])[:12]
    folder = Path(_WORK.value) / weights / f"{task}_{'own' if own else 'other'}"
    folder.mkdir(parents=True, exist_ok=True)
    progress, clips = Progress(f"{task}, {folder.name}", len(all_cases), "clips"), []
    for number in range(len(all_cases)):
        path = folder / f"{number}_of_{len(all_cases)}.npy"
        if not path.is_file():
            given = given_to(all_cases, number, own)
            clip = TASKS[task].make(pipeline, given, seeds=[number], base_only=True)
            with written(path) as temporary:
                np.save(temporary, to_uint8(np.asarray(clip)))
        clips.append(np.load(path))
        progress.advance()
    return np.stack(clips)


def main(argv: list[str]) -> None:
    """Makes what is missing, prints the table and writes the pictures."""
    del argv
    devices.split_cpu()
    pipeline = LumierePipeline.from_checkpoints(_BASE.value, show_progress=False)
    features = CachedFeatures(i3d_network(PROFILES["unterthiner"]), Path(_WORK.value))
    train = prepared(_CLIPS.value, "train")
    told = classifier(
        Set(train.clips, train.classes, logits_of(features, "training clips", train.clips))
    )
    held_out = prepared(_CLIPS.value, "test", _CASES.value)
    all_cases = cases(held_out)
    print("| task | figure | its own condition | that of another clip | the true clip |")
    print("|---|---|---|---|---|")
    for name, task in TASKS.items():
        columns = []
        sets = {key: made(pipeline, name, own, all_cases) for key, own in CONDITIONS.items()}
        for key, clips in (sets | {"the true clip": held_out.clips}).items():
            figures = [task.measure(to_float(c), x) for c, x in zip(clips, all_cases, strict=True)]
            classes = told.predict(logits_of(features, f"{name}, {key}", clips))
            asked = np.array([task.asked(case) for case in all_cases])
            column = means(figures) | {"class as asked": float(np.mean(classes == asked))}
            if task.changes_class:
                column["class as before"] = float(np.mean(classes == held_out.classes))
            columns.append(column)
        for figure in columns[0]:
            row = " | ".join(cell(figure, column[figure]) for column in columns)
            print(f"| {name} | {figure} | {row} |", flush=True)
        first = np.sort(np.unique(held_out.classes, return_index=True)[1])[:SHOWN]
        shown = [
            pair
            for case, clip in ((all_cases[n], sets["its own condition"][n]) for n in first)
            for pair in (
                (case.video, f"given: {case.caption}"),
                (to_float(clip), f"{name}: {case.other_caption if task.changes_class else ''}"),
            )
        ]
        path = Path(_OUTPUT.value) / f"ucf101_{name}.png"
        write_contact_sheet(path, [clip for clip, _ in shown], [text for _, text in shown])


if __name__ == "__main__":
    errors.run(main)
