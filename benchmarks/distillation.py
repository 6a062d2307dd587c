"""What distillation costs and gains: oracle scores, and seconds from prompt to final video.

    python benchmarks/distillation.py --base=runs/stunet --ssr=runs/ssr \
        --student_base=runs/stunet_4 --student_ssr=runs/ssr_4

Samples the same held-out captions with the same seeds in five ways: the teachers in their own
steps, the teachers in as few steps as the students (evenly in time, at the students' times, and
there by DPM-Solver++, which is made for few steps), and the students. They take turns when they are
timed. Each result is a JSON file in --output, and is measured again only if weights or settings
change. The page is written from these files, with a table for each --source.
"""

import dataclasses
import datetime
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from lumiere_jax.inference.pipeline import LumierePipeline

_BASE = flags.DEFINE_string("base", None, "Workdir of the teacher of the base.")
_SSR = flags.DEFINE_list("ssr", [], "Workdirs of super-resolution teachers, in order.")
_STUDENT_BASE = flags.DEFINE_string("student_base", None, "Workdir of the base's student.")
_STUDENT_SSR = flags.DEFINE_list(
    "student_ssr", [], "Workdirs of super-resolution students; the teachers if empty."
)
_CAPTIONS = flags.DEFINE_integer("captions", 256, "Held-out captions.", lower_bound=2)
_BATCH = flags.DEFINE_integer("batch_size", 32, "Videos made at once; divides the captions.", 1)
_RUNS = flags.DEFINE_integer("runs", 5, "Times that one video is timed.", lower_bound=1)
_SOURCE = flags.DEFINE_enum(
    "source", "moving_shapes", ["moving_shapes", "moving_digits"], "Of captions, and their oracle."
)
_OUTPUT = flags.DEFINE_string(
    "output", "benchmarks/results/distillation", "Folder for the JSON files."
)
_TABLE = flags.DEFINE_string("table", "benchmarks/distillation.md", "The table to write.")
_QUICK = flags.DEFINE_bool("quick", False, "2 captions and one run, to see that it works.")
flags.mark_flags_as_required(["base", "student_base"])


def main(argv: list[str]) -> None:
    """Measures what is missing, and writes the table."""
    del argv
    import distillation_table  # beside this script

    from lumiere_jax.runtime import devices
    from lumiere_jax.runtime.files import write_text

    captions, batch, runs = _CAPTIONS.value, _BATCH.value, _RUNS.value
    if _QUICK.value:
        captions, batch, runs = 2, 1, 1
    if captions % batch:
        raise UserError(f"--captions={captions} must be a multiple of --batch_size={batch}.")
    devices.split_cpu()
    devices.keep_compiled_programs()
    folder = Path(_OUTPUT.value)
    ways = all_ways()
    described = {name: describe(pipeline) for name, pipeline in ways.items()}
    for name, pipeline in ways.items():
        settings = described[name] | {"source": _SOURCE.value, "captions": captions}
        path = folder / _SOURCE.value / f"{name}.json"
        found(path, settings, lambda p=pipeline, n=name: judge_all(p, n, captions, batch))
    timing = {"ways": described, "runs": runs}
    found(folder / "seconds.json", timing, lambda: time_in_turns(ways, runs))
    text = distillation_table.document(folder)
    write_text(_TABLE.value, text)
    print(text)


def found(path: Path, settings: dict[str, Any], measure: Any) -> dict[str, Any]:
    """What is in a file if it was measured with the same settings; else it is measured."""
    from lumiere_jax.runtime.files import write_text

    if path.is_file():
        saved = json.loads(path.read_text())
        if saved["settings"] == json.loads(json.dumps(settings)):
            print(f"{path} is up to date")
            return saved
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "settings": settings,
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        **measure(),
    }
    write_text(path, json.dumps(result, indent=2) + "\n")
    return result


def all_ways() -> dict[str, "LumierePipeline"]:
    """The cascades that are compared."""
    from lumiere_jax.inference.pipeline import LumierePipeline

    def load(base: str, ssr: list[str]) -> LumierePipeline:
        return LumierePipeline.from_checkpoints(base, ssr, show_progress=False)

    if _STUDENT_SSR.value and len(_STUDENT_SSR.value) != len(_SSR.value):
        raise UserError(
            f"--student_ssr has {len(_STUDENT_SSR.value)} stages and --ssr {len(_SSR.value)}; give "
            "a student for each, or none."
        )
    teacher = load(_BASE.value, _SSR.value)
    student = load(_STUDENT_BASE.value, _STUDENT_SSR.value or _SSR.value)
    return {
        "teacher": teacher,
        "teacher_even_steps": with_steps_of(teacher, student, time_power=1.0),
        "teacher_few_steps": with_steps_of(teacher, student),
        "teacher_few_steps_dpmpp": with_steps_of(teacher, student, "dpmpp_2m"),
        "student": student,
    }


def with_steps_of(
    pipeline: "LumierePipeline",
    other: "LumierePipeline",
    sampler: str | None = None,
    time_power: float | None = None,
) -> "LumierePipeline":
    """The same networks, sampled in the steps of another pipeline."""
    from lumiere_jax.inference.pipeline import LumierePipeline

    stages = []
    pairs = zip(
        [pipeline.base, *pipeline.super_resolution], [other.base, *other.super_resolution],
        strict=True,
    )  # fmt: skip
    for (stage, params), (few, _) in pairs:
        sampling = dataclasses.replace(
            stage.config.sampling,
            num_steps=few.config.sampling.num_steps,
            time_power=time_power or few.config.sampling.time_power,
            sampler=sampler or stage.config.sampling.sampler,
        )
        config = dataclasses.replace(stage.config, sampling=sampling)
        stages.append((dataclasses.replace(stage, config=config), params))
    return LumierePipeline(stages[0], stages[1:], show_progress=False)


def describe(pipeline: "LumierePipeline") -> dict[str, Any]:
    """Weights, how they are sampled, and the calls of the networks for one video.

    A call is of one clip or one window; guidance takes two.
    """
    from lumiere_jax.cascade.sampling_options import SamplingOptions
    from lumiere_jax.diffusion.multidiffusion import windows

    frames, stages = pipeline.base[0].config.data.num_frames, []
    for stage, _ in [pipeline.base, *pipeline.super_resolution]:
        options = SamplingOptions.from_config(stage.config)
        calls = options.num_steps * (1 if options.guidance_scale == 1 else 2)
        if stage.is_super_resolution and frames > stage.config.ssr.window:
            calls *= len(windows(frames, stage.config.ssr.window, stage.config.ssr.overlap))
        stages.append(
            {
                "stage": stage.name,
                "sampler": options.sampler,
                "steps": options.num_steps,
                "time_power": options.time_power,
                "guidance_scale": options.guidance_scale,
                "calls": calls,
            }
        )
    return {"weights": pipeline.fingerprints(), "stages": stages}


def judge_all(
    pipeline: "LumierePipeline", name: str, count: int, batch_size: int
) -> dict[str, Any]:
    """What the oracle says of each held-out caption, for the base's clip and the final one."""
    from lumiere_jax.runtime.progress import Progress

    _, captions = held_out(pipeline, count)
    judged: dict[str, list[dict[str, bool]]] = {"base": []}
    progress = Progress(f"{name}: scores", count, "clips")
    for begin in range(0, count, batch_size):
        chosen = captions[begin : begin + batch_size]
        seeds = list(range(begin, begin + batch_size))
        videos = pipeline(chosen, seeds=seeds, base_only=True, batch_size=batch_size)
        judged["base"] += [judge(*pair) for pair in zip(videos, chosen, strict=True)]
        if pipeline.super_resolution:
            final = pipeline.refine_all(videos, chosen, seeds, {})
            judged.setdefault("final", [])
            judged["final"] += [judge(*pair) for pair in zip(final, chosen, strict=True)]
        progress.update(begin + batch_size)
    return {
        place: {attribute: [row[attribute] for row in rows] for attribute in rows[0]}
        for place, rows in judged.items()
    }


def judge(video: Any, caption: str) -> dict[str, bool]:
    """The oracle's judgement of one clip, by attribute, and of all at once."""
    import numpy as np

    from lumiere_jax.metrics import digit_oracle, oracle

    digits = _SOURCE.value == "moving_digits"
    found = (digit_oracle if digits else oracle).judge(np.asarray(video), caption)
    attributes = ("digit", "motion") if digits else oracle.ATTRIBUTES
    return {name: bool(getattr(found, name)) for name in (*attributes, "all")}


def held_out(pipeline: "LumierePipeline", count: int) -> tuple[list, list[str]]:
    """Held-out clips of the source and their captions."""
    from lumiere_jax.data.sources import create_source

    data = pipeline.base[0].config.data
    parts = list(data.mixture) if data.name == "mixture" else [{"name": data.name}]
    part = next((dict(p.items()) for p in parts if p["name"] == _SOURCE.value), None)
    if part is None:
        raise UserError(
            f"--base={_BASE.value} was not trained on {_SOURCE.value}; choose another --source."
        )
    part.pop("weight", None)
    source = create_source(dataclasses.replace(data, **part), "test")
    clips, captions = zip(*(source.example(i) for i in range(count)), strict=True)
    return list(clips), list(captions)


def time_in_turns(ways: dict[str, "LumierePipeline"], runs: int) -> dict[str, Any]:
    """Seconds from a prompt to its final video: of the first, with compilation, and of others.

    Every way makes a video before any makes its next, so that a slow minute meets all of them.
    """
    from lumiere_jax.runtime.progress import Progress

    caption = held_out(next(iter(ways.values())), 1)[1][0]
    progress = Progress("seconds a video", (runs + 1) * len(ways), "videos")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(runs + 1):
        for name, pipeline in ways.items():
            begin = time.perf_counter()
            pipeline([caption], seeds=[number])
            seconds[name].append(time.perf_counter() - begin)
            progress.advance()
    return {
        "first": {name: times[0] for name, times in seconds.items()},
        "seconds": {name: times[1:] for name, times in seconds.items()},
    }


if __name__ == "__main__":
    errors.run(main)
