"""The page of `benchmarks/distillation.py`, from its JSON files."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

NAMES = {
    "teacher": "teacher",
    "teacher_even_steps": "teacher, as many steps, evenly in time",
    "teacher_few_steps": "teacher, the student's steps",
    "teacher_few_steps_dpmpp": "teacher, the student's steps, DPM-Solver++(2M)",
    "student": "student",
}
HEAD = (
    "| | steps | network calls | seconds from prompt to video | speed-up | correct, base | "
    "correct, final | points lost to the teacher |"
)


def document(folder: Path) -> str:
    """The page, from `seconds.json` and `SOURCE/WAY.json` in a folder."""
    seconds = _read(folder / "seconds.json")
    sources = sorted(path.parent for path in folder.glob("*/teacher.json"))
    parts = [_table(source, seconds) for source in reversed(sources)]  # shapes before digits
    head = (
        f"`python benchmarks/distillation.py`, {seconds['cores']} CPU cores. Held-out captions, "
        "one seed each, the same for every row. A clip is correct if the oracle finds all of its "
        "attributes correct. Seconds are for one video, without compilation; the rows take turns, "
        f"the median of {len(seconds['seconds']['teacher'])} (and the range), {seconds['date']}. "
        "Points are of 100, with the 95% interval over captions."
    )
    return "\n\n".join(["# Distillation, measured", head, *parts]) + "\n"


def _table(source: Path, seconds: dict[str, Any]) -> str:
    scores = {way: _read(source / f"{way}.json") for way in NAMES}
    first = scores["teacher"]
    lines = [
        f"{first['settings']['captions']} captions of `{source.name}`, {first['date']}:",
        "",
        HEAD,
        "|" + " --- |" * (HEAD.count("|") - 1),
        *(row(way, scores, seconds["seconds"]) for way in NAMES),
    ]
    return "\n".join(lines)


def row(way: str, scores: dict[str, dict[str, Any]], seconds: dict[str, list[float]]) -> str:
    """The line of one way to sample."""
    stages = scores[way]["settings"]["stages"]
    median = statistics.median(seconds[way])
    faster = statistics.median(seconds["teacher"]) / median
    place = "final" if "final" in scores[way] else "base"
    lost, margin = difference(scores["teacher"][place]["all"], scores[way][place]["all"])
    cells = [
        NAMES[way],
        " + ".join(str(stage["steps"]) for stage in stages),
        " + ".join(str(stage["calls"]) for stage in stages),
        f"{median:.3g} ({min(seconds[way]):.3g} to {max(seconds[way]):.3g})",
        f"{faster:.2f}",
        _share(scores[way]["base"]["all"]),
        _share(scores[way]["final"]["all"]) if place == "final" else "-",
        "-" if way == "teacher" else f"{lost:.1f} ± {margin:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def difference(before: list[bool], after: list[bool]) -> tuple[float, float]:
    """Points of 100 that are lost, and half of their 95% interval, caption by caption."""
    changes = [100.0 * (a - b) for a, b in zip(before, after, strict=True)]
    return statistics.fmean(changes), 1.96 * statistics.stdev(changes) / math.sqrt(len(changes))


def _share(right: list[bool]) -> str:
    return f"{100 * sum(right) / len(right):.1f}%"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
