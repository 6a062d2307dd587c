"""What the scripts of this folder share: results that are kept, and sections of the document.

A script measures cells, each kept in a JSON file of its own in `OUTPUT/NAME/`; `section(OUTPUT)` of
the script makes a section of Markdown from those files, and `write_readme.py` puts the sections of
all scripts together.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.runtime.progress import Progress

matplotlib.use("Agg")
OUTPUT = "benchmarks/claims/results"
Cell = dict[str, Any]


def kept(path: Path, settings: Mapping[str, Any], compute: Callable[[], Cell]) -> Cell:
    """A cell from its file, or computed and written there.

    Args:
      path: of the JSON file.
      settings: what the cell depends on, beside the code.
      compute: makes the rest of the cell.

    Raises:
      UserError: if the file is of other settings.
    """
    settings = json.loads(json.dumps(dict(settings)))  # tuples are lists, as in the file
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise UserError(
                f"{path} was measured with {found['settings']}, but this run asks for {settings}; "
                "give another --output, or remove the file."
            )
        print(f"{path} is there already", flush=True)
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    result = compute()
    cell = {"settings": settings, "machine": machine(), "date": date.today().isoformat()}
    cell |= {"seconds": round(time.monotonic() - begin, 1), **result}
    write_text(path, json.dumps(cell, indent=1) + "\n")
    return cell


def all_kept(
    folder: Path, what: str, cells: Sequence[tuple[str, Mapping[str, Any], Callable[[], Cell]]]
) -> list[Cell]:
    """The cells of a claim: of each its name, what it depends on, and what computes it."""
    progress, found = Progress(f"claim: {what}", len(cells), "cells"), []
    for name, settings, compute in cells:
        found.append(kept(folder / f"{name}.json", settings, compute))
        progress.advance()
    return found


def output_folder(given: Any) -> Path:
    """Where a script's results go: with --quick not among the ones that count."""
    return Path(given.output) / "quick" if given.quick else Path(given.output)


def read_kept(folder: Path) -> list[Cell]:
    """All cells of a folder, in the order of their names.

    Raises:
      UserError: if there are none.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(f"there are no results in {folder}; run the script of this claim first.")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def matching(cells: Sequence[Cell], **settings: Any) -> list[Cell]:
    """The cells that have all of these settings."""
    return [c for c in cells if all(c["settings"].get(k) == v for k, v in settings.items())]


def machine() -> str:
    """Cores, processor and version of JAX, in words."""
    import jax

    name, cores = platform.machine(), os.cpu_count()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return f"{cores} CPU core{'s' * (cores != 1)} ({name}), jax {jax.__version__}"


def machine_line(cells: Sequence[Cell]) -> str:
    """Where and when cells were measured."""
    machines = sorted({cell["machine"] for cell in cells})
    dates = sorted({cell["date"] for cell in cells})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {days} on {' and on '.join(machines)}."


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """The median of some seeds and, in brackets, the range."""
    values = [float(value) for value in values]
    if len(values) == 1:
        return format(values[0], form)
    low, high = (format(value, form) for value in (min(values), max(values)))
    return f"{format(float(np.median(values)), form)} ({low} to {high})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def section(
    *,
    title: str,
    paper: str,
    command: str,
    cells: Sequence[Cell],
    body: Sequence[str],
    pictures: Sequence[str],
    verdict: str,
) -> str:
    """A section of Markdown.

    Args:
      title: what is claimed.
      paper: what the paper says of it.
      command: that makes the figures.
      cells: that the figures are from, for machine and date.
      body: paragraphs and tables.
      pictures: paths, relative to the document.
      verdict: one sentence, which says its rule.
    """
    shown = [f"![{Path(picture).stem.replace('_', ' ')}]({picture})" for picture in pictures]
    where = machine_line(cells)
    parts = [f"## Claim: {title}", paper, f"    {command}", where, *body, *shown]
    return "\n\n".join([*parts, f"**{verdict}**"]) + "\n"


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure of matplotlib as a PNG, and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
