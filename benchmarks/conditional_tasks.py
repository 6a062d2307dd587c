"""Whether a conditional model does what it is asked to, by the oracle of `moving_shapes`.

Every task runs on held-out clips: once with its own condition (image, video or region, and text),
and once, as a baseline, with the condition of another clip. The model's own output is measured,
without known pixels pasted back.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lumiere_jax.data.scene import OBJECT_COLOURS, Scene
from lumiere_jax.data.scene_captions import describe
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle
from lumiere_jax.runtime.progress import Progress

SHOWN = 4
STRENGTH = 0.6  # of video-to-video
Row = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Case:
    """A held-out clip, what is true of it, and a caption with another colour."""

    video: np.ndarray
    scene: Scene
    caption: str
    colour: str
    other_caption: str
    region: np.ndarray


def cases(source: object, count: int) -> Iterator[Case]:
    """The first clips of a source, with all that the tasks need."""
    for index in range(count):
        video, caption = source.example(index)
        scene, generator = source.scene(index), np.random.default_rng(index)
        colours = [name for name in OBJECT_COLOURS if name != scene.objects[0].colour]
        colour = colours[int(generator.integers(len(colours)))]
        objects = (dataclasses.replace(scene.objects[0], colour=colour),)
        other = describe(dataclasses.replace(scene, objects=objects), generator)
        yield Case(video, scene, caption, colour, other, path_region(scene, video.shape[1]))


def held_out(pipeline: LumierePipeline, count: int) -> list[Case]:
    """Cases of `moving_shapes`, which the oracle knows, as large as the base's clips.

    As many as leave about `count` after those that stand still, which some tasks cannot use.
    """
    # The weights may know more.
    data = dataclasses.replace(pipeline.base[0].config.data, name="moving_shapes")
    return list(cases(create_source(data, "test"), count * 5 // 4))


def path_region(scene: Scene, size: int, margin: float = 0.06) -> np.ndarray:
    """The box that an object's path needs, bool [size, size]."""
    item = scene.objects[0]
    ends = np.array([item.start, item.end])
    low = (ends.min(axis=0) - item.radius - margin) * size
    high = (ends.max(axis=0) + item.radius + margin) * size
    pixels = np.arange(size) + 0.5
    inside = [(pixels > low[axis]) & (pixels < high[axis]) for axis in (0, 1)]
    return inside[1][:, None] & inside[0][None]


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Of values in [-1, 1], dB."""
    return float(10 * np.log10(4 / max(np.mean(np.square(first - second)), 1e-10)))


def centres(video: np.ndarray) -> np.ndarray:
    """Where the object is in each frame, (x, y) in frame widths: the mean of what is not ground."""
    ground = np.median(video, axis=(1, 2), keepdims=True)
    weights = np.square(video - ground).sum(axis=-1)
    weights *= weights > 0.25 * weights.max(axis=(1, 2), keepdims=True)
    grid = (np.indices(video.shape[1:3])[::-1] + 0.5) / video.shape[1]
    return np.einsum("thw,chw->tc", weights, grid) / weights.sum(axis=(1, 2))[:, None]


def image_to_video(pipeline: LumierePipeline, case: Case, given: Case, seed: int) -> tuple:
    """Shown `given`'s first frame and caption: does it fit `case`?"""
    (made,) = pipeline.animate(given.video[0], [given.caption], seeds=[seed], base_only=True)
    judged = oracle.judge(made, case.caption)
    return made, {
        "frame 0, PSNR": psnr(made[0], case.video[0]),
        "direction": judged.direction,
        "colour": judged.colour,
    }


def inpainting(pipeline: LumierePipeline, case: Case, given: Case, seed: int) -> tuple:
    """The object's path is inpainted, with a caption that names another colour."""
    (made,) = pipeline.inpaint(
        given.video, given.region[None], [given.other_caption],
        seeds=[seed], paste=False, base_only=True,
    )  # fmt: skip
    judged = oracle.judge(made, case.other_caption)
    outside = ~case.region
    return made, {
        "asked colour": judged.colour,
        "outside, PSNR": psnr(made[:, outside], case.video[:, outside]),
    }


def cinemagraph(pipeline: LumierePipeline, case: Case, given: Case, seed: int) -> tuple:
    """The object's path moves, and the rest stands still."""
    (made,) = pipeline.cinemagraph(
        given.video[0], given.region, [given.caption], seeds=[seed], paste=False, base_only=True
    )
    outside, change = ~case.region, np.abs(np.diff(made, axis=0))
    return made, {
        "outside, mean difference from the image": float(
            np.abs(made - case.video[0])[:, outside].mean()
        ),
        "outside, change a frame": float(change[:, outside].mean()),
        "inside, change a frame": float(change[:, case.region].mean()),
    }


def video_to_video(pipeline: LumierePipeline, case: Case, given: Case, seed: int) -> tuple:
    """The clip is noised and denoised, with a caption that names another colour."""
    (made,) = pipeline.video_to_video(
        given.video, [given.other_caption], strength=STRENGTH, seeds=[seed], base_only=True
    )
    judged = oracle.judge(made, case.other_caption)
    distance = np.linalg.norm(centres(made) - centres(case.video), axis=-1)
    return made, {
        "direction": judged.direction,
        "asked colour": judged.colour,
        "distance from its place": float(distance.mean()),
    }


TASKS: dict[str, Callable[..., tuple]] = {
    "image-to-video": image_to_video,
    "inpainting": inpainting,
    "cinemagraph": cinemagraph,
    "video-to-video": video_to_video,
}


CAPTION = {
    "image-to-video": "caption",
    "inpainting": "other_caption",
    "cinemagraph": "caption",
    "video-to-video": "other_caption",
}


def measure(
    pipeline: LumierePipeline, task: str, all_cases: list[Case], pictures: Path | None = None
) -> dict[str, Any]:
    """The means of a task's figures over the cases, with the right and a wrong condition.

    Args:
      pipeline: its base is conditional.
      task: a key of `TASKS`.
      all_cases: of which those that stand still are left out where motion is asked for.
      pictures: folder for a picture of the first clips; None for no picture.

    Returns:
      "right" and "wrong" -> figure -> mean, and "cases", their number.
    """
    rows = {"right": [], "wrong": []}
    shown = []
    moving = [c for c in all_cases if c.scene.objects[0].direction != "still"]
    chosen = moving if task in ("image-to-video", "video-to-video") else all_cases
    progress = Progress(task, 2 * len(chosen), "clips")
    for kind in rows:
        for number, case in enumerate(chosen):
            given = case if kind == "right" else chosen[(number + 1) % len(chosen)]
            made, figures = TASKS[task](pipeline, case, given, number)
            rows[kind].append(figures)
            if kind == "right" and number < SHOWN:
                caption = getattr(case, CAPTION[task])
                shown += [(case.video, "given"), (made, f"{task}: {caption}")]
            progress.advance()
    if pictures is not None:
        path = pictures / f"{task}.png"
        write_contact_sheet(path, [video for video, _ in shown], [text for _, text in shown])
    means = {
        kind: {name: float(np.mean([row[name] for row in found])) for name in found[0]}
        for kind, found in rows.items()
    }
    return means | {"cases": len(chosen)}


def cell(name: str, value: float) -> str:
    """A figure as text."""
    if "PSNR" in name:
        return f"{value:.1f} dB"
    return (
        f"{value:.3f}"
        if {"change", "difference", "distance"} & set(name.split())
        else f"{value:.0%}"
    )
