"""Does temporal down-sampling make many more frames affordable?

The space-time U-Net halves the frame rate wherever it halves the size (2401.12945, section 3.1).
It is compared with the same network without (`model.temporal_resampling=False`), which works at the
full frame rate at every level, at several numbers of frames.

    python benchmarks/claims/temporal_downsampling.py --part=cpu
    python benchmarks/claims/temporal_downsampling.py --part=tpu

The first compiles and runs a training step and a forward pass of configs/stunet.py:tiny and :small
on this machine, each in a process of its own, whose peak memory is noted. The second compiles the
training step of configs/stunet.py:full for a slice of v5p, without a TPU; a step takes half an hour
on 2 cores, and one that does not fit is a result as well. OUTPUT/temporal_downsampling/ gets a JSON
file for each cell; existing ones are not measured again. --part=report makes picture and text from
these files. --quick tries everything out in minutes.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import report
from absl import flags

from lumiere_jax.planning import topology
from lumiere_jax.runtime import errors

COMMAND = "python benchmarks/claims/temporal_downsampling.py --part=cpu (and --part=tpu)"
FOLDER = "temporal_downsampling"
FRAMES = (8, 16, 32, 64, 80)
MODES = {"train": "training step", "forward": "forward pass"}
PLACES = {
    "tiny": "`tiny`, 16×16, on the CPU",
    "small": "`small`, 32×32, on the CPU",
    "full": "`full`, 128×128, compiled for v5p",
}
REPORTED_RATIO = 1.5  # the memory of five times the frames, as the notes report
MANY, FEW = 80, 16


def name_of(settings: dict[str, Any]) -> str:
    """The name of a cell."""
    kind = "with" if settings["resampling"] else "without"
    return f"{settings['variant']}_{settings['mode']}_{settings['frames']:03d}_{kind}"


def find(
    cells: Sequence[report.Cell], variant: str, mode: str, frames: int, resampling: bool
) -> report.Cell | None:
    """A cell by its settings, or None."""
    found = report.matching(cells, variant=variant, mode=mode, frames=frames, resampling=resampling)
    return found[0] if found else None


def memory_ratio(cells: Sequence[report.Cell], variant: str, mode: str) -> float | None:
    """Memory of 80 frames with down-sampling by that of 16 without; None if one is not known."""
    pair = [find(cells, variant, mode, MANY, True), find(cells, variant, mode, FEW, False)]
    if any(cell is None or not cell.get("needed") for cell in pair):
        return None
    return pair[0]["needed"] / pair[1]["needed"]


def verdict(cells: Sequence[report.Cell]) -> str:
    """Where 80 frames with take at most the reported share of the memory of 16 without."""
    ratios = {
        (variant, mode): ratio
        for variant in PLACES
        for mode in MODES
        if (ratio := memory_ratio(cells, variant, mode)) is not None
    }
    if not ratios:
        return f"Not decided: {FEW} frames without and {MANY} with were not both measured."
    number = sum(ratio <= REPORTED_RATIO for ratio in ratios.values())
    word = "Holds" if number == len(ratios) else "Does not hold" if not number else "Holds partly"
    details = ", ".join(
        f"`{variant}`, {MODES[mode]}: {ratio:.2f}×" for (variant, mode), ratio in ratios.items()
    )
    return (
        f"{word} here, by the rule that {MANY} frames with temporal down-sampling take at most "
        f"{REPORTED_RATIO}× the memory of {FEW} without, which the notes report; this is so in "
        f"{number} of {len(ratios)} cases ({details})."
    )


HEAD = (
    "frames", "temporal down-sampling", "parameters", "TFLOP per clip", "memory: arguments + rest",
    "growth of the process", "step",
)  # fmt: skip


def make_rows(cells: Sequence[report.Cell], variant: str, mode: str) -> list[list[str]]:
    """Rows of one table, and below each pair the ratio of the two."""
    rows = []
    for frames in sorted({cell["settings"]["frames"] for cell in cells}):
        pair = [find(cells, variant, mode, frames, resampling) for resampling in (False, True)]
        rows += [_row(cell) for cell in pair if cell]
        if all(cell and cell.get("needed") for cell in pair):
            rows.append(_ratio_row(frames, *pair))
    return rows


def _row(cell: report.Cell) -> list[str]:
    settings = cell["settings"]
    peak, seconds = cell.get("process_growth"), cell.get("step_seconds")
    known = "trainable" in cell
    return [
        str(settings["frames"]),
        "with" if settings["resampling"] else "without",
        f"{(cell['trainable'] + cell['frozen']) / 1e6:.2f}M" if known else "-",
        f"{cell['flops'] / settings.get('clips_a_chip', settings['batch']) / 1e12:.4g}"
        if known
        else "-",
        memory(cell),
        f"{peak / 2**30:.2f} GiB" if peak else "-",
        f"{seconds:.3g} s" if seconds else "-",
    ]


def memory(cell: report.Cell) -> str:
    """Memory of a step, in GiB, or that it does not fit."""
    needed = cell.get("needed")
    text = "?" if needed is None else f"{needed / 2**30:.3g} GiB"
    if not cell["fits"]:
        limit = f" of {cell['hbm'] / 2**30:.0f} GiB" if cell.get("hbm") else ""
        return f"**does not fit**: {text}{limit}"
    rest = needed - cell["arguments"]
    return f"{text}: {cell['arguments'] / 2**30:.3g} + {rest / 2**30:.3g}"


def _ratio_row(frames: int, without: report.Cell, with_it: report.Cell) -> list[str]:
    def ratio(key: str) -> str:
        both = with_it.get(key) and without.get(key)
        return f"{with_it[key] / without[key]:.2f}×" if both else "-"

    parameters = [cell.get("trainable", 0) + cell.get("frozen", 0) for cell in (with_it, without)]
    share = f"{parameters[0] / parameters[1]:.2f}×" if parameters[1] else "-"
    rest = [cell["needed"] - cell["arguments"] for cell in (with_it, without)]
    needed = f"{ratio('needed')} (all but arguments: {rest[0] / rest[1]:.2f}×)"
    figures = (ratio("flops"), needed, ratio("process_growth"), ratio("step_seconds"))
    return [str(frames), "with / without", share, *figures]


def section(output: Path) -> str:
    """The section about this claim for a document in the folder above that of the results."""
    cells = report.read_kept(output / FOLDER)
    body = [
        "Both networks at every number of frames. Memory is the compiler's figure for the "
        "arguments of the step (state and batch) and for the rest. On the CPU, the growth of the "
        "process is its peak minus what it had before the network was created, with compilation. "
        "Operations are those that the mathematics needs (lumiere_jax/planning/flops.py). Times "
        "are medians on the CPU and, for a TPU, the compiler's estimates; no TPU was used. There, "
        "figures are for one chip."
    ]
    for variant, place in PLACES.items():
        for mode, name in MODES.items():
            if rows := make_rows(cells, variant, mode):
                batch = report.matching(cells, variant=variant, mode=mode)[0]["settings"]
                clips = batch.get("clips_a_chip", batch["batch"])
                title = f"A {name} of {place}, {clips:g} clip{'s' * (clips != 1)}"
                if variant == "full":
                    title += f" per chip of {batch['topology']}, recomputation as in the config"
                body += [f"{title}:", report.table(HEAD, rows)]
    return report.section(
        title="temporal down-sampling makes many more frames affordable",
        paper=(
            "The paper computes most of the network at a coarse frame rate, which is what lets it "
            "make 80 frames at once; notes on it report five times the frames for 1.5 times the "
            f"memory, which is read here as {MANY} frames with against {FEW} without."
        ),
        command=COMMAND,
        cells=cells,
        body=body,
        pictures=[f"{output.name}/{FOLDER}.png"],
        verdict=verdict(cells),
    )


def draw(cells: Sequence[report.Cell], path: Path) -> None:
    """Operations, memory and time by frames, a row of panels for each network and kind of step."""
    present = [(v, m) for v in PLACES for m in MODES if report.matching(cells, variant=v, mode=m)]
    columns = {"flops": ("TFLOP", 1e12), "needed": ("memory, GiB", 2**30),
               "step_seconds": ("time, s", 1.0)}  # fmt: skip
    figure, panels = plt.subplots(
        len(present), 3, figsize=(11, 2.8 * len(present)), layout="constrained", squeeze=False
    )
    for row, (variant, mode) in enumerate(present):
        found = report.matching(cells, variant=variant, mode=mode)
        for axes, (key, (label, unit)) in zip(panels[row], columns.items(), strict=True):
            for resampling, colour in ((False, "tab:orange"), (True, "tab:blue")):
                _draw_line(axes, report.matching(found, resampling=resampling), key, unit, colour)
            if key == "needed" and found[0].get("hbm"):
                axes.axhline(found[0]["hbm"] / unit, color="black", lw=0.7, ls=":")
            axes.set(xlabel="frames", ylabel=label, xlim=(0, None), ylim=(0, None))
            axes.grid(alpha=0.3)
        panels[row, 1].set_title(f"{MODES[mode]} of {PLACES[variant].replace('`', '')}")
    panels[0, 0].legend(frameon=False, fontsize=8)
    report.save_figure(figure, path)


def _draw_line(axes: Any, cells: Sequence[report.Cell], key: str, unit: float, colour: str) -> None:
    cells = sorted((c for c in cells if c.get(key)), key=lambda c: c["settings"]["frames"])
    if not cells:
        return
    name = "with" if cells[0]["settings"]["resampling"] else "without"
    x, y = [c["settings"]["frames"] for c in cells], [c[key] / unit for c in cells]
    axes.plot(x, y, "-", color=colour, label=f"{name} temporal down-sampling")
    for frames, value, cell in zip(x, y, cells, strict=True):
        axes.plot(frames, value, "o" if cell["fits"] else "x", color=colour)


def cells_to_do(given: Any) -> list[dict[str, Any]]:
    """The settings of all cells of a part."""
    if given.part == "cpu":
        variants = ("tiny",) if given.quick else ("tiny", "small")
        frames = (8, 16) if given.quick else [int(n) for n in given.frames]
        shared = {"batch": given.batch}
        places = [(variant, mode) for variant in variants for mode in MODES]
    else:
        variant = "tiny" if given.quick else "full"
        frames = (8,) if given.quick else [int(n) for n in given.tpu_frames]
        chips = int(np.prod(topology.parse(given.topology)[1]))
        shared = {"batch": chips, "clips_a_chip": 1, "topology": given.topology}
        places = [(variant, "train")]
    return [
        {"variant": variant, "mode": mode, "frames": number, "resampling": kind, **shared}
        for variant, mode in places
        for number in frames
        for kind in (True, False)
    ]


def main(argv: list[str]) -> None:
    """Measures whatever is missing of a part, and makes picture and text of all there is."""
    del argv
    given, output = flags.FLAGS, report.output_folder(flags.FLAGS)
    if given.part == "measure":  # in the process that `in_fresh_process` starts
        settings = json.loads(given.settings)
        if "topology" in settings:
            topology.prepare_environment()
        import frame_costs

        is_for_tpu = "topology" in settings
        found = (
            frame_costs.compile_for_tpu(settings, given.cache)
            if is_for_tpu
            else frame_costs.measure_here(settings)
        )
        print(json.dumps(found))
        return
    topology.prepare_environment()  # before JAX is imported
    import frame_costs

    todo = [] if given.part == "report" else cells_to_do(given)
    cells = [
        (
            name_of(settings),
            settings,
            functools.partial(frame_costs.in_fresh_process, settings, given.cache),
        )
        for settings in todo
    ]
    report.all_kept(output / FOLDER, f"temporal down-sampling, {given.part}", cells)
    draw(report.read_kept(output / FOLDER), output / f"{FOLDER}.png")
    print(section(output))


def define_flags() -> None:
    """Defines the flags; not on import, so that one process can have several scripts."""
    parts = ["cpu", "tpu", "report", "measure"]
    flags.DEFINE_enum("part", "cpu", parts, "What to do; `measure` is for the script itself.")
    flags.DEFINE_string("output", report.OUTPUT, "Folder of the results.")
    flags.DEFINE_list("frames", [str(n) for n in FRAMES], "Numbers of frames on the CPU.")
    flags.DEFINE_integer("batch", 1, "Clips of a step on the CPU.", lower_bound=1)
    flags.DEFINE_list("tpu_frames", ["16", "32", "80"], "Numbers of frames on the TPU.")
    flags.DEFINE_string("topology", "v5p:2x2x4", "Slice of TPUs, one clip a chip.")
    flags.DEFINE_string("cache", ".cache/plan", "Folder of former plans.")
    flags.DEFINE_string("settings", "", "Settings of the one cell of --part=measure.")
    flags.DEFINE_bool("quick", False, "Few frames of the tiny network, to try it out.")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
