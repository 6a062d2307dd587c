"""Measures the scores of the shipped weights, and writes them into their model card.

    python benchmarks/shipped_scores.py --weights=weights/small        (or: make scores)

Held-out captions only. Scores of unchanged weights come from BUNDLE/scores/; delete that folder to
measure everything again. Clips are generated once for all scores, and kept in --clips until the
weights change. Needs the extra `.[eval]`.
"""

import dataclasses
import datetime
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.config import default_config
from lumiere_jax.checkpoints import bundle, selection
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.runtime.progress import Progress

if TYPE_CHECKING:
    from lumiere_jax.inference.pipeline import LumierePipeline

CARD = "README.md"
PROMPT = "a large red circle moving right on a plain black background"
SAMPLES = 16
BATCH, REFINED_BATCH = 32, 8
SOURCES = ("moving_shapes", "moving_digits")
Cell = dict[str, dict[str, float | int | str]]


class Shipped:
    """The shipped pipeline, its sources, and the clips that it made of their captions.

    Attributes:
      weights: the bundle.
      pipeline: base and super-resolution.
      config: of the base.
    """

    def __init__(self, weights: Path, clips: Path):
        """Loads the weights.

        Args:
          weights: the bundle.
          clips: folder that keeps what is made.
        """
        from lumiere_jax.inference.pipeline import LumierePipeline

        base, ssr = identities(weights, ("stunet", "ssr")).values()
        self._sums = {"base": base[:12], "untrained": base[:12], "refined": ssr[:12]}
        self._clips, self.weights = clips / base[:12], weights
        self.pipeline = LumierePipeline.from_checkpoints(weights / "stunet", [weights / "ssr"])
        self.config = self.pipeline.base[0].config

    def held_out(self, name: str, count: int, first: int = 0) -> tuple[list[np.ndarray], list[str]]:
        """Clips of one source of the mixture that the weights learnt from, and their captions."""
        from lumiere_jax.data.sources import create_source

        max_objects = 2 if name == "moving_digits" else 1
        data = dataclasses.replace(self.config.data, name=name, max_objects=max_objects)
        source = create_source(data, "test")
        videos, captions = zip(*(source.example(first + i) for i in range(count)), strict=True)
        return list(videos), list(captions)

    def base(self, name: str, count: int) -> np.ndarray:
        """Clips of the first held-out captions of a source, `[count, time, h, w, 3]`."""
        captions = self.held_out(name, count)[1]
        return self._kept(
            "base", name, count,
            lambda n: self.pipeline(captions[n:], seeds=range(n, count), base_only=True,
                                    batch_size=BATCH),
        )  # fmt: skip

    def refined(self, name: str, count: int) -> np.ndarray:
        """The same clips after super-resolution."""
        captions = self.held_out(name, count)[1]
        return self._kept(
            "refined", name, count,
            lambda n: self.super_resolve(self.pipeline, self.base(name, count), captions, first=n),
        )  # fmt: skip

    @staticmethod
    def super_resolve(
        pipeline: "LumierePipeline", base: np.ndarray, captions: Sequence[str], first: int = 0
    ) -> np.ndarray:
        """Refines base clips from the first on, each with its number as seed."""
        made = []
        for begin in range(first, len(base), REFINED_BATCH):
            chosen = slice(begin, min(begin + REFINED_BATCH, len(base)))
            seeds = list(range(chosen.start, chosen.stop))
            made.append(np.asarray(pipeline.refine(base[chosen], captions[chosen], seeds)))
        return np.concatenate(made)

    def untrained(self, name: str, count: int) -> np.ndarray:
        """Clips by the same base network without training, without guidance."""
        import jax

        from lumiere_jax.inference.pipeline import LumierePipeline

        captions = self.held_out(name, count)[1]
        stage, _ = self.pipeline.base
        made = LumierePipeline((stage, jax.jit(stage.init_params)(jax.random.key(0))))
        return self._kept(
            "untrained", name, count,
            lambda n: made(captions[n:], seeds=range(n, count), guidance_scale=1.0,
                           batch_size=BATCH),
        )  # fmt: skip

    def _kept(
        self, kind: str, name: str, count: int, make: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Clips from their file; `make` is given how many there are, and makes the others."""
        path = self._clips / f"{kind}_{self._sums[kind]}_{name}.npy"
        have = np.load(path) if path.is_file() else None
        number = 0 if have is None else len(have)
        if number < count:
            made = make(number)
            have = made if have is None else np.concatenate([have, made])
            path.parent.mkdir(parents=True, exist_ok=True)
            with written(path) as temporary:
                np.save(temporary, have)
        return have[:count]


def identities(weights: Path, stages: Sequence[str]) -> dict[str, str]:
    """What scores depend on: a checksum of each stage's weights, and of its config.

    Fields at their default are left out, so that one that is new to the code changes nothing.
    """
    found = bundle.entries(weights)

    def identity(stage: dict[str, Any]) -> str:
        config, defaults = (
            flatten_dict(fields, sep=".")
            for fields in (stage["config"], default_config(stage["config"]["stage"]).to_dict())
        )
        chosen = {name: value for name, value in config.items() if defaults.get(name) != value}
        text = stage["sha256"] + json.dumps(chosen, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    return {name: identity(found[name]) for name in stages}


def shapes(shipped: Shipped, count: int, refined: int) -> Cell:
    """Does a clip show what its caption says? Base clips, refined ones, truth and chance."""
    from lumiere_jax.metrics import oracle

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
    from lumiere_jax.metrics import digit_oracle

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
    from lumiere_jax.data.video_io import to_uint8
    from lumiere_jax.evaluation.networks import i3d_network
    from lumiere_jax.evaluation.profiles import profile
    from lumiere_jax.metrics.frechet import Moments, frechet_distance

    del refined
    settings = profile("unterthiner")
    network = i3d_network(settings)
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
    from lumiere_jax.data.moving_shapes import MovingShapes
    from lumiere_jax.data.scene_captions import attributes, parse_caption

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
        starts = np.array([_centre(video[0]) for video in videos])
        return {
            "RMSE of two samples": float(np.mean(rmse)),
            "least RMSE": float(np.min(rmse)),
            "spread of the start, x": float(starts[:, 0].std()),
            "spread of the start, y": float(starts[:, 1].std()),
        }

    return {f"{SAMPLES} samples": spread(made), f"{SAMPLES} true clips": spread(truth)}


def _of_stages(name: str) -> Callable[[Shipped, int, int], Cell]:
    """A score of `shipped_stages.py`, imported where it is needed."""
    return lambda *given: getattr(importlib.import_module("shipped_stages"), name)(*given)


SCORES: dict[str, Callable[[Shipped, int, int], Cell]] = {
    "shapes": shapes, "digits": digits, "fvd": fvd, "diversity": diversity,
    **{name: _of_stages(name) for name in ("conditional", "style", "fewer_steps")},
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


def _centre(frame: np.ndarray) -> np.ndarray:
    """Where the object is, (x, y) in frame widths: the mean of what is not ground."""
    weights = np.square(frame - np.median(frame, axis=(0, 1))).sum(axis=-1)
    weights = weights * (weights > 0.25 * weights.max())
    grid = (np.indices(weights.shape)[::-1] + 0.5) / len(frame)
    return (grid * weights).sum(axis=(1, 2)) / weights.sum()


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
