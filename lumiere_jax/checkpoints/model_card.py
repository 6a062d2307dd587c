"""The model card of a bundle, `README.md`: what it holds, how it was made, what was measured."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lumiere_jax.cascade.config import IMAGE_STAGES
from lumiere_jax.checkpoints import bundle
from lumiere_jax.checkpoints.manifest import StageEntry
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text

LOSSES = "losses"
"""Folder of a bundle that holds the loss curve of each stage, `STAGE.png`."""

_OURS = (
    "<!-- Written by lumiere_jax.export, which replaces it next time; without this line it stays. "
    "-->",
    "<!-- Written by lumiere_jax.export, and anew at the next; without this line it stays. -->",
)
"""Marks of a card that nobody has touched: this version's, and that of 0.1.0."""

_SPDX = re.compile(r"[A-Za-z0-9.+-]+")
_EVALUATION, _PLAN = "## Evaluation", "## Plan"
_NO_EVALUATION = "None was given when these weights were exported."
_TASKS = {"stunet": "text-to-video", "stunet_conditional": "image-to-video", "t2i": "text-to-image"}


def write(
    folder: Path, plans: Sequence[str] = (), evaluation: str = "", *, name: str = ""
) -> list[str]:
    """Writes the card of a bundle, see `text`, unless somebody has written one.

    Returns what the former card had that this one has not: "the evaluation", "the plan".
    """
    place = folder / bundle.CARD
    former = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
    if former and not any(mark in former for mark in _OURS):
        return []
    write_text(place, text(folder, plans, evaluation, name=name))
    had_evaluation = _EVALUATION in former and f"{_EVALUATION}\n\n{_NO_EVALUATION}" not in former
    lost = ["the evaluation"] if had_evaluation and not evaluation else []
    return lost + (["the plan"] if _PLAN in former and not plans else [])


def check_license(license: str) -> None:
    """Raises a `UserError` for a license that does not fit into one line of a card."""
    if not license.isprintable():
        raise UserError(
            f"the license {license!r:.80} is not one line; give its SPDX identifier or a sentence."
        )


def text(folder: Path, plans: Sequence[str] = (), evaluation: str = "", *, name: str = "") -> str:
    """The card of a bundle, in Markdown with the header that model hubs read.

    Args:
      folder: the bundle.
      plans: what the TPU compiler said of its stages, see `planning.report.read`.
      evaluation: a protocol card, see `evaluation.card.read`.
      name: of the bundle, if not that of its folder.
    """
    entries, license = bundle.entries(folder), bundle.license(folder)
    kinds = {entry["config"]["stage"] for entry in entries.values()}
    name = " ".join((name or folder.resolve().name).split())
    parts = [
        _header(license, kinds),
        _OURS[0],
        f"# {name}: model card",
        "Weights of a Lumiere cascade (arXiv 2401.12945) by lumiere_jax.",
        f"License: {license or 'none is stated; ask those who made these weights'}.",
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
        _block(evaluation) if evaluation else _NO_EVALUATION,
    ]
    if plans:
        parts += [_PLAN, *map(_block, plans)]
    return "\n\n".join(parts) + "\n"


def _header(license: str, kinds: set[str]) -> str:
    # `ModelCardData` of huggingface_hub writes the same, but export works without that package.
    task = next((f"pipeline_tag: {_TASKS[kind]}\n" for kind in _TASKS if kind in kinds), "")
    name = license.lower() if _SPDX.fullmatch(license) else "other" if license else "unknown"
    return f"---\nlicense: {name}\nlibrary_name: lumiere_jax\n{task}---"


def _stages(entries: Mapping[str, StageEntry]) -> str:
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
        "from lumiere_jax import LumierePipeline\n\n"
        f"pipeline = LumierePipeline.from_pretrained({json.dumps(name)})\n"
        'videos = pipeline(["..."])  # [1, time, height, width, 3] in [-1, 1]\n'
        "```",
    ]


def _training(entries: Mapping[str, StageEntry]) -> str:
    rows = [("stage", "network", "text encoder", "diffusion", "data", "steps × batch", "optimizer")]
    for name, entry in entries.items():
        config = entry["config"]
        model, diffusion, data = config["model"], config["diffusion"], config["data"]
        widths = ", ".join(str(width) for width in model.get("widths", ()))
        frames = 1 if config["stage"] in IMAGE_STAGES else data["num_frames"]
        parts = [part["name"] for part in data.get("mixture", ())] or [data["name"]]
        rows.append((
            f"`{name}`",
            f"{model['name']}, widths {widths}; {frames} × {data['resolution']}²",
            f"{config['text']['name']}, {config['text']['dim']} features",
            f"{diffusion['prediction']}, {diffusion['schedule']}, log-SNR shift "
            f"{diffusion['log_snr_shift']:g}",
            " and ".join(parts),
            f"{entry['step'] or 'unknown'} × {config['train']['batch_size']}",
            f"{config['optimizer']['name']}, {config['optimizer']['learning_rate']:g}",
        ))  # fmt: skip
    return _table(rows)


def _sampling(entries: Mapping[str, StageEntry]) -> str:
    rows = [("stage", "sampler", "steps", "guidance")]
    for name, entry in entries.items():
        sampling = entry["config"]["sampling"]
        method = sampling.get("guidance", "cfg")  # older than the choice
        guidance = f"{sampling['guidance_scale']:g}" + (f" (`{method}`)" if method != "cfg" else "")
        rows.append((f"`{name}`", sampling["sampler"], str(sampling["num_steps"]), guidance))
    return _table(rows)


def _block(text: str) -> str:
    return f"```\n{text.strip()}\n```"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
