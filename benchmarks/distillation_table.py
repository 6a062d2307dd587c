"""The table of `benchmarks/distillation.py`, from its JSON files."""

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAMES = {
    "teacher": "teacher",
    "teacher_few_steps": "teacher, in the student's steps",
    "teacher_few_steps_dpmpp": "teacher, in the student's steps, DPM-Solver++(2M)",
    "student": "student",
}
HEAD = (
    "| | steps | calls of a network | seconds from prompt to video | times as fast | right, base | "
    "right, final | points lost to the teacher |"
)


def document(folder: Path, ways: Iterable[str] = NAMES) -> str:
    """The page, from `WAY_scores.json` and `WAY_seconds.json` in a folder."""
    rows = {way: _read(folder, way) for way in ways}
    first = rows["teacher"]["scores"]
    captions, source = first["settings"]["captions"], first["settings"]["source"]
    seconds = rows["teacher"]["seconds"]
    lines = [
        "# Distillation, measured",
        "",
        f"`python benchmarks/distillation.py`, {first['date']}, {seconds['cores']} CPU cores; "
        f"{captions} held-out captions of `{source}`, one seed each, the same for every row. A "
        "clip is right if the oracle finds all of its attributes right. Seconds are of one video, "
        f"the median of {len(seconds['seconds'])} (from least to most), without compilation. "
        "Points are of 100, with the 95% interval over captions.",
        "",
        HEAD,
        "|" + " --- |" * (HEAD.count("|") - 1),
        *(row(way, rows) for way in rows),
    ]
    return "\n".join(lines) + "\n"


def row(way: str, rows: dict[str, dict[str, Any]]) -> str:
    """The line of one way to sample."""
    scores, seconds = rows[way]["scores"], rows[way]["seconds"]
    stages = scores["settings"]["stages"]
    median = statistics.median(seconds["seconds"])
    faster = statistics.median(rows["teacher"]["seconds"]["seconds"]) / median
    place = "final" if "final" in scores else "base"
    lost, margin = difference(rows["teacher"]["scores"][place]["all"], scores[place]["all"])
    cells = [
        NAMES[way],
        " + ".join(str(stage["steps"]) for stage in stages),
        " + ".join(str(stage["calls"]) for stage in stages),
        f"{median:.3g} ({min(seconds['seconds']):.3g} to {max(seconds['seconds']):.3g})",
        f"{faster:.2f}",
        _share(scores["base"]["all"]),
        _share(scores["final"]["all"]) if "final" in scores else "-",
        "-" if way == "teacher" else f"{lost:.1f} ± {margin:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def difference(before: list[bool], after: list[bool]) -> tuple[float, float]:
    """Points of 100 that are lost, and half of their 95% interval, caption by caption."""
    changes = [100.0 * (a - b) for a, b in zip(before, after, strict=True)]
    return statistics.fmean(changes), 1.96 * statistics.stdev(changes) / math.sqrt(len(changes))


def _share(right: list[bool]) -> str:
    return f"{100 * sum(right) / len(right):.1f}%"


def _read(folder: Path, way: str) -> dict[str, Any]:
    return {
        kind: json.loads((folder / f"{way}_{kind}.json").read_text())
        for kind in ("scores", "seconds")
    }
