"""The protocol card: figures together with all that they depend on, as JSON and as a table."""

import importlib.metadata
import json
import platform
import textwrap
from pathlib import Path
from typing import Any

import jax

from lumiere_jax import __version__
from lumiere_jax.evaluation.published import ROWS, differences
from lumiere_jax.evaluation.scoring import Score
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import duration

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "av")
_WIDTH = 96
_NORMAL_95 = 1.96  # standard errors on either side


def scores_section(scores: list[Score]) -> dict[str, Any]:
    """The figures by name, as JSON takes them."""
    section = {}
    for score in scores:
        entry: dict[str, Any] = {"mean": score.mean, "values": list(score.values)}
        entry |= {} if score.deviation is None else {"deviation_of_sets": score.deviation}
        entry |= {f"{score.errors_by}_errors": list(score.errors)} if score.errors else {}
        section[score.name] = entry | ({"note": score.note} if score.note else {})
    return section


def published_section(protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """What papers report of zero-shot UCF101, and what differs there."""
    return [
        {
            "model": row.name,
            "FVD": row.fvd,
            "IS": row.inception_score,
            "differs": differences(row, protocol),
        }
        for row in ROWS
    ]


def run_section(seconds: float, date: str) -> dict[str, Any]:
    """Where and when: what may differ between two runs that score the same."""
    return {
        "date": date,
        "seconds": round(seconds, 1),
        "lumiere_jax": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }


def write(folder: Path, card: dict[str, Any]) -> str:
    """Writes `card.json` and the table of `card.txt`, which is returned."""
    table = format_table(card)
    write_text(folder / "card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "card.txt", table)
    return table


def read(place: str | Path) -> str:
    """The table of a card, by its folder or its `card.json`; a `UserError` if there is none."""
    path = Path(place)
    try:
        path = path / "card.json" if path.is_dir() else path
        return format_table(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{str(path):.200} is no protocol card ({error!r}); give the --output of "
            "lumiere_jax.eval."
        ) from error


def format_table(card: dict[str, Any]) -> str:
    """The card for people."""
    lines = ["PROTOCOL CARD", "=" * _WIDTH]
    for name, entry in card["scores"].items():
        lines += _entry(name, _score_text(entry))
    for title in ("protocol", "model"):
        if card.get(title):
            lines.append("-" * _WIDTH)
            for name, value in card[title].items():
                lines += _entry(name.replace("_", " "), _text(value))
    lines.append("-" * _WIDTH)
    run = card["run"]
    packages = ", ".join(f"{name} {version}" for name, version in run["packages"].items())
    versions = f"lumiere_jax {run['lumiere_jax']}, Python {run['python']}, {packages}"
    lines += _entry("date", f"{run['date']}, took {duration(run['seconds'])} on {run['devices']}")
    lines += _entry("versions", versions)
    for warning in card["warnings"]:
        lines += _entry("WARNING", warning)
    if card.get("published"):
        lines += ["-" * _WIDTH, "Zero-shot UCF101 as papers report it, and what differs there:"]
        for row in card["published"]:
            figures = f"FVD {_figure(row['FVD'])}, IS {_figure(row['IS'])}"
            lines += _entry(row["model"], f"{figures}; {'; '.join(row['differs'])}")
    return "\n".join(lines) + "\n"


def _score_text(entry: dict[str, Any]) -> str:
    text = f"{entry['mean']:.4f}"
    if "deviation_of_sets" in entry:
        values = ", ".join(f"{value:.4f}" for value in entry["values"])
        text += f" ± {entry['deviation_of_sets']:.4f} (deviation of the sets: {values})"
    for method in ("bootstrap", "jackknife"):
        if given := entry.get(f"{method}_errors"):
            text += f" (standard error by {method} {', '.join(f'{error:.2f}' for error in given)})"
    if given := entry.get("jackknife_errors"):  # FVD is biased: there is no such interval around it
        pairs = zip(entry["values"], given, strict=True)
        text += "; 95% from " + ", ".join(
            f"{value - _NORMAL_95 * error:.2f} to {value + _NORMAL_95 * error:.2f}"
            for value, error in pairs
        )
    return text + (f"; {entry['note']}" if entry.get("note") else "")


def _figure(value: float | None) -> str:
    return "not given" if value is None else f"{value:.2f}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        parts = (f"{name.replace('_', ' ')} {_text(part)}" for name, part in value.items())
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return "; ".join(_text(part) for part in value) or "none"
    return "none" if value is None else str(value) or "none"


def _entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{name:<18} ",
        subsequent_indent=" " * 19,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [name]
