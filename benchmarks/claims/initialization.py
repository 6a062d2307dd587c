"""Does nearest-neighbour initialization of temporal resampling train better than He's?

The paper's ablation (2401.12945, section 3.1), at the size of configs/stunet.py:tiny.

    python benchmarks/claims/initialization.py

For each seed one text-to-image run is trained, and inflated twice. Everything else of the two runs
is the same: clips, noise and all other parameters at the start. Losses, held-out losses (of the
moving average; the same clips and noise) and oracle scores of held-out captions go to
OUTPUT/initialization/*.json; existing runs are not repeated. `section` makes its text from those
files. --quick tries everything out in minutes.
"""

import functools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import report
import training_runs as runs
from absl import flags
from PIL import Image

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.data.sources import create_source
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime import errors, metric_writer
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.training import samples
from lumiere_jax.training.held_out import Evaluation

COMMAND = "python benchmarks/claims/initialization.py"
KINDS = {"nearest": "nearest neighbour", "he": "He"}
FOLDER = "initialization"
COLOURS = {"nearest": "tab:blue", "he": "tab:orange"}


def measure(config: ConfigDict, folder: Path, image_steps: int, count: int) -> report.Cell:
    """Trains a run, and looks at it before the first step and after the last.

    Args:
      config: of the run, see `runs.video_config`.
      folder: of the runs.
      image_steps: of the image run.
      count: of held-out captions.
    """
    workdir = runs.video_workdir(folder, config, image_steps)
    config.init_from = str(runs.image_run(folder, config.seed, image_steps))
    stage, state, mesh = runs.untrained(config)
    clips = create_source(config.data, "test")
    first_loss = Evaluation(stage, mesh, clips, Programs())(state, lambda: None)["eval_loss"]
    params = merge(state.ema, state.frozen)
    shown = samples.choose(stage, clips)
    samples.write_training_samples(shown, stage, params, 0, workdir, mesh)
    truth, captions = runs.held_out(config, count)
    first = scores(runs.untrained_pipeline(config), captions)
    runs.video_run(folder, config, image_steps)
    last = scores(LumierePipeline.from_checkpoints(workdir), captions)
    lines = list(metric_writer.read(workdir))
    held_out = [[line["step"], line["eval_loss"]] for line in lines if "eval_loss" in line]
    return {
        "losses": [[line["step"], line["loss"]] for line in lines if "loss" in line],
        "held_out": [[0, first_loss], *held_out],
        "scores": {
            "before training": first,
            "after it": last,
            "true clips": oracle.score(list(truth), captions),
            "chance": oracle.chance(list(truth), captions),
        },
    }


def scores(pipeline: LumierePipeline, captions: list[str]) -> dict[str, float]:
    """The oracle's scores of one clip a caption."""
    return oracle.score(list(pipeline(captions, batch_size=32)), captions)


def of_kind(results: list[report.Cell], kind: str) -> list[report.Cell]:
    """The results of one initialization."""
    return report.matching(results, initialization=kind)


def loss_at(result: report.Cell, share: float) -> float:
    """The held-out loss nearest to a share of the run."""
    steps, losses = np.array(result["held_out"]).T
    return float(losses[np.abs(steps - share * steps[-1]).argmin()])


def section(output: Path) -> str:
    """The section about this claim for a document in the folder above that of the results.

    Args:
      output: folder of the results.
    """
    results = report.read_kept(output / FOLDER)
    settings = results[0]["settings"]
    shares = (0, 0.1, 0.2, 0.5, 1)
    head = [
        "initialization",
        *(f"held-out loss, step {round(s * settings['steps'])}" for s in shares),
    ]
    rows = [
        [name, *(report.spread([loss_at(r, share) for r in runs], ".4f") for share in shares)]
        for kind, name in KINDS.items()
        if (runs := of_kind(results, kind))
    ]
    attributes = (*oracle.ATTRIBUTES, "all")
    seen = [
        [f"{name}, {when}", *(_percent(runs, when, attribute) for attribute in attributes)]
        for when in ("before training", "after it")
        for kind, name in KINDS.items()
        if (runs := of_kind(results, kind))
    ]
    seen += [
        [when, *(_percent(results[:1], when, attribute) for attribute in attributes)]
        for when in ("true clips", "chance")
    ]
    seeds = len({result["settings"]["seed"] for result in results})
    text = (
        f"Runs of {settings['steps']} steps of 8 clips from {seeds} random starts, each from a "
        "text-to-image run of its own that both initializations share. Median of the starts, and "
        f"their range. Scores are of {settings['captions']} held-out captions."
    )
    return report.section(
        title="nearest-neighbour initialization of temporal resampling trains better than He's",
        paper=(
            "The paper starts temporal down- and up-sampling as nearest-neighbour operations, so "
            "that the inflated network makes frames of the image model before its first step, and "
            "reports that this converges better than the initialization of He et al."
        ),
        command=COMMAND,
        cells=results,
        body=[text, report.table(head, rows), report.table(["clips", *attributes], seen)],
        pictures=[f"{output.name}/initialization_{name}.png" for name in ("loss", "samples")],
        verdict=verdict(results),
    )


def _percent(runs: list[report.Cell], when: str, attribute: str) -> str:
    return report.spread([run["scores"][when][attribute] for run in runs], ".0%")


def verdict(results: list[report.Cell]) -> str:
    """How often nearest neighbour had the lower held-out loss, and where He's caught up."""
    pairs = {}
    for result in results:
        pairs.setdefault(result["settings"]["seed"], {})[result["settings"]["initialization"]] = (
            result
        )
    pairs = [pair for pair in pairs.values() if len(pair) == len(KINDS)]
    counts = [
        sum(loss_at(pair["nearest"], share) < loss_at(pair["he"], share) for pair in pairs)
        for share in (0, 0.5, 1)
    ]
    first, middle, last = (f"{count} of {len(pairs)}" for count in counts)
    if not pairs:
        return "Not decided: there is no pair of runs yet."
    word = "Holds" if min(counts) == len(pairs) else "Holds partly"
    word = "Does not hold" if 2 * counts[-1] < len(pairs) else word
    return (
        f"{word} here, by the rule that its held-out loss is lower in every pair of runs all "
        f"along, and does not where it is lower in less than half of them at the end: "
        f"nearest neighbour had the lower held-out loss in {first} pairs of runs before "
        f"training, in {middle} in the middle, and in {last} at the end."
    )


def curves(results: list[report.Cell], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and a loss `[runs, steps]`, of the runs of one initialization."""
    found = [np.array(result[key], float) for result in of_kind(results, kind)]
    return found[0][:, 0], np.stack([curve[:, 1] for curve in found])


def smoothed(losses: np.ndarray, width: int) -> np.ndarray:
    """The running median over `width` logged losses, `[runs, steps]`."""
    half = width // 2
    padded = np.pad(losses, ((0, 0), (half, half)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=1)
    return np.median(windows, axis=-1)


def draw_losses(results: list[report.Cell], path: Path) -> None:
    """Training and held-out loss over steps: median and range over seeds."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    titles = {"losses": "training (running median of 15)", "held_out": "held-out clips, EMA"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for kind, name in KINDS.items():
            if not of_kind(results, kind):
                continue
            steps, losses = curves(results, kind, key)
            losses = smoothed(losses, 15) if key == "losses" else losses
            colour = COLOURS[kind]
            axes.fill_between(steps, losses.min(0), losses.max(0), color=colour, alpha=0.25, lw=0)
            marker = "o-" if key == "held_out" else "-"
            axes.plot(steps, np.median(losses, 0), marker, color=colour, label=name, markersize=3)
        axes.set(xlabel="step", title=title, yscale="log")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("loss")
    panels[1].legend(frameon=False, title="temporal resampling starts as")
    report.save_figure(figure, path)


def sample_file(workdir: Path, step: int) -> Path:
    """The picture of the samples that a run made at a step."""
    return workdir / "samples" / f"{step:08d}" / "samples.png"


def draw_samples(workdirs: dict[str, Path], steps: list[int], path: Path) -> None:
    """First samples above last ones, the initializations side by side."""
    figure, panels = plt.subplots(
        len(steps),
        len(workdirs),
        figsize=(12, 4.2 * len(steps)),
        layout="constrained",
        squeeze=False,
    )
    for column, (kind, workdir) in enumerate(workdirs.items()):
        for row, step in enumerate(steps):
            axes = panels[row, column]
            axes.imshow(Image.open(sample_file(workdir, step)))
            axes.set_title(f"{KINDS[kind]}, step {step}")
            axes.axis("off")
    report.save_figure(figure, path)


def main(argv: list[str]) -> None:
    """Trains whatever run is missing, and makes pictures and text of all."""
    del argv
    given = flags.FLAGS
    quick, folder, output = given.quick, Path(given.runs), report.output_folder(given)
    runs.start(folder)
    own = (given.steps, given.image_steps, given.captions)
    steps, image_steps, count = (6, 4, 4) if quick else own
    seeds = [0] if quick else [int(seed) for seed in given.seeds]
    shared = {"steps": steps, "image_steps": image_steps, "captions": count}
    cells, workdirs = [], {}
    for seed in seeds:
        for kind in KINDS:
            config = runs.video_config(seed, steps, initialization=kind)
            settings = {"initialization": kind, "seed": seed, **shared}
            compute = functools.partial(measure, config, folder, image_steps, count)
            cells.append((f"{kind}_seed{seed}", settings, compute))
            workdirs.setdefault(seed, {})[kind] = runs.video_workdir(folder, config, image_steps)
    results = report.all_kept(output / FOLDER, "initialization", cells)
    shown = [0, steps // 2, steps]
    draw_losses(results, output / "initialization_loss.png")
    first = workdirs[seeds[0]]
    pictures = [sample_file(workdir, step) for workdir in first.values() for step in shown]
    if all(picture.is_file() for picture in pictures):  # runs may be gone
        draw_samples(first, shown, output / "initialization_samples.png")
    print(section(output))


if __name__ == "__main__":
    runs.define_flags(1250, 64)
    errors.run(main)
