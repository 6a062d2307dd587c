"""`benchmarks/peers.md`, from the JSON files of `vs_peers.py` and `small_profile.py`."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claims import report

from lumiere_jax.runtime.errors import UserError

MODES = ("torch", "torch.compile")
MATCHES = {"flops": "as many FLOPs of the forward pass", "parameters": "as many parameters"}
RUN_NAMES = {
    "forward": "forward pass",
    "sample": "sampling, 4 steps",
    "train": "training step",
}
BARS = {"forward": 2.0, "sample": 2.0, "train": 1.4}  # times as fast, at equal FLOPs
PROFILE = "small_profile.json"


def page(folder: Path) -> str:
    """The whole page.

    Args:
      folder: of the results, one file an implementation.

    Raises:
      UserError: if there are none.
    """
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not results:
        raise UserError(f"there are no results in {folder}; run benchmarks/vs_peers.py first.")
    batch, frames, size = results[0]["settings"]["shape"][:3]
    parts = [
        "# Speed compared with other implementations",
        "    python benchmarks/vs_peers.py --peers_python=runs/peers/bin/python "
        f"--rounds={results[0]['settings']['rounds']}",
        report.machine_line(results)[:-1] + f", torch {results[0]['torch']}.",
        f"{batch} clips of {frames}×{size}×{size}, float32, {results[0]['threads']} threads for "
        "each network; the space-time U-Net uses one device per core, each with its share of the "
        "clips. AdamW, no recomputation. Networks take turns: seconds are medians of "
        f"{results[0]['settings']['rounds']} rounds, and the speed-up is the median over rounds of "
        "the ratio within a round (with its range; a round that includes a compilation moves only "
        "one end of the range). `lumiere-pytorch` is the model of its README with 64 channels, "
        "since with the 8 given there it has only 0.3M parameters. PyTorch counts the FLOPs of the "
        "others, `lumiere_jax/planning/flops.py` ours; both count convolutions and matrix "
        "products, and a multiplication with its addition as two.",
        "The networks differ in attention, norms and widths. The tables say what a clip costs at "
        "equal operations or parameters, and nothing about what the networks learn.",
    ]
    for what, name in MATCHES.items():
        parts += [f"## A space-time U-Net of {name}", _sizes(results, what), _speeds(results, what)]
    parts += ["## Compilation and memory", _memory(results), verdict(results)]
    place = folder.parent / PROFILE
    if place.is_file():
        profile = json.loads(place.read_text())
        parts += [room(results, profile["peak"]), profile_section(profile)]
    return "\n\n".join(parts) + "\n"


def ratios(result: dict[str, Any], theirs: str, ours: str, run: str) -> list[float]:
    """How many times as fast as another network ours is, round by round; empty if one failed."""
    cell = result["networks"][ours]["runs"].get(run, {})
    beside = cell.get("beside", {}).get(theirs)
    if not beside or not cell.get("seconds"):
        return []
    return [a / b for a, b in zip(beside, cell["seconds"], strict=True)]


def _sizes(results: Sequence[dict[str, Any]], what: str) -> str:
    head = ["", "parameters", "GFLOP, forward", "GFLOP, training step", "ours: widths",
            "parameters", "GFLOP, forward", "GFLOP, training step"]  # fmt: skip
    rows = []
    for result in results:
        networks = result["networks"]
        theirs, ours = networks["torch"], networks[f"STUNet, same {what}"]
        cells = [result["settings"]["peer"]]
        for network in (theirs, ours):
            if network is ours:
                cells.append(", ".join(map(str, network["widths"])))
            cells.append(f"{network['parameters'] / 1e6:.2f}M")
            cells += [f"{network['flops'][run] / 1e9:.0f}" for run in ("forward", "train")]
        rows.append(cells)
    return report.table(head, rows)


def _speeds(results: Sequence[dict[str, Any]], what: str) -> str:
    head = ["", *(f"{name}: theirs, ours, speed-up" for name in RUN_NAMES.values()),
            "training temporal weights alone"]  # fmt: skip
    rows = []
    for result in results:
        for mode in MODES:
            ours = f"STUNet, same {what}"
            cells = [_speed(result, mode, ours, run) for run in RUN_NAMES]
            frozen = _speed(result, mode, f"{ours}, temporal weights alone", "train")
            rows.append([f"{result['settings']['peer']}, {mode}", *cells, frozen])
    return report.table(head, rows)


def _speed(result: dict[str, Any], theirs: str, ours: str, run: str) -> str:
    cells = [result["networks"][name]["runs"].get(run, {}) for name in (theirs, ours)]
    for cell in cells:
        if "error" in cell:
            return f"fails: {cell['error']}"
    seconds = [statistics.median(s) for s in (cells[1]["beside"][theirs], cells[1]["seconds"])]
    found = ratios(result, theirs, ours, run)
    times = f"**{statistics.median(found):.2f}×** ({min(found):.2f} to {max(found):.2f})"
    return f"{seconds[0]:.2f} s, {seconds[1]:.2f} s, {times}"


def _memory(results: Sequence[dict[str, Any]]) -> str:
    head = ["", *(f"first {name}" for name in RUN_NAMES.values()),
            "peak memory: forward and sampling", "and training"]  # fmt: skip
    rows = []
    for result in results:
        for name, network in result["networks"].items():
            runs = network["runs"]
            firsts = [f"{runs[r]['first']:.0f} s" if "first" in runs.get(r, {}) else "-"
                      for r in RUN_NAMES]  # fmt: skip
            peaks = [f"{runs[r]['peak'] / 2**30:.1f} GiB" if "peak" in runs.get(r, {}) else "-"
                     for r in ("sample", "train")]  # fmt: skip
            rows.append([f"{result['settings']['peer']}: {name}", *firsts, *peaks])
    return report.table(head, rows)


def verdict(results: Sequence[dict[str, Any]]) -> str:
    """Where the bars are reached, at equal FLOPs, beside the faster of the two ways of torch."""
    lines = []
    for result in results:
        for run, bar in BARS.items():
            found = [ratios(result, mode, "STUNet, same flops", run) for mode in MODES]
            medians = [statistics.median(values) for values in found if values]
            if medians:
                word = "reached" if min(medians) >= bar else "**not reached**"
                name = f"{result['settings']['peer']}, {RUN_NAMES[run]}"
                lines.append(f"- {name}: {min(medians):.2f}× (target {bar:g}×), {word}")
    head = "At equal FLOPs, compared with the faster of torch and torch.compile:"
    return f"{head}\n\n" + "\n".join(lines)


def room(results: Sequence[dict[str, Any]], peak: float) -> str:
    """How much of this machine's matrix peak (FLOP/s) the forward passes take already."""
    rows = []
    for result in results:
        for name in (*MODES, "STUNet, same flops"):
            network = result["networks"][name]
            if seconds := network["runs"].get("forward", {}).get("seconds"):
                rate = network["flops"]["forward"] / statistics.median(seconds)
                share = f"{rate / peak:.0%} ({rate / 1e9:.0f} GFLOP/s)"
                rows.append([f"{result['settings']['peer']}: {name}", share, f"{peak / rate:.1f}×"])
    head = ["forward pass", "share of the matrix peak", "speed-up at the peak itself"]
    return (
        f"The limit is the machine: its matrix peak is {peak / 1e9:.0f} GFLOP/s (see below), and "
        "convolutions cannot be faster.\n\n" + report.table(head, rows)
    )


def profile_section(profile: dict[str, Any]) -> str:
    """Where the time of the variant `small` goes, and what an ideal machine would need."""
    head = ["", "batch", "GFLOP", "time", "GFLOP/s", "share of the matrix peak"]
    rows, parts = [], []
    peak = profile["peak"]
    for name, cell in profile["runs"].items():
        rate = cell["flops"] / cell["seconds"]
        rows.append([
            name, str(cell["batch"]), f"{cell['flops'] / 1e9:.1f}", f"{cell['seconds']:.3f} s",
            f"{rate / 1e9:.0f}", f"{rate / peak:.0%}",
        ])  # fmt: skip
        kinds = sorted(cell["kinds"].items(), key=lambda item: -item[1])
        total = sum(cell["kinds"].values())
        parts.append([name, ", ".join(f"{kind} {time / total:.0%}" for kind, time in kinds)])
    return "\n\n".join([
        "## Where the time of `small` goes",
        "    python benchmarks/small_profile.py",
        report.machine_line([profile]),
        f"The matrix peak of this machine, measured in the same run (float32 products of 1024 "
        f"squared, one device per core): {peak / 1e9:.0f} GFLOP/s. A share of the peak is the time "
        "that an ideal machine would need, divided by the time that was needed.",
        report.table(head, rows),
        "By the profiler, the share of each kind of operation in the busy time of all threads:",
        report.table(["", "kinds of operation"], parts),
        "FLOPs are those of the network alone. The rest of a training step's time goes to Muon's "
        "iterations, which are matrix products but not counted, and to norms, activations and "
        "copies, which wait for memory; the convolutions alone come closer to the peak.",
    ])  # fmt: skip
