"""Do overlapping windows remove the spikes at window borders, and what does that cost?

Temporal MultiDiffusion (2401.12945, section 3.2 and its figure of neighbouring frames), with the
shipped super-resolution network.

    python benchmarks/claims/window_overlap.py

Held-out clips of 16 frames are refined in windows of several lengths and overlaps: true clips after
down-sampling ("true"), and clips that the base makes of the same captions ("made"). The measure is
the mean squared difference of neighbouring frames of the error, the refined clip minus the true
one, or, for made clips, of the detail, the refined clip minus its up-sampled input. So neither
motion nor seams of the input count. The starting noise is drawn once per clip, even if windows do
not overlap. OUTPUT/window_overlap/ gets a JSON file for each setting; existing ones are not
measured again. --quick tries everything out in minutes.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import report
import training_runs as runs
from absl import flags

from lumiere_jax.cascade import denoising
from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.diffusion.low_resolution import downsample, upsample_low_resolution
from lumiere_jax.diffusion.multidiffusion import frame_differences, windows
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime import errors

COMMAND = "python benchmarks/claims/window_overlap.py"
FOLDER = "window_overlap"
INPUTS = {"true": "true clips", "made": "clips made by the base"}
BATCH = 4
LEAST_SPIKE = 0.1  # excess at borders, below which there is nothing to remove
COLOURS = {0: "tab:red", 1: "tab:orange", 2: "tab:blue", 3: "tab:purple", 4: "tab:green"}


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a clip is cut: window length and overlap in frames, and "uniform" or "linear"."""

    window: int
    overlap: int
    weights: str

    def starts(self, frames: int) -> tuple[int, ...]:
        """First frames of the windows over a clip."""
        return windows(frames, self.window, self.overlap)


def grid(frames: int, lengths: Sequence[int], overlaps: Sequence[int]) -> list[Windows]:
    """All settings: without overlap weights make no difference; one window holds the whole clip."""
    settings = [Windows(frames, 0, "uniform")]
    for length in lengths:
        for overlap in overlaps:
            kinds = ("uniform", "linear") if overlap else ("uniform",)
            if overlap < length < frames:
                settings += [Windows(length, overlap, kind) for kind in kinds]
    return settings


def borders(frames: int, window: int, overlap: int) -> np.ndarray:
    """Where the set of windows that hold a frame changes to the next, bool [frames - 1]."""
    starts = np.array(windows(frames, window, overlap))[:, None]
    member = (starts <= np.arange(frames)) & (np.arange(frames) < starts + window)
    return (member[:, :-1] != member[:, 1:]).any(axis=0)


def spike(differences: np.ndarray, at: np.ndarray, draws: int = 1000) -> dict[str, float]:
    """How much higher differences are at some positions than elsewhere.

    Args:
      differences: [clips, positions], not negative.
      at: the positions, bool [positions].
      draws: bootstrap samples of clips, for the interval.

    Returns:
      Means "border" and "elsewhere" over clips and positions, their "ratio", and the "low" and
      "high" end of its 95% interval; NaN where there is nothing to compare.
    """
    if not at.any() or at.all():
        return dict.fromkeys(("border", "elsewhere", "ratio", "low", "high"), float("nan"))
    pair = np.stack([differences[:, at].mean(axis=1), differences[:, ~at].mean(axis=1)], axis=1)
    drawn = np.random.default_rng(0).integers(len(pair), size=(draws, len(pair)))
    means = pair[drawn].mean(axis=1)
    low, high = np.percentile(means[:, 0] / means[:, 1], (2.5, 97.5))
    border, elsewhere = pair.mean(axis=0)
    ratio = border / elsewhere
    found = {"border": border, "elsewhere": elsewhere, "ratio": ratio, "low": low, "high": high}
    return {name: float(value) for name, value in found.items()}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is refined: low-resolution clips, what the result is compared with, and captions."""

    low: np.ndarray
    reference: np.ndarray
    captions: list[str]


@functools.cache
def inputs(kind: str, base: str, ssr: str, frames: int, clips: int) -> Inputs:
    """The clips of a kind, see the module."""
    config = checkpoint.load_config(ssr)
    config.data.num_frames = frames
    truth, captions = runs.held_out(config, clips)
    if kind == "true":
        low = np.asarray(downsample(truth, config.ssr.factor))
        return Inputs(low, truth, captions)
    low = LumierePipeline.from_checkpoints(base)(captions, num_frames=frames, batch_size=BATCH)
    enlarge = functools.partial(
        upsample_low_resolution,
        size=truth.shape[2:4],
        method=Stage.from_config(config).ssr.upsampling,
    )
    return Inputs(low, np.asarray(enlarge(low)), captions)


def measure(
    config: ConfigDict, params: Params, given: Inputs, cut: Windows, steps: int
) -> report.Cell:
    """Refines all clips in one way; the first batch, which compiles, is not timed."""
    config = config.copy_and_resolve_references()
    config.ssr.window, config.ssr.overlap, config.ssr.weights = dataclasses.astuple(cut)
    stage, frames = Stage.from_config(config), given.low.shape[1]
    options = SamplingOptions.from_config(config, num_steps=steps)
    sampler = StageSampler(stage, options)
    seconds, plain, changes = [], [], []
    for begin in range(0, len(given.captions), BATCH):
        part = slice(begin, begin + BATCH)
        text, mask = stage.text_encoder(given.captions[part])
        keys = sample_keys(list(range(begin, begin + len(text))), 1)
        clock = time.monotonic()
        refined = sampler(params, denoising.Inputs(text, mask, keys, video=given.low[part]))
        seconds.append((time.monotonic() - clock) / len(text))
        refined = np.asarray(refined)
        plain.append(np.asarray(frame_differences(refined)))
        changes.append(np.asarray(frame_differences(refined - given.reference[part])))
    calls = len(cut.starts(frames)) * steps * (1 if options.guidance_scale == 1 else 2)
    return {
        "windows": len(cut.starts(frames)),
        "network_calls": calls,
        "seconds_a_clip": float(np.median(seconds[1:])) if seconds[1:] else None,
        "differences": np.concatenate(changes).tolist(),
        "plain_differences": np.concatenate(plain).tolist(),
    }


def spikes(cell: report.Cell) -> dict[str, float]:
    """The spike of a cell at the borders of its own windows."""
    settings = cell["settings"]
    at = borders(settings["frames"], settings["window"], settings["overlap"])
    return spike(np.array(cell["differences"]), at)


def meeting(cell: report.Cell, window: int) -> dict[str, float]:
    """The spike of a cell where windows of some length meet if they do not overlap."""
    return spike(np.array(cell["differences"]), borders(cell["settings"]["frames"], window, 0))


def lengths_of(cells: Sequence[report.Cell]) -> list[int]:
    """The lengths of windows that are shorter than the clip."""
    found = {c["settings"]["window"] for c in cells}
    return sorted(found - {cells[0]["settings"]["frames"]})


def make_rows(cells: Sequence[report.Cell]) -> list[list[str]]:
    """Rows of the table, each input and length of windows with the whole clip at once first."""
    rows = []
    for kind in INPUTS:
        of_kind = report.matching(cells, input=kind)
        for length in lengths_of(cells):
            whole = [c for c in of_kind if c["settings"]["window"] == c["settings"]["frames"]]
            cut = sorted(
                report.matching(of_kind, window=length),
                key=lambda c: (c["settings"]["overlap"], c["settings"]["weights"] == "linear"),
            )
            rows += [_row(cell, length) for cell in (*whole, *cut)]
    return rows


def _row(cell: report.Cell, length: int) -> list[str]:
    settings, own, there = cell["settings"], spikes(cell), meeting(cell, length)
    is_whole = settings["window"] == settings["frames"]
    return [
        INPUTS[settings["input"]],
        str(length),
        "all frames at once" if is_whole else str(settings["overlap"]),
        settings["weights"] if settings["overlap"] else "-",
        f"{there['elsewhere']:.2e}",
        "-" if is_whole else f"{own['ratio']:.2f} ({own['low']:.2f} to {own['high']:.2f})",
        f"{there['ratio']:.2f} ({there['low']:.2f} to {there['high']:.2f})",
        str(cell["windows"]),
        str(cell["network_calls"]),
        "not taken" if cell["seconds_a_clip"] is None else f"{cell['seconds_a_clip']:.2f} s",
    ]


HEAD = (
    "clips", "window", "overlap", "weights", "frame difference of the error inside windows",
    "spike at its own borders (95% interval)", "spike where windows without overlap meet",
    "windows", "network calls", "time a clip",
)  # fmt: skip


def judge(cells: Sequence[report.Cell], kind: str, window: int) -> tuple[bool, bool]:
    """Whether there is a spike without overlap, and whether an overlap of 2 frames removes it."""
    found = report.matching(cells, input=kind, window=window)
    without = meeting(report.matching(found, overlap=0)[0], window)["ratio"] - 1
    excess = [
        max(meeting(cell, window)["ratio"], spikes(cell)["ratio"]) - 1
        for cell in report.matching(found, overlap=2, weights="uniform")
    ]
    there = without >= LEAST_SPIKE
    return there, there and bool(excess) and excess[0] < without / 2


def verdict(cells: Sequence[report.Cell]) -> str:
    """In how many settings the claim holds, by the rule that it states."""
    pairs = [(kind, window) for kind in INPUTS for window in lengths_of(cells)]
    pairs = [pair for pair in pairs if report.matching(cells, input=pair[0], window=pair[1])]
    judged = [judge(cells, *pair) for pair in pairs]
    there, removed = (sum(part) for part in zip(*judged, strict=True))
    word = "Holds" if removed == len(judged) else "Does not hold" if not removed else "Holds partly"
    return (
        f"{word} here: without overlap the error changes at least {LEAST_SPIKE:.0%} more where "
        f"windows meet than elsewhere in {there} of {len(judged)} settings (kind of clips, length "
        f"of windows), and an overlap of 2 frames with uniform weights more than halves that "
        f"excess, also at its own borders, in {removed} of them."
    )


def section(output: Path) -> str:
    """The section about this claim for a document in the folder above that of the results."""
    cells = report.read_kept(output / FOLDER)
    settings = cells[0]["settings"]
    text = (
        f"{settings['clips']} held-out captions, clips of {settings['frames']} frames refined from "
        f"{settings['low']}×{settings['low']} to {settings['high']}×{settings['high']} in "
        f"{settings['steps']} steps (the network was trained on windows of "
        f"{settings['trained_window']} frames). The error is the refined clip minus the true one "
        "or, for generated clips, minus the up-sampled input. A spike is the mean squared "
        "difference of neighbouring frames of the error at window borders, where the set of "
        "windows that contain a frame changes, divided by that elsewhere; 1 means no spike. The "
        "interval is a bootstrap over clips. In all rows noise is drawn once per clip, and dynamic "
        "thresholding works on the whole clip, so windows without overlap are not fully "
        "independent."
    )
    return report.section(
        title="overlapping windows remove the spikes at window borders",
        paper=(
            "The paper refines a video in overlapping segments, at every denoising step, and "
            "averages their predictions; without overlap, its figure shows spikes of the "
            "difference of neighbouring frames at the borders of segments, and with it none."
        ),
        command=COMMAND,
        cells=cells,
        body=[text, report.table(HEAD, make_rows(cells))],
        pictures=[f"{output.name}/{FOLDER}.png"],
        verdict=verdict(cells),
    )


def draw(cells: Sequence[report.Cell], path: Path) -> None:
    """Curves over the clip, one for each overlap, with dots at the borders of its windows."""
    lengths = lengths_of(cells)
    figure, panels = plt.subplots(
        len(INPUTS), len(lengths), figsize=(5.5 * len(lengths), 6.5), layout="constrained",
        squeeze=False, sharey="row",
    )  # fmt: skip
    for row, kind in enumerate(INPUTS):
        for column, length in enumerate(lengths):
            _draw_panel(panels[row, column], report.matching(cells, input=kind), length)
            panels[row, column].set_title(f"{INPUTS[kind]}, windows of {length}", fontsize=10)
        panels[row, 0].set_ylabel("neighbour-frame difference of the error")
    shown = [panel.get_legend_handles_labels() for panel in panels.flat]
    lines = {name: line for lines, names in shown for line, name in zip(lines, names, strict=True)}
    figure.legend(
        list(lines.values()), list(lines), title="overlap", loc="outside right upper", frameon=False
    )
    for axes in panels[-1]:
        axes.set_xlabel("frame (dotted: where windows without overlap meet)")
    report.save_figure(figure, path)


def _draw_panel(axes: Any, cells: Sequence[report.Cell], length: int) -> None:
    for cell in cells:
        settings = cell["settings"]
        frames, window, overlap = (settings[k] for k in ("frames", "window", "overlap"))
        if window not in (length, frames):
            continue
        curve, position = np.mean(cell["differences"], axis=0), np.arange(frames - 1) + 0.5
        whole, linear = window == frames, settings["weights"] == "linear"
        colour = "black" if whole else COLOURS.get(overlap, "tab:gray")
        label = "all at once" if whole else f"{overlap}{', linear' if linear else ''}"
        axes.plot(position, curve, "--" if linear else "-", color=colour, lw=1.2, label=label)
        at = borders(frames, window, overlap)
        axes.plot(position[at], curve[at], "o", color=colour, markersize=3)
    for position in np.flatnonzero(borders(frames, length, 0)):
        axes.axvline(position + 0.5, color="black", lw=0.7, ls=":")
    axes.set_ylim(0, None)


def main(argv: list[str]) -> None:
    """Measures whatever is missing, and makes picture and text of all."""
    del argv
    given, output = flags.FLAGS, report.output_folder(flags.FLAGS)
    runs.start(Path(given.runs))
    lengths, overlaps = ([int(x) for x in values] for values in (given.windows, given.overlaps))
    clips, config_steps = (2 * BATCH, 2) if given.quick else (given.clips, given.steps)
    config, params, _ = checkpoint.load(given.ssr)
    steps = config_steps or config.sampling.num_steps
    marks = {"ssr": checkpoint.fingerprint(params)}
    marks["base"] = checkpoint.fingerprint(checkpoint.load(given.base)[1])
    todo = [(kind, cut) for kind in INPUTS for cut in grid(given.frames, lengths, overlaps)]
    high = config.data.resolution
    shared = {"frames": given.frames, "clips": clips, "steps": steps}
    shared |= {"trained_window": config.ssr.window, **marks}
    shared |= {"low": high // config.ssr.factor, "high": high}

    def compute(kind: str, cut: Windows) -> report.Cell:
        clips_in = inputs(kind, given.base, given.ssr, given.frames, clips)
        return measure(config, params, clips_in, cut, steps)

    cells = [
        (
            f"{kind}_window{cut.window}_overlap{cut.overlap}_{cut.weights}",
            {"input": kind, **dataclasses.asdict(cut), **shared},
            functools.partial(compute, kind, cut),
        )
        for kind, cut in todo
    ]
    cells = report.all_kept(output / FOLDER, "window overlap", cells)
    draw(cells, output / f"{FOLDER}.png")
    print(section(output))


def define_flags() -> None:
    """Defines the flags; not on import, so that one process can have several scripts."""
    flags.DEFINE_string("base", "weights/small/stunet", "A run of the stage stunet.")
    flags.DEFINE_string("ssr", "weights/small/ssr", "A run of the stage ssr.")
    flags.DEFINE_string("runs", "runs/claims", "Folder that keeps compiled programs.")
    flags.DEFINE_string("output", report.OUTPUT, "Folder of the results.")
    flags.DEFINE_integer("frames", 16, "Frames of a clip.", lower_bound=2)
    flags.DEFINE_integer("clips", 8, "Held-out captions.", lower_bound=2 * BATCH)
    flags.DEFINE_integer("steps", 0, "Denoising steps; 0 for those of the run.", lower_bound=0)
    flags.DEFINE_list("windows", ["4", "8"], "Lengths of windows.")
    flags.DEFINE_list("overlaps", ["0", "1", "2", "4"], "Frames that windows share.")
    flags.DEFINE_bool("quick", False, "A few clips and steps, to try it out.")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
