"""Image-to-video, inpainting, cinemagraph and video-to-video on real clips: making and measuring.

What is measured is the model's own output, without known pixels pasted back, by three conditions:
the clip's own (image, video or region, and text); that of another clip, as a baseline; and the true
clip in place of what is made.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from conditional_tasks import Row, psnr
from jaxtyping import Bool, Float
from real_clips import Prepared

from lumiere_jax.data.pixels import to_float
from lumiere_jax.inference.pipeline import LumierePipeline

STRENGTH = 0.6  # of video-to-video
LEVELS = 127.5  # of 0 to 255, in one of [-1, 1]
Clip = Float[np.ndarray, "time height width 3"]
Region = Bool[np.ndarray, "height width"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A held-out clip with its class and caption, and those of another class to turn it into."""

    video: Clip
    name: str
    caption: str
    other_name: str
    other_caption: str

    @property
    def region(self) -> Region:
        """The box, half as high and wide as the frame, in which most changes over time."""
        change = np.abs(np.diff(self.video, axis=0)).mean(axis=(0, 3))
        height, width = (side // 2 for side in change.shape)
        boxes = np.lib.stride_tricks.sliding_window_view(change, (height, width)).sum(axis=(2, 3))
        top, left = np.unravel_index(boxes.argmax(), boxes.shape)
        region = np.zeros(change.shape, bool)
        region[top : top + height, left : left + width] = True
        return region


def cases(clips: Prepared, seed: int = 0) -> list[Case]:
    """Each clip with the caption of a clip of another class, drawn at random."""
    rng = np.random.default_rng(seed)
    found = []
    for number, name in enumerate(clips.classes):
        other = int(rng.choice(np.flatnonzero(clips.classes != name)))
        found.append(
            Case(
                to_float(clips.clips[number]), str(name), clips.captions[number],
                str(clips.classes[other]), clips.captions[other],
            )
        )  # fmt: skip
    return found


def change(video: Clip, where: Region | None = None) -> float:
    """Mean absolute difference of neighbouring frames, in levels of 0 to 255."""
    differences = np.abs(np.diff(video, axis=0)) * LEVELS
    return float(differences.mean() if where is None else differences[:, where].mean())


def _animate(pipeline: LumierePipeline, given: Case, **options) -> Clip:
    return pipeline.animate(given.video[0], [given.caption], **options)[0]


def _animated(made: Clip, case: Case) -> Row:
    return {
        "first frame, PSNR": psnr(made[0], case.video[0]),
        "last frame, PSNR": psnr(made[-1], case.video[-1]),
        "change a frame": change(made),
    }


def _inpaint(pipeline: LumierePipeline, given: Case, **options) -> Clip:
    region = given.region[None]
    return pipeline.inpaint(given.video, region, [given.caption], paste=False, **options)[0]


def _inpainted(made: Clip, case: Case) -> Row:
    inside = case.region
    return {
        "outside, PSNR": psnr(made[:, ~inside], case.video[:, ~inside]),
        "inside, PSNR": psnr(made[:, inside], case.video[:, inside]),
        "inside, change a frame": change(made, inside),
    }


def _cinemagraph(pipeline: LumierePipeline, given: Case, **options) -> Clip:
    return pipeline.cinemagraph(
        given.video[0], given.region, [given.caption], paste=False, **options
    )[0]


def _moved(made: Clip, case: Case) -> Row:
    inside = case.region
    return {
        "outside, PSNR to the image": psnr(made[:, ~inside], case.video[:1, ~inside]),
        "outside, change a frame": change(made, ~inside),
        "inside, change a frame": change(made, inside),
    }


def _turn(pipeline: LumierePipeline, given: Case, **options) -> Clip:
    return pipeline.video_to_video(
        given.video, [given.other_caption], strength=STRENGTH, **options
    )[0]


def _turned(made: Clip, case: Case) -> Row:
    return {"PSNR to the clip": psnr(made, case.video), "change a frame": change(made)}


@dataclasses.dataclass(frozen=True)
class Task:
    """How clips are made by a condition, and measured."""

    make: Callable[..., Clip]
    measure: Callable[[Clip, Case], Row]
    changes_class: bool = False

    def asked(self, case: Case) -> str:
        """The class that what is made should show."""
        return case.other_name if self.changes_class else case.name


TASKS = {
    "image-to-video": Task(_animate, _animated),
    "inpainting": Task(_inpaint, _inpainted),
    "cinemagraph": Task(_cinemagraph, _moved),
    "video-to-video": Task(_turn, _turned, changes_class=True),
}


def given_to(all_cases: list[Case], number: int, own: bool) -> Case:
    """Whose condition a case is given: its own, or that of the next one of another class."""
    case = all_cases[number]
    if own:
        return case
    order = [*all_cases[number + 1 :], *all_cases[:number]]
    return next(other for other in order if other.name != case.name)


def means(rows: list[Row]) -> Row:
    """Means of figures."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
