"""Are all frames at once more coherent than key frames with temporal super-resolution?

The paper's main claim (2401.12945, sections 1 and 3), at the size of the tiny configs but for clips
of 16 frames of 16x16. `key_frame_models.py` says what is compared, at equal trained parameters and
training compute, `clip_measures.py` by what.

    python benchmarks/claims/key_frames.py

For each seed one text-to-image run is trained and inflated in both ways; each makes a clip of the
same held-out captions. OUTPUT/key_frames/ gets a JSON file for each seed and method; existing ones
are not measured again. `section` makes its text from those files, and the slices show the clips in
RUNS/clips. --quick tries everything out in minutes.
"""

import functools
import operator
from pathlib import Path

import clip_measures as measures
import key_frame_models as models
import matplotlib.pyplot as plt
import numpy as np
import report
import training_runs as runs
from absl import flags

from lumiere_jax.data.scene_captions import parse_caption
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle
from lumiere_jax.runtime import errors

COMMAND = "python benchmarks/claims/key_frames.py"
FOLDER = "key_frames"
METHODS = {
    "truth": "true clips",
    "all_frames": "all frames at once",
    "cascade": "key frames + temporal super-resolution",
    "untrained": "all frames at once, untrained",
}
COMPARED = ("all_frames", "cascade")
COLOURS = {
    "truth": "black", "all_frames": "tab:blue", "cascade": "tab:orange", "untrained": "tab:gray",
}  # fmt: skip
FIGURES = {
    "path_error": ("trajectory error against the caption, frame widths, RMS", ".3f"),
    "bend": ("distance from any straight, even path, frame widths, RMS", ".3f"),
    "direction": ("direction right, by the oracle", ".0%"),
    "colour": ("colour right, by the oracle", ".0%"),
    "colour_change": ("colour distance between frames", ".3f"),
    "colour_kept": ("frames whose colour reads as the clip's majority", ".0%"),
    "shape_kept": ("frames whose shape reads as the clip's majority", ".0%"),
    "size_variation": ("variation of size over the clip", ".3f"),
    "seen": ("frames that show an object", ".1%"),
    "seams": ("neighbour-frame difference at key frames / elsewhere", ".2f"),
    "turns_at_key_frames": ("change of velocity at inner key frames, frame widths", ".4f"),
    "turns_elsewhere": ("change of velocity elsewhere, frame widths", ".4f"),
}
HIGHER_IS_BETTER = ("direction", "colour", "colour_kept", "shape_kept", "seen")


def measure_clips(videos: np.ndarray, captions: list[str]) -> report.Cell:
    """All figures of the clips of one seed and method.

    Args:
      videos: `[clips, 16, height, width, 3]`.
      captions: one a clip.
    """
    tracks = [measures.track(video) for video in videos]
    directions = [parse_caption(caption).objects[0].direction for caption in captions]
    judged = [oracle.judge(*pair) for pair in zip(videos, captions, strict=True)]
    read = [measures.read_frames(video) for video in videos]
    differences = np.mean([measures.neighbour_differences(video) for video in videos], axis=0)
    turns = np.nanmean([measures.changes_of_velocity(found) for found in tracks], axis=0)
    inner = [number - 1 for number in models.KEY_FRAMES[1:-1]]  # turns begin at frame 1
    errors_of_path = map(measures.path_error, tracks, directions)
    figures = {
        "path_error": np.nanmean(list(errors_of_path)),
        "bend": np.nanmean([measures.bend(found) for found in tracks]),
        "direction": np.mean([judgement.direction for judgement in judged]),
        "colour": np.mean([judgement.colour for judgement in judged]),
        "colour_change": np.nanmean([measures.colour_change(found) for found in tracks]),
        "colour_kept": np.mean([measures.majority_share(colours) for _, colours in read]),
        "shape_kept": np.mean([measures.majority_share(shapes) for shapes, _ in read]),
        "size_variation": np.nanmean([measures.size_variation(found) for found in tracks]),
        "seen": np.mean([found.seen.mean() for found in tracks]),
        "seams": measures.at_key_frames(differences, models.KEY_FRAMES),
        "turns_at_key_frames": turns[inner].mean(),
        "turns_elsewhere": np.delete(turns, inner).mean(),
    }
    return {
        "figures": {name: float(value) for name, value in figures.items()},
        "neighbours": differences.tolist(),
        "turns": turns.tolist(),
    }


def make_clips(
    method: str,
    folder: Path,
    seed: int,
    captions: list[str],
    budget: models.Budget,
    image_steps: int,
) -> np.ndarray:
    """The clips of a seed and method; trains what is missing."""
    seeds = [seed * 100_000 + number for number in range(len(captions))]
    config = models.all_frames_config(seed, budget.steps[0])
    if method == "truth":
        return runs.held_out(config, len(captions))[0]
    image_run = runs.image_run(folder, seed, image_steps)
    if method == "untrained":
        config.init_from = str(image_run)
        return runs.untrained_pipeline(config)(captions, seeds=seeds, batch_size=32)
    if method == "all_frames":
        workdir = models.train_all_frames(folder, image_run, seed, budget)
        pipeline = LumierePipeline.from_checkpoints(workdir)
        return pipeline(captions, seeds=seeds, batch_size=32)
    workdirs = models.train_cascade(folder, image_run, seed, budget)
    keys, between = (LumierePipeline.from_checkpoints(workdir) for workdir in workdirs)
    return models.sample_cascade(keys, between, captions, seeds)


def of_method(results: list[report.Cell], method: str) -> list[report.Cell]:
    """The results of one method."""
    return report.matching(results, method=method)


def section(output: Path) -> str:
    """The section about this claim for a document in the folder above that of the results.

    Args:
      output: folder of the results.
    """
    results = report.read_kept(output / FOLDER)
    present = {name: runs for name in METHODS if (runs := of_method(results, name))}
    head = ["", *(METHODS[name] for name in present), "all frames at once better"]
    rows = [
        [
            label,
            *(report.spread([r["figures"][key] for r in runs], form) for runs in present.values()),
            wins(results, key),
        ]
        for key, (label, form) in FIGURES.items()
    ]
    settings = results[0]["settings"]
    seeds = len({result["settings"]["seed"] for result in of_method(results, COMPARED[0])})
    text = (
        f"Clips of {models.FRAMES} frames of 16×16 of {settings['captions']} held-out captions. "
        f"Median of {seeds} random starts, and their range; true clips and the untrained network "
        "once. The last column counts the starts in which all frames at once did better: a higher "
        "share, a ratio nearer to 1, or otherwise a lower figure. Paths, colours and sizes come "
        "from the frames that show an object. The cost of training the networks is equal "
        f"(without optimizer and sampling): {results[0]['budget']}"
    )
    return report.section(
        title="all frames at once are more coherent than key frames + temporal super-resolution",
        paper=(
            "The paper makes all frames in one pass, where earlier work makes distant key frames "
            "and fills in the frames between them segment by segment, and says that this is what "
            "makes its motion globally coherent."
        ),
        command=COMMAND,
        cells=results,
        body=[text, report.table(head, rows)],
        pictures=[f"{output.name}/{name}.png" for name in ("key_frames", "key_frames_slices")],
        verdict=verdict(results),
    )


DECISIVE = ("path_error", "bend", "colour_change", "shape_kept", "size_variation", "seen")
OF_CUTS = ("seams", "turns_at_key_frames", "turns_elsewhere")
LEARNT = 0.5  # share of right directions, below which a network has hardly learnt to move


def verdict(results: list[report.Cell]) -> str:
    """For how many figures all frames at once did better, by the rule that it states."""
    counts = {key: wins(results, key) for key in DECISIVE}
    if all(text.endswith(" of 0") for text in counts.values()):
        return "Not decided: there is no pair of runs yet."
    always = [key for key, text in counts.items() if len(set(text.split(" of "))) == 1]
    most = len(DECISIVE)
    word = "Holds" if len(always) == most else "Does not hold" if not always else "Holds partly"
    details = "; ".join(f"{FIGURES[key][0].split(',')[0]}: {text}" for key, text in counts.items())
    return (
        f"{word} here, by the rule that all frames at once must do better in every start by each "
        f"of {most} figures of coherence (an object must be seen in no fewer "
        f"frames); it does for {len(always)} ({details}). {_beside_the_rule(results)}"
    )


def _beside_the_rule(results: list[report.Cell]) -> str:
    counts = "; ".join(f"{FIGURES[key][0].split(',')[0]}: {wins(results, key)}" for key in OF_CUTS)
    text = f"Of what shows where clips were cut, not part of the rule, it did better in: {counts}."
    shares = [
        np.median([r["figures"]["direction"] for r in of_method(results, m)]) for m in COMPARED
    ]
    if min(shares) < LEARNT:
        names = " and ".join(
            METHODS[m] for m, share in zip(COMPARED, shares, strict=True) if share < LEARNT
        )
        text += (
            f" After so little training, {names} had not learnt to move as captions say (direction "
            f"right in {min(shares):.0%}); what longer training would decide is not known."
        )
    return text


def wins(results: list[report.Cell], key: str) -> str:
    """In how many pairs of runs all frames at once had the better figure."""
    pairs = {}
    for result in results:
        settings = result["settings"]
        if settings["method"] in COMPARED:
            pairs.setdefault(settings["seed"], {})[settings["method"]] = result["figures"][key]
    pairs = [pair for pair in pairs.values() if len(pair) == len(COMPARED)]

    def badness(value: float) -> float:
        if key == "seams":
            return abs(value - 1)
        return -value if key in HIGHER_IS_BETTER else value

    is_better = operator.le if key == "seen" else operator.lt  # all can be seen by both
    better = sum(
        is_better(*(badness(pair[m]) for m in ("all_frames", "cascade"))) for pair in pairs
    )
    return f"{better} of {len(pairs)}"


def draw_figures(results: list[report.Cell], path: Path) -> None:
    """Differences and turns over the clip, and the main figures seed by seed."""
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    curves = {"neighbours": "neighbour-frame difference", "turns": "change of velocity"}
    for axes, (key, title) in zip(panels[:2], curves.items(), strict=True):
        for method, name in METHODS.items():
            found = np.array([result[key] for result in of_method(results, method)])
            if not len(found):
                continue
            # A difference stands between its two frames, a turn at its frame.
            frames = np.arange(found.shape[1]) + (0.5 if key == "neighbours" else 1)
            axes.plot(frames, np.median(found, 0), ".-", color=COLOURS[method], label=name)
            axes.fill_between(frames, found.min(0), found.max(0), color=COLOURS[method], alpha=0.2)
        for number in models.KEY_FRAMES:
            axes.axvline(number, color="black", lw=0.6, ls=":")
        axes.set(xlabel="frame (dotted: key frames)", title=title, ylim=(0, None))
        axes.set_xticks(range(0, models.FRAMES, 5))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for axes, key in zip(panels[2:], ("path_error", "colour_change"), strict=True):
        for row, method in enumerate(METHODS):
            values = [result["figures"][key] for result in of_method(results, method)]
            axes.plot(values, [row] * len(values), "o", color=COLOURS[method], alpha=0.7)
        names = [name.replace(" + ", "\n+ ").replace(", ", ",\n") for name in METHODS.values()]
        axes.set_yticks(range(len(METHODS)), names, fontsize=7)
        axes.set_ylim(-0.5, len(METHODS) - 0.5)
        axes.set_title(FIGURES[key][0], fontsize=9)
        axes.set_xlim(0, None)
        axes.invert_yaxis()
    report.save_figure(figure, path)


def straight_captions(captions: list[str], number: int) -> list[int]:
    """The first captions whose object moves along an axis."""
    axial = ("left", "right", "up", "down")
    directions = [parse_caption(caption).objects[0].direction for caption in captions]
    return [index for index, direction in enumerate(directions) if direction in axial][:number]


def draw_slices(clips: dict[str, np.ndarray], captions: list[str], path: Path) -> None:
    """The line of pixels through each object, over time from top to bottom."""
    chosen = straight_captions(captions, 6)
    size = (2.3 * max(len(chosen), 1), 2.2 * len(clips))
    figure, panels = plt.subplots(
        len(clips), len(chosen), figsize=size, layout="constrained", squeeze=False
    )
    for row, (method, videos) in enumerate(clips.items()):
        for column, index in enumerate(chosen):
            axes, video = panels[row, column], videos[index]
            direction = parse_caption(captions[index]).objects[0].direction
            along_x = direction in ("left", "right")
            lines = measures.slice_in_time(video, measures.track(video), along_x)
            axes.imshow(np.clip((lines + 1) / 2, 0, 1), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks(models.KEY_FRAMES)
            if row == 0:
                words = captions[index].split()
                half = len(words) // 2
                label = f"{' '.join(words[:half])}\n{' '.join(words[half:])}"
                axes.set_title(f"{label}\n({'row' if along_x else 'column'} over time)", fontsize=6)
        panels[row, 0].set_ylabel(METHODS[method].replace(" + ", "\n+ "), fontsize=8)
    report.save_figure(figure, path)


def main(argv: list[str]) -> None:
    """Trains and samples whatever is missing, and makes pictures and text of all."""
    del argv
    given = flags.FLAGS
    quick, folder, output = given.quick, Path(given.runs), report.output_folder(given)
    runs.start(folder)
    own = (given.steps, given.captions, given.image_steps)
    steps, number, image_steps = (20, 4, 4) if quick else own
    seeds = [0] if quick else [int(seed) for seed in given.seeds]
    budget = models.budget(steps, given.key_share)
    budget.check()
    print(budget, flush=True)
    captions = runs.held_out(models.all_frames_config(0, steps), number)[1]
    cells = [(seeds[0], "truth"), (seeds[0], "untrained")]
    cells += [(seed, method) for seed in seeds for method in COMPARED]
    shared = {"captions": number, "image_steps": image_steps, "steps": list(budget.steps)}

    def clips_of(method: str, seed: int) -> Path:
        steps_of_all = "_".join(map(str, (image_steps, *budget.steps)))
        return folder / "clips" / f"{method}_{steps_of_all}_seed{seed}_{number}.npy"

    def compute(method: str, seed: int) -> report.Cell:
        make = functools.partial(make_clips, method, folder, seed, captions, budget, image_steps)
        videos = runs.sampled(clips_of(method, seed), make)
        return measure_clips(videos, captions) | {"budget": str(budget)}

    cells = [
        (
            f"{method}_seed{seed}",
            {"method": method, "seed": seed, **shared},
            functools.partial(compute, method, seed),
        )
        for seed, method in cells
    ]
    results = report.all_kept(output / FOLDER, "key frames", cells)
    draw_figures(results, output / "key_frames.png")
    kept = {method: clips_of(method, seeds[0]) for method in METHODS}
    if all(path.is_file() for path in kept.values()):  # results may outlive the clips
        shown = {method: np.load(path) for method, path in kept.items()}
        draw_slices(shown, captions, output / "key_frames_slices.png")
    print(section(output))


if __name__ == "__main__":
    runs.define_flags(900, 128, "all frames at once")
    help_text = "Share of the cascade's compute that its model of key frames has."
    flags.DEFINE_float("key_share", 0.5, help_text, 0.05, 0.95)
    errors.run(main)
