"""Do frozen text-to-image weights keep the quality of images?

The paper trains only what inflation adds (2401.12945, section 3.1). For each seed one text-to-image
run of configs/t2i.py:tiny is inflated twice, by configs/stunet.py:tiny with its image weights
frozen, and, at equal steps, with all weights trained.

    python benchmarks/claims/frozen_images.py

The oracle judges single frames of held-out captions, for colour, shape and background: images of
the image network, frames of the videos of both, of the inflated network before its first step, and
images of the image weights that training everything leaves behind. Frozen weights are compared with
those of the image run bit by bit. OUTPUT/frozen_images/ gets a JSON file for each seed and model,
and existing ones are not measured again. --quick tries everything out in minutes.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import report
import training_runs as runs
from absl import flags
from flax.traverse_util import flatten_dict, unflatten_dict

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle
from lumiere_jax.models.parameters import Params
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime import errors

COMMAND = "python benchmarks/claims/frozen_images.py"
FOLDER = "frozen_images"
MODELS = {
    "images": "images, before inflation",
    "inflated": "frames, inflated, not trained",
    "frozen": "frames, image weights frozen",
    "all": "frames, all weights trained",
    "images_after_all": "images of the image weights that are left after all were trained",
    "truth": "true frames",
    "chance": "true frames, captions exchanged",
}
ONCE = ("truth", "chance")  # the same for every seed
ATTRIBUTES = ("colour", "shape", "background")
COLOURS = {
    "images": "black", "inflated": "tab:gray", "frozen": "tab:blue", "all": "tab:orange",
    "images_after_all": "tab:red", "truth": "tab:green", "chance": "silver",
}  # fmt: skip
TOLERANCE = 0.05


def frame_scores(videos: np.ndarray, captions: Sequence[str]) -> dict[str, float]:
    """Shares of frames that are right, each judged by itself.

    Args:
      videos: [clips, time, height, width, 3] in [-1, 1].
      captions: one a clip.

    Returns:
      Of each of `ATTRIBUTES`, and of "all" three at once.
    """
    judged = [
        oracle.judge(frame[None], caption)
        for video, caption in zip(videos, captions, strict=True)
        for frame in video
    ]
    right = np.array([[getattr(judgement, name) for name in ATTRIBUTES] for judgement in judged])
    scores = dict(zip(ATTRIBUTES, right.mean(axis=0).tolist(), strict=True))
    return scores | {"all": float(right.all(axis=1).mean())}


def image_part(params: Params) -> Params:
    """The parameters of an inflated network that its image network has."""
    flat = flatten_dict(params)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if not is_temporal(path)})


def differing_bits(images: Params, videos: Params) -> tuple[list[str], int]:
    """Names of the image parameters that are not the same in an inflated network, bit by bit.

    Args:
      images: parameters of the image network.
      videos: of the network that was inflated from it.

    Returns:
      The names, also of what only one of them has, and the number of all image parameters.
    """
    before, after = flatten_dict(images), flatten_dict(image_part(videos))
    names = sorted(before.keys() | after.keys())

    def same(path: tuple[str, ...]) -> bool:
        if path not in before or path not in after:
            return False
        pair = [np.asarray(leaf) for leaf in (before[path], after[path])]
        alike = pair[0].shape == pair[1].shape and pair[0].dtype == pair[1].dtype
        return alike and pair[0].tobytes() == pair[1].tobytes()

    return ["/".join(path) for path in names if not same(path)], len(names)


def images_after_all(image_run: Path, video_run: Path) -> LumierePipeline:
    """The image network with the weights that it has in an inflated one."""
    config = checkpoint.load_config(image_run)
    return LumierePipeline((Stage.from_config(config), image_part(checkpoint.load(video_run)[1])))


def measure(model: str, seed: int, folder: Path, count: int, steps: tuple[int, int]) -> report.Cell:
    """The scores of a model, which is trained if it is not there yet.

    Args:
      model: a key of `MODELS`.
      seed: of the runs and samples.
      folder: of the runs.
      count: of held-out captions.
      steps: of the image run and of those inflated from it.
    """
    truth, captions = runs.held_out(runs.tiny_config("stunet", seed), count)
    if model == "truth":
        return {"scores": frame_scores(truth, captions)}
    if model == "chance":
        return {"scores": frame_scores(truth, [*captions[1:], captions[0]])}
    image_run = runs.image_run(folder, seed, steps[0])
    found = {}
    if model == "images":
        pipeline = LumierePipeline.from_checkpoints(image_run)
    elif model == "inflated":
        config = runs.tiny_config("stunet", seed)
        config.init_from = str(image_run)
        pipeline = runs.untrained_pipeline(config)
    else:
        trainable = "temporal" if model == "frozen" else "all"
        config = runs.video_config(seed, steps[1], trainable)
        video_run = runs.video_run(folder, config, steps[0])
        images, videos = (checkpoint.load(run)[1] for run in (image_run, video_run))
        names, number = differing_bits(images, videos)
        found = {"differing": names, "image_parameters": number}
        if model == "images_after_all":
            pipeline = images_after_all(image_run, video_run)
        else:
            pipeline = LumierePipeline.from_checkpoints(video_run)
    seeds = [seed * 100_000 + number for number in range(count)]
    return found | {
        "scores": frame_scores(pipeline(captions, seeds=seeds, batch_size=32), captions)
    }


def of_model(cells: Sequence[report.Cell], model: str) -> list[report.Cell]:
    """The cells of one model, by seed."""
    return sorted(report.matching(cells, model=model), key=lambda cell: cell["settings"]["seed"])


def mean_score(cell: report.Cell) -> float:
    """The mean of the three attributes."""
    return float(np.mean([cell["scores"][name] for name in ATTRIBUTES]))


def verdict(cells: Sequence[report.Cell]) -> str:
    """Whether frozen weights are the same and frames as good as images, by the stated rule."""
    changes = {
        model: [
            mean_score(video) - mean_score(image)
            for video in of_model(cells, model)
            for image in report.matching(of_model(cells, "images"), seed=video["settings"]["seed"])
        ]
        for model in ("frozen", "all", "images_after_all")
    }
    frozen = of_model(cells, "frozen")
    if not all(changes.values()):
        return "Not decided: some of the models were not measured yet."
    same = sum(not cell["differing"] for cell in frozen)
    median = {model: float(np.median(found)) for model, found in changes.items()}
    holds = same == len(frozen) and median["frozen"] >= -TOLERANCE
    points = {model: f"{100 * value:+.1f}" for model, value in median.items()}
    return (
        f"{'Holds' if holds else 'Does not hold'} here, by the rule that frozen weights stay the "
        f"same bit by bit (as they must; they did in {same} of {len(frozen)} runs) and the mean "
        f"score of frames is at most {100 * TOLERANCE:.0f} points below that of images (median "
        f"over seeds: {points['frozen']} points); with all weights trained it is "
        f"{points['all']} points, and "
        f"{points['images_after_all']} for images of the weights that are left."
    )


def section(output: Path) -> str:
    """The section about this claim for a document in the folder above that of the results."""
    cells = report.read_kept(output / FOLDER)
    settings = cells[0]["settings"]
    head = ["", *ATTRIBUTES, "all three", "image parameters that differ from the image run's"]
    rows = []
    for model, name in MODELS.items():
        if not (found := of_model(cells, model)):
            continue
        scores = [
            report.spread([cell["scores"][key] for cell in found], ".0%")
            for key in (*ATTRIBUTES, "all")
        ]
        bits = [
            f"{len(c['differing'])} of {c['image_parameters']}" for c in found if "differing" in c
        ]
        rows.append([name, *scores, ", ".join(dict.fromkeys(bits)) or "-"])
    seeds = len({cell["settings"]["seed"] for cell in of_model(cells, "images")})
    steps = settings["steps"]
    text = (
        f"Runs of {steps[0]} steps of images and {steps[1]} steps of videos from {seeds} random "
        f"starts; median of the starts, and their range. {settings['captions']} held-out captions, "
        "one image or one clip of 8 frames each; every frame is judged separately, which shows no "
        "direction."
    )
    return report.section(
        title="frozen text-to-image weights keep the quality of images",
        paper=(
            "The paper keeps the weights of the text-to-image model fixed and trains only the "
            "temporal layers that inflation adds, so that what the image model has learnt is kept."
        ),
        command=COMMAND,
        cells=cells,
        body=[text, report.table(head, rows)],
        pictures=[f"{output.name}/{FOLDER}.png"],
        verdict=verdict(cells),
    )


def draw(cells: Sequence[report.Cell], path: Path) -> None:
    """Scores by attribute and model: bars of the medians, dots of the seeds."""
    keys = (*ATTRIBUTES, "all")
    present = [model for model in MODELS if of_model(cells, model)]
    figure, axes = plt.subplots(figsize=(9, 3.8), layout="constrained")
    width = 0.85 / len(present)
    for number, model in enumerate(present):
        found = np.array([[c["scores"][key] for key in keys] for c in of_model(cells, model)])
        place = np.arange(len(keys)) + (number - (len(present) - 1) / 2) * width
        colour = COLOURS[model]
        axes.bar(place, np.median(found, 0), width, color=colour, alpha=0.75, label=MODELS[model])
        axes.plot(place, found.T, "o", color="black", markersize=2)
    axes.set_xticks(range(len(keys)), [*ATTRIBUTES, "all three"])
    axes.set(ylabel="frames that are right", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    report.save_figure(figure, path)


def main(argv: list[str]) -> None:
    """Trains and scores whatever is missing, and makes picture and text of all."""
    del argv
    given, folder = flags.FLAGS, Path(flags.FLAGS.runs)
    output = report.output_folder(given)
    runs.start(folder)
    steps = (4, 4) if given.quick else (given.image_steps, given.steps)
    seeds = [0] if given.quick else [int(seed) for seed in given.seeds]
    count = 8 if given.quick else given.captions
    todo = [(seeds[0], model) for model in ONCE]
    todo += [(seed, model) for seed in seeds for model in MODELS if model not in ONCE]
    shared = {"captions": count, "steps": list(steps)}
    cells = [
        (
            f"{model}_seed{seed}",
            {"model": model, "seed": seed, **shared},
            functools.partial(measure, model, seed, folder, count, steps),
        )
        for seed, model in todo
    ]
    cells = report.all_kept(output / FOLDER, "frozen images", cells)
    draw(cells, output / f"{FOLDER}.png")
    print(section(output))


if __name__ == "__main__":
    runs.define_flags(1250, 128)
    errors.run(main)
