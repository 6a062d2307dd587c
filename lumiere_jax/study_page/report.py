"""What a study found: a table, a JSON file, and a bar chart like the paper's."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written

RESULTS_FILE = "results.json"
CHART_FILE = "results.png"
_BLUE, _GREY = "#2f6fb5", "#c9ced6"


def write(folder: Path, summary: Mapping[str, Any]) -> list[Path]:
    """Writes and returns `results.json` and `results.png`; a `UserError` if that cannot be."""
    paths = [folder / RESULTS_FILE, folder / CHART_FILE]
    try:
        write_text(paths[0], json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        draw_chart(paths[1], summary)
    except OSError as error:
        raise UserError(f"the results cannot be written to {folder} ({error})") from error
    return paths


def table(summary: Mapping[str, Any]) -> str:
    """The results in lines of text, with and without the raters who failed."""
    raters = summary["raters"]
    head = ("baseline", "question", "ours", "baseline", "preferred", "95% interval", "raters")
    rows = [head]
    for row in summary["results"]:
        for which in ("kept", "all") if raters["excluded"] else ("kept",):
            name = row["baseline"] + (" (all raters)" if which == "all" else "")
            rows.append((name, row["question"], *_cells(row[which])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    lines = [form.format(*row).rstrip() for row in rows]
    lines += ["", f"raters: {raters['answered']}, of whom {raters['kept']} are counted"]
    if raters["without_check"]:
        lines.append(f"raters who met no attention check yet: {raters['without_check']}")
    for rater, wrong in raters["excluded"].items():
        lines.append(f"left out: {rater} ({wrong} wrong answers to attention checks)")
    return "\n".join(lines)


def _cells(counts: Mapping[str, Any]) -> list[str]:
    numbers = [str(counts["ours"]), str(counts["baseline"])]
    if counts["percent_ours"] is None:
        return [*numbers, "-", "-", "0"]
    low, high = counts["interval"]
    share = f"{counts['percent_ours']:.1f}%"
    return [*numbers, share, f"{low:.1f} to {high:.1f}", str(counts["raters"])]


def draw_chart(path: Path, summary: Mapping[str, Any]) -> None:
    """Draws, for each question, a bar for each baseline: how many percent preferred which.

    Whiskers are the confidence intervals; the dashed line is chance.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    questions = list(dict.fromkeys(row["question"] for row in summary["results"]))
    baselines = summary["methods"][1:]
    figure, all_axes = plt.subplots(
        len(questions),
        figsize=(7.5, 0.9 + len(questions) * (0.55 + 0.42 * len(baselines))),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, question in zip(all_axes[:, 0], questions, strict=True):
        rows = [row for row in summary["results"] if row["question"] == question]
        _draw_question(axes, question, rows)
    all_axes[-1, 0].set_xlabel("preferred by raters, %")
    all_axes[-1, 0].spines["bottom"].set_visible(True)
    all_axes[-1, 0].tick_params(bottom=True)
    handles, labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    with written(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    plt.close(figure)


def _draw_question(axes: Any, question: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One block of bars, ours from the left and the baseline up to 100."""
    names = [
        f"{row['baseline']}\nn = {row['kept']['ours'] + row['kept']['baseline']}" for row in rows
    ]
    shares = [row["kept"]["percent_ours"] for row in rows]
    places = [place for place, share in enumerate(shares) if share is not None]
    known = [shares[place] for place in places]
    bounds = [rows[place]["kept"]["interval"] for place in places]
    axes.barh(places, known, color=_BLUE, height=0.62, label="ours")
    rest = [100 - share for share in known]
    axes.barh(places, rest, left=known, color=_GREY, height=0.62, label="baseline")
    below = [share - low for share, (low, _) in zip(known, bounds, strict=True)]
    above = [high - share for share, (_, high) in zip(known, bounds, strict=True)]
    axes.errorbar(known, places, xerr=(below, above), fmt="none", ecolor="black", capsize=3, lw=1.2)
    axes.axvline(50, color="black", linestyle="--", linewidth=1, label="chance")
    for place, share in zip(places, known, strict=True):
        # Beside the bar, where no whisker crosses it.
        axes.text(101.5, place, f"{share:.0f} : {100 - share:.0f}", va="center")
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
    axes.set_title(question, loc="left", fontsize=10, weight="bold")
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False)
