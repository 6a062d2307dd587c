"""What the methods of guidance do to the base clips of the shipped weights, as a table.

    python benchmarks/guidance.py                              (64 captions; goes on where it ended)
    python benchmarks/guidance.py --guide=runs/short/stunet    (autoguidance as well)

For held-out captions of `moving_shapes`, with the same seeds in each row: what the oracle finds
right; the share of values beyond ±0.98, which is low where thresholding has made clips pale, and
high where guidance has saturated them; the mean difference of neighbouring pixels, which blur
lowers; and how far apart clips of one caption are. True clips of the same captions stand in the
first row. Each row is kept in --results until the weights change; the table is written to
benchmarks/guidance.md.
"""

import datetime
import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float
from shipped_clips import BATCH, Shipped, identities

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference import autoguidance
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import predictions
from lumiere_jax.metrics import oracle
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import Progress

TABLE = Path(__file__).with_suffix(".md")
ORACLE = ("colour", "shape", "direction", "all", "shape_frames")
METHODS: dict[str, dict[str, Any]] = {
    "`cfg`": {},
    "`cfg`, times 0.9 to 0.2": {"guidance_from": 0.9, "guidance_to": 0.2},
    "`cfg`, times 1 to 0.5": {"guidance_to": 0.5},
    "`cfg`, every 2nd step": {"guidance_every": 2},
    "`cfg`, every 4th step": {"guidance_every": 4},
    "`apg`": {"guidance": "apg"},
    "`apg`, momentum 0": {"guidance": "apg", "guidance_momentum": 0.0},
    "`apg`, limit 0.1": {"guidance": "apg", "guidance_limit": 0.1},
    "`cfg_zero`": {"guidance": "cfg_zero"},
    "`cfg_zero`, no rest": {"guidance": "cfg_zero", "guidance_zero_until": 1.0},
    # Thresholding divides by what is out of range, and so hides that colours are saturated.
    "`cfg`, clipped": {"threshold_max": 1.0},
    "`apg`, clipped": {"guidance": "apg", "threshold_max": 1.0},
}
AUTOGUIDANCE = "autoguidance, `cfg`"

Clips = Float[np.ndarray, "clips time height width 3"]
Row = dict[str, float]


def saturation(clips: Clips) -> float:
    """The share of values that are black or white in their channel, beyond ±0.98."""
    return float(np.mean(np.abs(clips) > 0.98))


def sharpness(clips: Clips) -> float:
    """The mean absolute difference of pixels that are neighbours in a row or in a column."""
    return float(np.mean([np.abs(np.diff(clips, axis=axis)).mean() for axis in (2, 3)]))


def diversity(sets: Sequence[Clips]) -> float:
    """The mean RMSE of two clips of one set; each set is of one caption."""
    pairs = [pair for clips in sets for pair in itertools.combinations(clips, 2)]
    return float(np.mean([np.sqrt(np.mean(np.square(a - b))) for a, b in pairs]))


def measured(clips: Clips, captions: Sequence[str], sets: Sequence[Clips]) -> Row:
    """All columns of a row; `sets` are several clips of one caption each."""
    right = oracle.score(list(clips), captions)
    row = {name: right[name] for name in ORACLE}
    row |= {"saturation": saturation(clips), "sharpness": sharpness(clips)}
    return row | ({"diversity": diversity(sets)} if sets else {})


def sampled(
    pipeline: LumierePipeline, captions: Sequence[str], varied: int, seeds: int, **options: Any
) -> Row:
    """A row of clips that a pipeline makes; the first captions have further seeds."""
    count = len(captions)
    further = [(i, count * s + i) for i in range(varied) for s in range(1, seeds)]
    asked = [*((i, i) for i in range(count)), *further]
    made = pipeline(
        [captions[i] for i, _ in asked], seeds=[seed for _, seed in asked], base_only=True,
        batch_size=BATCH, **options,
    )  # fmt: skip
    more = made[count:].reshape(varied, seeds - 1, *made.shape[1:])
    sets = [np.concatenate([made[i : i + 1], more[i]]) for i in range(varied)]
    return measured(made[:count], captions, sets)


def kept(path: Path, settings: dict[str, Any], make: Callable[[], Row]) -> Row:
    """A row from its file, if that is of the same settings, or made now."""
    if path.is_file():
        saved = json.loads(path.read_text())
        if saved["settings"] == settings:
            return saved["row"]
    row = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"settings": settings, "row": row}, indent=1) + "\n")
    return row


def table(rows: dict[str, Row]) -> str:
    """Markdown: what is right, and saturation, as percentages."""
    columns = ["predictions", *ORACLE, "saturation", "sharpness", "diversity"]
    head = f"| guidance | {' | '.join(c.replace('_', ' ') for c in columns)} |"
    lines = [head, "|---" * (1 + len(columns)) + "|"]
    for name, row in rows.items():
        cells = [f"{row['predictions']:.0f}" if "predictions" in row else "-"]
        cells += [f"{row[c]:.1%}" for c in columns[1:-2]]
        cells += [f"{row['sharpness']:.4f}"]
        cells += [f"{row['diversity']:.3f}" if "diversity" in row else "-"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: dict[str, Row], settings: dict[str, Any], is_guided: bool) -> str:
    """The whole page."""
    command = "    python benchmarks/guidance.py" + " --guide=WORKDIR" * is_guided
    text = (
        f"{settings['captions']} held-out captions of `moving_shapes`, the same seeds in each row, "
        f"base clips of {settings['steps']} steps. Saturation: values beyond "
        f"±0.98. Predictions: of the network, for one clip. "
        f"Sharpness: mean difference of neighbouring pixels. Diversity: mean RMSE of two "
        f"clips of one caption, {settings['seeds']} seeds of each of {settings['varied']} "
        f"captions. {datetime.date.today()}, {os.cpu_count()} cores of an x86-64 VM, float32."
    )
    return f"# Methods of guidance\n\n{command}\n\n{text}\n\n{table(rows)}\n"


def define_flags() -> None:
    """Defines the flags of this script; not on import, so that tests can import it."""
    results = Path(__file__).parent / "results" / "guidance"
    flags.DEFINE_string("weights", "weights/small", "Bundle whose base is sampled.")
    flags.DEFINE_string("guide", None, "Workdir of a weaker base, for autoguidance.")
    flags.DEFINE_list("scales", ["1.5", "4"], "Scales of guidance.")
    flags.DEFINE_integer("captions", 64, "Held-out captions.", lower_bound=2)
    flags.DEFINE_integer("varied", 8, "Those of them that have several seeds.", lower_bound=1)
    flags.DEFINE_integer("seeds", 4, "Seeds of each of these.", lower_bound=2)
    flags.DEFINE_integer("steps", None, "Denoising steps; the config's if not given.", 1)
    flags.DEFINE_string("results", str(results), "Folder of the rows.")
    flags.DEFINE_string("output", str(TABLE), "Page to write.")


def main(argv: list[str]) -> None:
    """Measures what is missing, and writes the page."""
    del argv
    given = flags.FLAGS
    devices.split_cpu()
    weights, results = Path(given.weights), Path(given.results)
    shipped = Shipped(weights, results)
    pipeline, varied = shipped.pipeline, min(given.varied, given.captions)
    pipeline.show_progress = False
    truth, captions = shipped.held_out("moving_shapes", given.captions)
    ways = [("none", pipeline, {"guidance_scale": 1.0})]
    ways += [
        (f"{name}, scale {scale}", pipeline, options | {"guidance_scale": float(scale)})
        for name, options in METHODS.items()
        for scale in given.scales
    ]
    if given.guide:
        guide, _ = autoguidance.load(given.guide, shipped.config)
        led = LumierePipeline(
            pipeline.base, guide=guide, show_progress=False, programs=pipeline.programs
        )
        ways += [
            (f"{AUTOGUIDANCE}, scale {scale}", led, {"guidance_scale": float(scale)})
            for scale in given.scales
        ]
    settings = {
        "weights": identities(weights, ("stunet",))["stunet"], "captions": given.captions,
        "varied": varied, "seeds": given.seeds,
        "steps": given.steps or shipped.config.sampling.num_steps,
    }  # fmt: skip
    rows = {"true clips": measured(np.stack(truth), captions, [])}
    progress = Progress("guidance", len(ways), "rows")
    for number, (name, chosen, options) in enumerate(ways, 1):
        own = settings | {"options": options}
        if chosen.guide is not None:
            own["guide"] = checkpoint.fingerprint(chosen.guide)
        file = results / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"
        rows[name] = kept(
            file, own,
            lambda chosen=chosen, options=options: sampled(
                chosen, captions, varied, given.seeds, num_steps=given.steps, **options
            ),
        )  # fmt: skip
        asked = SamplingOptions.from_config(shipped.config, num_steps=given.steps, **options)
        rows[name]["predictions"] = predictions(pipeline.base[0].schedule, asked)
        progress.update(number)
    write_text(Path(given.output), page(rows, settings, bool(given.guide)))
    print(given.output)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
