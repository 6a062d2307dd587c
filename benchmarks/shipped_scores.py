"""Scores of the shipped weights, measured anew, as tables in their model card.

    python benchmarks/shipped_scores.py --weights=weights/small        (or: make scores)

Held-out captions only. Whatever depends on weights that have not changed is taken from
BUNDLE/scores/; delete that folder to measure everything again. Needs the extra `.[eval]`.
"""

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from lumiere_jax import bundle, cpu_devices, errors
from lumiere_jax.atomic import write_text
from lumiere_jax.errors import UserError
from lumiere_jax.progress import Progress

_WEIGHTS = flags.DEFINE_string("weights", "weights/small", "Bundle to score.")
_CAPTIONS = flags.DEFINE_integer("captions", 256, "Held-out captions of a kind.", lower_bound=2)
_ONLY = flags.DEFINE_list("only", [], "Some of the scores: shapes, digits, fvd, diversity.")

CARD = "MODEL_CARD.md"
PROMPT = "a large red circle moving right on a plain black background"
SAMPLES = 16
BATCH = 32
Cell = dict[str, dict[str, float | int | str]]


def held_out(config, name: str, count: int, first: int = 0):
    """Clips of one source of the mixture that the weights were trained on, and their captions."""
    from lumiere_jax.data.sources import create_source

    data = config.data.copy_and_resolve_references()
    data.name = name
    data.max_objects = 2 if name == "moving_digits" else 1
    source = create_source(data, "test")
    return tuple(zip(*(source.example(first + i) for i in range(count)), strict=True))


def shapes(pipelines: dict, count: int) -> Cell:
    """Does a clip show what its caption says? Base clips, refined ones, truth and chance."""
    from lumiere_jax.metrics import oracle

    pipeline = pipelines["trained"]
    truth, captions = held_out(pipeline.base[0].config, "moving_shapes", count)
    base, refined = _base_and_refined(pipeline, captions)
    return {
        "base, 32×32": oracle.score(list(base), list(captions)),
        "after super-resolution, 128×128": oracle.score(list(refined), list(captions)),
        "true clips, 32×32": oracle.score(list(truth), list(captions)),
        "true clips with another's caption": oracle.chance(list(truth), list(captions)),
    }


def digits(pipelines: dict, count: int) -> Cell:
    """Are the digits read as the caption says, by a classifier that knows real digits only?"""
    from lumiere_jax.metrics import digit_oracle

    pipeline = pipelines["trained"]
    truth, captions = held_out(pipeline.base[0].config, "moving_digits", count)
    base, refined = _base_and_refined(pipeline, captions)

    def score(videos, captions) -> dict[str, float]:
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
        "after super-resolution, 128×128": score(refined, captions),
        "true clips, 32×32": score(truth, captions),
        "true clips with another's caption": score(truth, captions[1:] + captions[:1]),
    }


def fvd(pipelines: dict, count: int) -> Cell:
    """Fréchet distance of I3D features to one half of real held-out clips."""
    from lumiere_jax.data.video_io import to_uint8
    from lumiere_jax.evaluation.networks import i3d_network
    from lumiere_jax.evaluation.profiles import profile
    from lumiere_jax.metrics.frechet import Moments, frechet_distance

    config, settings = pipelines["trained"].base[0].config, profile("unterthiner")
    network = i3d_network(settings)
    half = count // 2

    def both(first: int) -> tuple[list, list]:
        pairs = [held_out(config, name, half, first) for name in ("moving_shapes", "moving_digits")]
        return [v for videos, _ in pairs for v in videos], [c for _, found in pairs for c in found]

    def features(name: str, videos) -> Moments:
        progress, found = Progress(f"I3D: {name}", len(videos), "clips"), []
        for begin in range(0, len(videos), network.batch_size):
            chunk = [to_uint8(v) for v in videos[begin : begin + network.batch_size]]
            found.append(network(chunk))
            progress.advance(len(chunk))
        return Moments.of(np.concatenate(found))

    (first, captions), (second, _) = both(0), both(half)
    real = features("real, second half", second)
    sets = {"real, first half": lambda: first}
    for name in ("trained", "untrained"):
        sets[f"generated, {name}"] = lambda name=name: pipelines[name](
            captions, base_only=True, batch_size=BATCH
        )
    return {
        name: {"FVD": frechet_distance(real, features(name, make()), settings.ddof)}
        for name, make in sets.items()
    }


def diversity(pipelines: dict, count: int) -> Cell:
    """How different are samples of one prompt, beside true clips with that caption?"""
    from lumiere_jax.data.moving_shapes import MovingShapes
    from lumiere_jax.data.scene_captions import attributes, parse_caption

    del count
    pipeline = pipelines["trained"]
    data = pipeline.base[0].config.data
    made = pipeline([PROMPT] * SAMPLES, base_only=True, batch_size=SAMPLES)
    source, truth, index = MovingShapes(data.num_frames, data.resolution), [], 0
    asked = parse_caption(PROMPT)
    while len(truth) < SAMPLES:
        if attributes(source.scene(index)) == asked:
            truth.append(source.example(index)[0])
        index += 1

    def spread(videos) -> dict[str, float]:
        videos = np.asarray(videos)
        pairs = [(i, j) for i in range(len(videos)) for j in range(i)]
        rmse = [np.sqrt(np.mean(np.square(videos[i] - videos[j]))) for i, j in pairs]
        starts = np.array([_centre(video[0]) for video in videos])
        return {
            "RMSE of two samples": float(np.mean(rmse)),
            "least RMSE": float(np.min(rmse)),
            "spread of the start, x": float(starts[:, 0].std()),
            "spread of the start, y": float(starts[:, 1].std()),
        }

    return {f"{SAMPLES} samples": spread(made), f"{SAMPLES} true clips": spread(truth)}


SCORES: dict[str, Callable[[dict, int], Cell]] = {
    "shapes": shapes, "digits": digits, "fvd": fvd, "diversity": diversity,
}  # fmt: skip
STAGES = {"shapes": ("stunet", "ssr"), "digits": ("stunet", "ssr")}


def _centre(frame: np.ndarray) -> np.ndarray:
    """Where the object is, (x, y) in frame widths: the mean of what is not ground."""
    weights = np.square(frame - np.median(frame, axis=(0, 1))).sum(axis=-1)
    weights = weights * (weights > 0.25 * weights.max())
    grid = (np.indices(weights.shape)[::-1] + 0.5) / len(frame)
    return (grid * weights).sum(axis=(1, 2)) / weights.sum()


def _base_and_refined(pipeline, captions) -> tuple[np.ndarray, np.ndarray]:
    base = pipeline(captions, base_only=True, batch_size=BATCH)
    seeds, refined = list(range(len(captions))), []
    for begin in range(0, len(base), BATCH):
        chosen = slice(begin, begin + BATCH)
        refined.append(pipeline.refine(base[chosen], captions[chosen], seeds[chosen]))
    return base, np.concatenate([np.asarray(video) for video in refined])


def load(weights: Path) -> dict:
    """The shipped pipeline, and the same networks without training."""
    import jax

    from lumiere_jax.pipeline import LumierePipeline

    trained = LumierePipeline.from_checkpoints(weights / "stunet", [weights / "ssr"])
    stage, _ = trained.base
    fresh = jax.jit(stage.init_params)(jax.random.key(0))
    return {"trained": trained, "untrained": LumierePipeline((stage, fresh))}


def measured(weights: Path, name: str, count: int, pipelines: Callable[[], dict]) -> dict:
    """A score, from its file where the weights have not changed."""
    entries = bundle.entries(weights)
    used = STAGES.get(name, ("stunet",))
    sums = {stage: entries[stage]["sha256"] for stage in used}
    path = weights / "scores" / f"{name}.json"
    if path.is_file():
        saved = json.loads(path.read_text())
        if saved["weights"] == sums and saved["captions"] == count:
            print(f"{name}: from {path}")
            return saved
    print(f"{name}: measuring", flush=True)
    found = {
        "weights": sums,
        "captions": count,
        "date": datetime.date.today().isoformat(),
        "rows": SCORES[name](pipelines(), count),
    }
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(found, indent=1) + "\n")
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


def _cell(column: str, value: float) -> str:
    if column == "FVD":
        return f"{value:.0f}"
    return f"{value:.3f}" if "RMSE" in column or "spread" in column else f"{value:.1%}"


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


def main(argv: list[str]) -> None:
    """Measures and writes what the flags ask for."""
    del argv
    cpu_devices.one_a_core()
    weights, made = Path(_WEIGHTS.value), {}
    bundle.entries(weights)  # made sure of now

    def pipelines() -> dict:
        return made or made.update(load(weights)) or made

    unknown = set(_ONLY.value) - set(SCORES)
    if unknown:
        raise UserError(f"--only={min(unknown)} is unknown; there are {', '.join(SCORES)}.")
    for name in _ONLY.value or SCORES:
        found = measured(weights, name, _CAPTIONS.value, pipelines)
        text = f"{table(found['rows'])}\n\n{found['captions']} captions, {found['date']}."
        print(f"\n{text}\n", flush=True)
        card = weights / CARD
        if card.is_file():
            write_text(card, put_into_card(card.read_text(), name, text))


if __name__ == "__main__":
    errors.run(main)
