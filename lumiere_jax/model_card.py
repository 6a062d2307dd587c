"""The model card of a bundle, `README.md`: what it holds, how it was made, what was measured."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumiere_jax import bundle
from lumiere_jax.atomic import write_text
from lumiere_jax.errors import UserError
from lumiere_jax.stage import IMAGE_STAGES

LOSSES = "losses"
"""Folder of a bundle that holds the loss curve of each stage, `STAGE.png`."""

_OURS = "<!-- Written by lumiere_jax.export, and anew at the next; without this line it stays. -->"
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")
_EVALUATION, _PLAN = "## Evaluation", "## Plan"
_NO_EVALUATION = "None was given when these weights were exported."
_TASKS = {"stunet": "text-to-video", "stunet_conditional": "image-to-video", "t2i": "text-to-image"}


def write(
    folder: Path,
    plans: Sequence[str] = (),
    evaluation: Mapping[str, Any] | None = None,
    *,
    name: str = "",
) -> list[str]:
    """Writes the card of a bundle, see `text`, unless somebody has written one.

    Returns:
      What the former card had that this one has not: "the evaluation", "the plan".
    """
    place = folder / bundle.CARD
    former = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
    if former and _OURS not in former:
        return []
    card = text(folder, plans, evaluation, name=name)
    write_text(place, card)
    had_evaluation = _EVALUATION in former and f"{_EVALUATION}\n\n{_NO_EVALUATION}" not in former
    lost = ["the evaluation"] if had_evaluation and evaluation is None else []
    return lost + (["the plan"] if _PLAN in former and not plans else [])


def check_licence(licence: str) -> None:
    """Makes sure that a licence fits into one line of a card.

    Raises:
      UserError: if it does not.
    """
    if not licence.isprintable():
        raise UserError(
            f"the licence {licence!r:.80} is not one line; give its SPDX identifier or a sentence."
        )


def text(
    folder: Path,
    plans: Sequence[str] = (),
    evaluation: Mapping[str, Any] | None = None,
    *,
    name: str = "",
) -> str:
    """The card of a bundle, in Markdown with the header that model hubs read.

    Args:
      folder: the bundle.
      plans: what the TPU compiler said of its stages, see `read_plans`.
      evaluation: a protocol card, see `read_evaluation`.
      name: of the bundle, if not that of its folder.

    Raises:
      UserError: if the bundle cannot be read.
    """
    entries, licence = bundle.entries(folder), bundle.licence(folder)
    kinds = {entry["config"]["stage"] for entry in entries.values()}
    name = " ".join((name or folder.resolve().name).split())
    parts = [
        _header(licence, kinds),
        _OURS,
        f"# {name}: model card",
        "Weights of a Lumiere cascade (arXiv 2401.12945) by lumiere_jax.",
        f"Licence: {licence or 'none is stated; ask those who made these weights'}.",
        "## Stages",
        _stages(entries),
        "Files are safetensors; `manifest.json` holds configs and SHA-256, which are checked on "
        "loading. A stage that leaves something out shares it, bit for bit, with the one named.",
        *_use(name, kinds),
        "## Training",
        _training(entries),
        *[
            f"![Loss of stage {stage}]({LOSSES}/{stage}.png)"
            for stage in entries
            if (folder / LOSSES / f"{stage}.png").is_file()
        ],
        "## Sampling",
        _sampling(entries),
        _EVALUATION,
        _evaluation(evaluation),
    ]
    if plans:
        parts += [_PLAN, *(f"```\n{plan.strip()}\n```" for plan in plans)]
    return "\n\n".join(parts) + "\n"


def read_evaluation(place: str | Path) -> dict[str, Any]:
    """The protocol card that the eval binary wrote.

    Args:
      place: its folder, or `card.json` itself.

    Raises:
      UserError: if there is none.
    """
    from lumiere_jax.evaluation.card import format_table

    path = Path(place)
    try:
        path = path / "card.json" if path.is_dir() else path
        card = json.loads(path.read_text(encoding="utf-8"))
        format_table(card)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{str(path):.200} is no protocol card ({error!r}); give the --output of "
            "lumiere_jax.eval."
        ) from error
    return card


def read_plans(place: str | Path) -> list[str]:
    """Plans as text, from the file that `lumiere_jax.plan --output` wrote.

    Raises:
      UserError: if it holds something else.
    """
    from lumiere_jax.planning import report
    from lumiere_jax.planning.plan import Plan

    names = {field.name for field in dataclasses.fields(Plan)}
    try:
        lines = [json.loads(line) for line in Path(place).read_text(encoding="utf-8").splitlines()]
        plans = [Plan(**{k: v for k, v in line.items() if k in names}) for line in lines]
        if not plans:
            raise ValueError("it is empty")
        return [report.text(plan) for plan in plans]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{str(place):.200} holds no plans ({error}); give the --output of lumiere_jax.plan."
        ) from error


def _header(licence: str, kinds: set[str]) -> str:
    task = next((f"pipeline_tag: {_TASKS[kind]}\n" for kind in _TASKS if kind in kinds), "")
    name = licence.lower() if _SPDX.fullmatch(licence) else "other" if licence else "unknown"
    return f"---\nlicense: {name}\nlibrary_name: lumiere_jax\n{task}---"


def _stages(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [("stage", "kind", "parameters", "step", "file", "leaves out")]
    for name, entry in entries.items():
        step = "unknown" if entry["step"] is None else f"{entry['step']:,}"
        size, shared = f"{entry['bytes'] / 1e6:.1f} MB", entry["shares"]
        rows.append((f"`{name}`", entry["config"]["stage"], f"{entry['parameters']:,}", step, size,
                     f"what `{shared}` has" if shared else "nothing"))  # fmt: skip
    return _table(rows)


def _use(name: str, kinds: set[str]) -> list[str]:
    if not kinds & _TASKS.keys():
        return []
    return [
        "## Use",
        "```python\n"
        "from lumiere_jax.pipeline import LumierePipeline\n\n"
        f"pipeline = LumierePipeline.from_pretrained({json.dumps(name)})\n"
        'videos = pipeline(["..."])  # [1, time, height, width, 3] in [-1, 1]\n'
        "```",
    ]


def _training(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [("stage", "network", "text encoder", "diffusion", "data", "steps × batch", "optimiser")]
    for name, entry in entries.items():
        config = entry["config"]
        model, diffusion, data = config["model"], config["diffusion"], config["data"]
        widths = ", ".join(str(width) for width in model.get("widths", ()))
        frames = 1 if config["stage"] in IMAGE_STAGES else data["num_frames"]
        parts = [part["name"] for part in data.get("mixture", ())] or [data["name"]]
        rows.append(
            (
                f"`{name}`",
                f"{model['name']}, widths {widths}; {frames} × {data['resolution']}²",
                f"{config['text']['name']}, {config['text']['dim']} features",
                f"{diffusion['prediction']}, {diffusion['schedule']}, log-SNR shift "
                f"{diffusion['log_snr_shift']:g}",
                " and ".join(parts),
                f"{entry['step'] or 'unknown'} × {config['train']['batch_size']}",
                f"{config['optimizer']['name']}, {config['optimizer']['learning_rate']:g}",
            )
        )
    return _table(rows)


def _sampling(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [("stage", "sampler", "steps", "guidance")]
    for name, entry in entries.items():
        sampling = entry["config"]["sampling"]
        rows.append((f"`{name}`", sampling["sampler"], str(sampling["num_steps"]),
                     f"{sampling['guidance_scale']:g}"))  # fmt: skip
    return _table(rows)


def _evaluation(card: Mapping[str, Any] | None) -> str:
    from lumiere_jax.evaluation.card import format_table

    if card is None:
        return _NO_EVALUATION
    return f"```\n{format_table(card).strip()}\n```"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
