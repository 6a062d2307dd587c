"""Scores of the shipped stages beside the text-to-video cascade: conditional, distilled, style."""

import conditional_tasks
from shipped_clips import Cell, Shipped

from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle

CASES = 16  # of each conditional task, twice: with the right condition and with another's
SPACED_STEPS, SPACED_POWER = 8, 2.0  # without distillation, where steps are placed better
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STYLE_CAPTIONS = 32
STYLE_PICTURE = "style.png"
_SHOWN = 3


def conditional(shipped: Shipped, count: int, refined: int) -> Cell:
    """Each task of the conditional base, with its own condition and with that of another clip."""
    del count, refined
    pipeline = LumierePipeline.from_checkpoints(
        shipped.weights / "stunet_conditional", show_progress=False
    )
    all_cases, rows = conditional_tasks.held_out(pipeline, CASES), {}
    for task in conditional_tasks.TASKS:
        found = conditional_tasks.measure(pipeline, task, all_cases)
        for name, value in found["right"].items():
            rows[f"{task}: {name}"] = {
                "clips": str(found["cases"]),
                "right condition": conditional_tasks.cell(name, value),
                "that of another clip": conditional_tasks.cell(name, found["wrong"][name]),
            }
    return rows


def fewer_steps(shipped: Shipped, count: int, refined: int) -> Cell:
    """Do the distilled stages show what captions say, as their teachers do?"""
    captions = shipped.held_out("moving_shapes", count)[1]
    few = LumierePipeline.from_pretrained(shipped.weights, distilled=True)
    base = {"seeds": range(count), "base_only": True, "batch_size": 32}
    spaced = shipped.pipeline(captions, num_steps=SPACED_STEPS, time_power=SPACED_POWER, **base)
    made = few(captions, **base)
    large = shipped.super_resolve(few, made[:refined], captions)
    teacher, power = shipped.pipeline, f"`--time_power={SPACED_POWER:g}`"
    first = f"the first {refined}, "
    videos = {
        f"{_steps(teacher)}, 32×32": shipped.base("moving_shapes", count),
        f"{_steps(teacher, SPACED_STEPS)}, {power}, 32×32": spaced,
        f"{_steps(few)}, 32×32": made,
        f"{first}{_steps(teacher, refined=True)}, 128×128": shipped.refined(
            "moving_shapes", refined
        ),
        f"{first}{_steps(few, refined=True)}, 128×128": large,
    }
    return {
        name: oracle.score(list(clips), captions[: len(clips)]) for name, clips in videos.items()
    }


def _steps(pipeline: LumierePipeline, num_steps: int | None = None, refined: bool = False) -> str:
    stages = [pipeline.base, *(pipeline.super_resolution if refined else [])]
    numbers = [str(num_steps or stage.config.sampling.num_steps) for stage, _ in stages]
    scale = pipeline.base[0].config.sampling.guidance_scale
    guided = f"guidance {scale:g}" if scale != 1 else "unguided"
    return f"{' + '.join(numbers)} steps, {guided}"


def style(shipped: Shipped, count: int, refined: int) -> Cell:
    """What of a caption is still seen as the image weights go over to the style; and a picture."""
    del count, refined
    captions = shipped.held_out("moving_shapes", STYLE_CAPTIONS)[1]
    rows, shown = {}, []
    for alpha in ALPHAS:
        pipeline = shipped.pipeline.with_style(shipped.weights / "style", alpha)
        videos = pipeline(captions, seeds=range(len(captions)), base_only=True, batch_size=32)
        score = oracle.score(list(videos), captions)
        rows[f"α = {alpha:g}"] = {name: score[name] for name in ("colour", "direction")}
        shown += [
            (video, f"alpha {alpha:g}: {caption}")
            for video, caption in zip(videos[:_SHOWN], captions[:_SHOWN], strict=True)
        ]
    shown.sort(key=lambda pair: captions.index(pair[1].partition(": ")[2]))
    path = shipped.weights / "scores" / STYLE_PICTURE
    path.parent.mkdir(exist_ok=True)
    write_contact_sheet(path, [video for video, _ in shown], [text for _, text in shown])
    return rows
