"""Measures the scores of the shipped weights, and writes them into their model card.

    python benchmarks/shipped_scores.py --weights=weights/small        (or: make scores)

Held-out captions only. Scores of unchanged weights come from BUNDLE/scores/; delete that folder to
measure everything again. Clips are generated once for all scores, and kept in --clips until the
weights change. Needs the extra `.[eval]`.
"""

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shipped_stages
from absl import flags
from conditional_tasks import centres
from shipped_clips import Cell, Shipped, identities

from lumiere_jax.checkpoints import bundle, selection
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.scene_captions import attributes, parse_caption
from lumiere_jax.evaluation import networks
from lumiere_jax.evaluation.profiles import profile
from lumiere_jax.metrics import digit_oracle, oracle
from lumiere_jax.metrics.frechet import Moments, frechet_distance
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import Progress

CARD = "README.md"
PROMPT = "a large red circle moving right on a plain black background"
SAMPLES = 16
SOURCES = ("moving_shapes", "moving_digits")


def shapes(shipped: Shipped, count: int, refined: int) -> Cell:
    """Does a clip show what its caption says? Base clips, refined ones, truth and chance."""
    truth, captions = shipped.held_out("moving_shapes", count)
    base = shipped.base("moving_shapes", count)
    few, first = list(shipped.refined("moving_shapes", refined)), captions[:refined]
    return {
        "base, 32×32": oracle.score(list(base), captions),
        f"the first {refined}, 32×32": oracle.score(list(base[:refined]), first),
        f"the first {refined} after super-resolution, 128×128": oracle.score(few, first),
        "true clips, 32×32": oracle.score(truth, captions),
        "true clips with another's caption": oracle.chance(truth, captions),
    }


def digits(shipped: Shipped, count: int, refined: int) -> Cell:
    """Are the digits read as the caption says, by a classifier that knows real digits only?"""
    truth, captions = shipped.held_out("moving_digits", count)
    base = shipped.base("moving_digits", count)
    few, first = shipped.refined("moving_digits", refined), captions[:refined]

    def score(videos: Any, captions: list[str]) -> dict[str, float]:
        judged = [digit_oracle.judge(*pair) for pair in zip(videos, captions, strict=True)]
        two = np.array([" and digit " in caption for caption in captions])
        right = np.array([j.digit for j in judged])
        return {
            "digit, one a clip": float(right[~two].mean()),
            "digits, both of two": float(right[two].mean()),
            "all digits of a clip": float(right.mean()),
            "motion": float(np.mean([j.motion for j in judged])),
        }

    return {
        "base, 32×32": score(base, captions),
        f"the first {refined}, 32×32": score(base[:refined], first),
        f"the first {refined} after super-resolution, 128×128": score(few, first),
        "true clips, 32×32": score(truth, captions),
        "true clips with another's caption": score(truth, captions[1:] + captions[:1]),
    }


def fvd(shipped: Shipped, count: int, refined: int) -> Cell:
    """Fréchet distance of I3D features to one half of real held-out clips."""
    del refined
    settings = profile("unterthiner")
    network = networks.i3d_network(settings)
    half = count // 2

    def features(name: str, parts: list[Any]) -> Moments:
        videos = [video for part in parts for video in part]
        progress, found = Progress(f"I3D: {name}", len(videos), "clips"), []
        for begin in range(0, len(videos), network.batch_size):
            chunk = [to_uint8(v) for v in videos[begin : begin + network.batch_size]]
            found.append(network(chunk))
            progress.update(begin + len(chunk))
        return Moments.of(np.concatenate(found))

    sets = {
        "real, first half": lambda name: shipped.held_out(name, half)[0],
        "generated, trained": lambda name: shipped.base(name, half),
        "generated, untrained": lambda name: shipped.untrained(name, half),
    }
    real = features("real, second half", [shipped.held_out(n, half, half)[0] for n in SOURCES])
    return {
        name: {
            "FVD": frechet_distance(
                real, features(name, [make(source) for source in SOURCES]), settings.ddof
            )
        }
        for name, make in sets.items()
    }


def diversity(shipped: Shipped, count: int, refined: int) -> Cell:
    """How different are samples of one prompt, beside true clips with that caption?"""
    del count, refined
    data = shipped.config.data
    made = shipped.pipeline([PROMPT] * SAMPLES, base_only=True, batch_size=SAMPLES)
    source, truth, index = MovingShapes(data.num_frames, data.resolution), [], 0
    asked = parse_caption(PROMPT)
    while len(truth) < SAMPLES:
        if attributes(source.scene(index)) == asked:
            truth.append(source.example(index)[0])
        index += 1

    def spread(videos: Any) -> dict[str, float]:
        videos = np.asarray(videos)
        pairs = [(i, j) for i in range(len(videos)) for j in range(i)]
        rmse = [np.sqrt(np.mean(np.square(videos[i] - videos[j]))) for i, j in pairs]
        starts = centres(videos[:, 0])
        return {
            "RMSE of two samples": float(np.mean(rmse)),
            "least RMSE": float(np.min(rmse)),
            "spread of the start, x": float(starts[:, 0].std()),
            "spread of the start, y": float(starts[:, 1].std()),
        }

    return {f"{SAMPLES} samples": spread(made), f"{SAMPLES} true clips": spread(truth)}


SCORES: dict[str, Callable[[Shipped, int, int], Cell]] = {
    "shapes": shapes, "digits": digits, "fvd": fvd, "diversity": diversity,
    "conditional": shipped_stages.conditional, "style": shipped_stages.style,
    "fewer_steps": shipped_stages.fewer_steps,
}  # fmt: skip
STAGES = {
    "shapes": ("stunet", "ssr"), "digits": ("stunet", "ssr"), "fvd": ("stunet",),
    "diversity": ("stunet",), "conditional": ("stunet_conditional",), "style": ("stunet", "style"),
    "fewer_steps": ("stunet", "ssr"),
}  # fmt: skip
CAPTIONED = ("shapes", "digits", "fvd", "fewer_steps")  # as many as --captions


def depends_on(weights: Path, name: str) -> tuple[str, ...]:
    """The stages that a score is of; the distilled ones are found, whatever they are called."""
    if name != "fewer_steps":
        return STAGES[name]
    base, others = selection.choose(weights, distilled=True)
    return (*STAGES[name], base.name, *(other.name for other in others))


def measured(
    weights: Path, name: str, count: int, refined: int, shipped: Callable[[], Shipped]
) -> dict[str, Any]:
    """A score, from its file where the weights have not changed."""
    scored = identities(weights, depends_on(weights, name))
    asked = {"weights": scored, "captions": count, "refined": refined}
    path = weights / "scores" / f"{name}.json"
    if path.is_file():
        saved = json.loads(path.read_text())
        if all(saved.get(key) == value for key, value in asked.items()):
            print(f"{name}: from {path}")
            return saved
    print(f"{name}: measuring", flush=True)
    rows = SCORES[name](shipped(), count, refined)
    found = asked | {"date": datetime.date.today().isoformat(), "rows": rows}
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def table(rows: Cell) -> str:
    """Markdown: shares as percentages, anything else as numbers."""
    columns = list(next(iter(rows.values())))
    lines = [
        f"| | {' | '.join(c.replace('_', ' ') for c in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(_cell(c, row[c]) for c in columns)} |")
    return "\n".join(lines)


def _cell(column: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if column == "FVD":
        return f"{value:.0f}"
    return f"{value:.3f}" if "RMSE" in column or "spread" in column else f"{value:.1%}"


def footer(name: str, found: dict[str, Any]) -> str:
    """The line below a table: how many captions, where that was asked for, and the day."""
    number = f"{found['captions']} captions, " if name in CAPTIONED else ""
    return f"{number}{found['date']}."


def put_into_card(card: str, name: str, text: str) -> str:
    """The card with a table in its place, between two comments that name it.

    Raises:
      UserError: if the card has no such place.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if begin not in card or end not in card:
        raise UserError(f"{CARD} has no place for {name}: lines {begin!r} and {end!r}.")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", card, flags=re.DOTALL)


def define_flags() -> None:
    """Defines the flags of this script; not on import, so that tests can import it."""
    flags.DEFINE_string("weights", "weights/small", "Bundle to score.")
    flags.DEFINE_integer("captions", 256, "Held-out captions of a kind.", lower_bound=2)
    flags.DEFINE_integer("refined", 64, "Those of them that are refined as well.", lower_bound=2)
    flags.DEFINE_list("only", [], f"Some of the scores: {', '.join(SCORES)}.")
    flags.DEFINE_string("clips", "runs/scores", "Folder that keeps the clips that are made.")


def main(argv: list[str]) -> None:
    """Measures and writes what the flags ask for."""
    del argv
    given = flags.FLAGS
    devices.split_cpu()
    weights, loaded = Path(given.weights), []
    stages = bundle.entries(weights)
    unknown = set(given.only) - set(SCORES)
    if unknown:
        raise UserError(f"--only={min(unknown)} is unknown; there are {', '.join(SCORES)}.")

    def shipped() -> Shipped:
        loaded[:] = loaded or [Shipped(weights, Path(given.clips))]
        return loaded[0]

    count, refined = given.captions, min(given.refined, given.captions)
    missing = {name: sorted(set(STAGES[name]) - set(stages)) for name in SCORES}
    if not any(stage["config"].get("distillation") for stage in stages.values()):
        missing["fewer_steps"].append("a distilled stage")
    for name in given.only:
        if missing[name]:
            raise UserError(f"--only={name} scores {missing[name][0]}, which {weights} has not.")
    for name in given.only or [name for name in SCORES if not missing[name]]:
        found = measured(weights, name, count, refined, shipped)
        text = f"{table(found['rows'])}\n\n{footer(name, found)}"
        print(f"\n{text}\n", flush=True)
        card = weights / CARD
        if card.is_file():
            write_text(card, put_into_card(card.read_text(), name, text))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
