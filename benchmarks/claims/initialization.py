"""Does nearest-neighbour initialisation of temporal resampling train better than He's?

The paper's ablation (2401.12945, section 3.1), at the size of configs/stunet.py:tiny.

    python benchmarks/claims/initialization.py

For each seed one text-to-image run is trained, and inflated twice. Everything else of the two runs
is the same: clips, noise and all other parameters at the start. Losses, held-out losses (of the
moving average; the same clips and noise) and oracle scores of held-out captions go to
OUTPUT/initialization/*.json, a run that is there already is not done again, and the pictures and
initialization.md are made from those files. --quick tries it all out in a minute or two.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import training_claims as claims
from absl import flags
from PIL import Image

from lumiere_jax import errors
from lumiere_jax.atomic import write_text, written
from lumiere_jax.config import ConfigDict
from lumiere_jax.held_out import Evaluation
from lumiere_jax.metrics import oracle, writer
from lumiere_jax.pipeline import LumierePipeline
from lumiere_jax.progress import Progress
from lumiere_jax.samples import write_training_samples
from lumiere_jax.state import merge

_RUNS = flags.DEFINE_string("runs", "runs/claims", "Folder of the runs.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/claims/results", "Folder of the results.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
_STEPS = flags.DEFINE_integer("steps", 1250, "Steps of each inflated run.", lower_bound=2)
_CAPTIONS = flags.DEFINE_integer("captions", 64, "Held-out captions that are scored.")
_QUICK = flags.DEFINE_bool("quick", False, "A few steps and captions of seed 0, to try it out.")

COMMAND = "python benchmarks/claims/initialization.py"
KINDS = {"nearest": "nearest neighbour", "he": "He"}
FOLDER = "initialization"
EVALUATIONS, PROMPTS = 10, 4
COLOURS = {"nearest": "tab:blue", "he": "tab:orange"}


def config_of(kind: str, seed: int, steps: int, image_run: Path, quick: bool) -> ConfigDict:
    """The run of one initialisation and seed."""
    config = claims.tiny_config("stunet", seed)
    config.init_from = str(image_run)
    config.model.temporal_initialization = kind
    config.train.num_steps = steps
    config.train.log_every = 1 if quick else 5
    config.train.eval_every = max(steps // EVALUATIONS, 1)
    config.train.eval_batches = 2 if quick else 16
    config.train.sample_every = max(steps // 2, 1)
    config.train.checkpoint_every = steps
    _, captions = claims.held_out(config, PROMPTS)
    config.sampling.prompts = tuple(captions)
    return config


def measure(config: ConfigDict, workdir: Path, count: int) -> claims.Result:
    """Trains a run, and looks at it before the first step and after the last."""
    stage, state, mesh = claims.untrained(config)
    first_loss = Evaluation(stage, mesh)(state, lambda: None)
    params = merge(state.ema, state.frozen)
    write_training_samples(stage, params, 0, workdir, mesh)
    truth, captions = claims.held_out(config, count)
    first = scores(claims.untrained_pipeline(config), captions)
    claims.train_once(config, workdir)
    last = scores(LumierePipeline.from_checkpoints(workdir), captions)
    lines = list(writer.read(workdir))
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


def of_kind(results: list[claims.Result], kind: str) -> list[claims.Result]:
    """The results of one initialisation."""
    return [result for result in results if result["settings"]["initialization"] == kind]


def loss_at(result: claims.Result, share: float) -> float:
    """The held-out loss nearest to a share of the run."""
    steps, losses = np.array(result["held_out"]).T
    return float(losses[np.abs(steps - share * steps[-1]).argmin()])


def make_section(results: list[claims.Result], pictures: list[str]) -> str:
    """The section about this claim, from its results.

    Args:
      results: of all runs, see `measure`.
      pictures: paths, relative to the document.
    """
    settings = results[0]["settings"]
    shares = (0, 0.1, 0.2, 0.5, 1)
    head = [
        "initialisation",
        *(f"held-out loss, step {round(s * settings['steps'])}" for s in shares),
    ]
    rows = [
        [name, *(claims.spread([loss_at(r, share) for r in runs], ".4f") for share in shares)]
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
        f"Runs of {settings['steps']} steps of 8 clips, {seeds} random starts, each from a "
        "text-to-image run of its own that both initialisations share. Median of the starts, and "
        f"their range. Scores are of {settings['captions']} held-out captions."
    )
    body = "\n\n".join(
        [
            text,
            claims.table(head, rows),
            claims.table(["clips", *attributes], seen),
            verdict(results),
        ]
    )
    title = "Nearest-neighbour initialisation of temporal resampling trains better than He's"
    return claims.section(title, COMMAND, claims.machine_line(results), body, pictures)


def _percent(runs: list[claims.Result], when: str, attribute: str) -> str:
    return claims.spread([run["scores"][when][attribute] for run in runs], ".0%")


def verdict(results: list[claims.Result]) -> str:
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
    return (
        f"Nearest neighbour had the lower held-out loss in {first} pairs of runs before training, "
        f"in {middle} in the middle, and in {last} at the end."
    )


def curves(results: list[claims.Result], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and a loss `[runs, steps]`, of the runs of one initialisation."""
    found = [np.array(result[key], float) for result in of_kind(results, kind)]
    return found[0][:, 0], np.stack([curve[:, 1] for curve in found])


def smoothed(losses: np.ndarray, width: int) -> np.ndarray:
    """The running median over `width` logged losses, `[runs, steps]`."""
    half = width // 2
    padded = np.pad(losses, ((0, 0), (half, half)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=1)
    return np.median(windows, axis=-1)


def draw_losses(results: list[claims.Result], path: Path) -> None:
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
    with written(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def draw_samples(workdirs: dict[str, Path], steps: list[int], path: Path) -> None:
    """First samples above last ones, the initialisations side by side."""
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
            axes.imshow(Image.open(workdir / "samples" / f"{step:08d}" / "samples.png"))
            axes.set_title(f"{KINDS[kind]}, step {step}")
            axes.axis("off")
    with written(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def main(argv: list[str]) -> None:
    """Trains whatever run is missing, and makes pictures and text of all."""
    del argv
    quick, runs, output = _QUICK.value, Path(_RUNS.value), Path(_OUTPUT.value)
    claims.start(runs)
    steps, count = (6, 4) if quick else (_STEPS.value, _CAPTIONS.value)
    seeds = [0] if quick else [int(seed) for seed in _SEEDS.value]
    cells = [(seed, kind) for seed in seeds for kind in KINDS]
    progress = Progress("claim: initialisation", len(cells), "runs")
    results, workdirs = [], {}
    for seed, kind in cells:
        image_run = claims.image_run(runs, seed, 4 if quick else 0)
        workdir = runs / f"{FOLDER}_{kind}_{steps}_seed{seed}"
        settings: dict[str, Any] = {"initialization": kind, "seed": seed, "steps": steps}
        settings |= {"captions": count}
        config = config_of(kind, seed, steps, image_run, quick)
        path = output / FOLDER / f"{kind}_seed{seed}.json"
        results.append(
            claims.kept(path, settings, lambda c=config, w=workdir: measure(c, w, count))
        )
        workdirs.setdefault(seed, {})[kind] = workdir
        progress.advance()
    shown = [0, config.train.sample_every, steps]
    draw_losses(results, output / "initialization_loss.png")
    if (workdir / "samples").is_dir():  # results may outlive their runs
        draw_samples(workdirs[seeds[0]], shown, output / "initialization_samples.png")
    pictures = [f"{output.name}/initialization_{name}.png" for name in ("loss", "samples")]
    text = make_section(results, pictures)
    write_text(output / "initialization.md", text)
    print(text)


if __name__ == "__main__":
    errors.run(main)
