"""Does interpolating the image weights trade style against motion?

Stylized generation (2401.12945, section 4): the image weights of the base are
`alpha · style + (1 - alpha) · original`, and the temporal weights stay.

    python benchmarks/claims/style_interpolation.py

For each seed a text-to-image run and its inflation are trained (the same runs as of
`frozen_images.py`), and the image network is fine-tuned on 16 pictures of each of two styles by
configs/style.py:tiny. Clips of held-out captions are then made for several alphas.
`style_pictures.py` says what the styles are and how distance from them is measured.
OUTPUT/style_interpolation/ gets a JSON file for each seed, style and alpha; existing ones are not
measured again. --quick tries everything out in minutes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import report
import style_pictures
import training_runs as runs
from absl import flags
from style_pictures import STYLES, flat, style_distance

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.data.scene import BACKGROUND_COLOURS, DIRECTIONS, OBJECT_COLOURS
from lumiere_jax.data.scene_captions import parse_caption
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.metrics import oracle
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

COMMAND = "python benchmarks/claims/style_interpolation.py"
FOLDER = "style_interpolation"
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TRUTH, STYLED_TRUTH = "true clips", "true clips in the style"
PICTURES, SHOWN = 16, 3
CONTRAST = 0.1  # of luminance, between object and ground
STILL = 0.2  # of the frame's width: a shorter path is none, as for the oracle
TOLERANCE = 0.05
COLOURS = {"duotone": "tab:blue", "outline": "tab:orange"}


def centres(video: np.ndarray) -> np.ndarray:
    """Where the object is in each frame, (x, y) in frame widths: the mean of what is not ground.

    It knows no colours, so that a style does not mislead it: the ground is the median of a frame.

    Args:
      video: `[time, height, width, 3]`.
    """
    video = np.asarray(video, np.float64)
    ground = np.median(video, axis=(1, 2), keepdims=True)
    weights = np.square(video - ground).sum(axis=-1)
    weights *= weights > 0.25 * weights.max(axis=(1, 2), keepdims=True)
    grid = (np.indices(video.shape[1:3])[::-1] + 0.5) / video.shape[1]
    total = np.maximum(weights.sum(axis=(1, 2)), 1e-9)
    return np.einsum("thw,chw->tc", weights, grid) / total[:, None]


def movement(video: np.ndarray) -> np.ndarray:
    """Path (x, y) over the clip, in frame widths, of the straight line nearest to the centres."""
    found = centres(video)
    moments = np.linspace(0, 1, len(found))
    moments = moments - moments.mean()
    return moments @ (found - found.mean(axis=0)) / (moments @ moments)


def nearest_direction(path: np.ndarray) -> str:
    """The direction of a path; "still" for a short one."""
    length = np.linalg.norm(path)
    if length < STILL:
        return "still"
    moving = {name: unit for name, unit in DIRECTIONS.items() if name != "still"}
    return max(moving, key=lambda name: float(np.dot(moving[name], path)))


def measure(
    videos: np.ndarray, captions: Sequence[str], pictures: np.ndarray
) -> dict[str, float | int]:
    """Style and motion of clips.

    Args:
      videos: `[clips, time, height, width, 3]` in [-1, 1].
      captions: one a clip.
      pictures: of the style, `[number, height, width, 3]`.

    Returns:
      "style_distance"; the shares of clips whose "direction" is right, by the path of what is not
      ground, and by the "oracle_direction"; mean length of the "path" of clips that should move.
    """
    asked = [parse_caption(caption).objects[0].direction for caption in captions]
    paths = [movement(video) for video in videos]
    right = [nearest_direction(path) == name for path, name in zip(paths, asked, strict=True)]
    judged = [oracle.judge(*pair).direction for pair in zip(videos, captions, strict=True)]
    moving = [np.linalg.norm(p) for p, name in zip(paths, asked, strict=True) if name != "still"]
    return {
        "style_distance": style_distance(flat(videos), pictures),
        "direction": float(np.mean(right)),
        "oracle_direction": float(np.mean(judged)),
        "path": float(np.mean(moving)) if moving else float("nan"),
    }


def grey_contrast(caption: str) -> float:
    """Difference of luminance (ITU-R BT.601) of object and background, of a range of 1."""
    said = parse_caption(caption)
    pair = OBJECT_COLOURS[said.objects[0].colour], BACKGROUND_COLOURS[said.background_colour]
    return abs(float(np.dot(np.subtract(*pair), (0.299, 0.587, 0.114))))


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained and sampled: folder of the runs, steps of the three stages, captions."""

    folder: Path
    image_steps: int
    steps: int
    style_steps: int
    captions: int

    def style_run(self, style: str, seed: int) -> Path:
        """The image network of a seed, fine-tuned on a style; trained if it is missing."""
        pictures = style_pictures.write_pictures(self.folder / f"pictures_{style}", style, PICTURES)
        config = runs.tiny_config("style", seed)
        config.train.num_steps = self.style_steps
        config.init_from = str(runs.image_run(self.folder, seed, self.image_steps))
        config.data.folder = str(pictures)
        name = f"style_{style}_{self.style_steps}_after_{self.image_steps}_seed{seed}"
        return runs.train_once(config, self.folder / name)

    def clips_path(self, style: str, seed: int, alpha: float) -> Path:
        """The file that keeps the clips of an alpha."""
        steps = f"{self.image_steps}_{self.steps}_{self.style_steps}"
        name = f"style_{style}_{alpha:g}_{steps}_seed{seed}_{self.captions}.npy"
        return self.folder / "clips" / name

    def clips(self, style: str, seed: int, alpha: float) -> np.ndarray:
        """Clips of the held-out captions, made or read; the same noise for all alphas."""

        def make() -> np.ndarray:
            config = runs.video_config(seed, self.steps)
            video_run = runs.video_run(self.folder, config, self.image_steps)
            pipeline = LumierePipeline.from_checkpoints(video_run)
            pipeline = pipeline.with_style(self.style_run(style, seed), alpha)
            seeds = [seed * 100_000 + number for number in range(self.captions)]
            return pipeline(self.truth()[1], seeds=seeds, batch_size=32)

        return runs.sampled(self.clips_path(style, seed, alpha), make)

    def truth(self) -> tuple[np.ndarray, list[str]]:
        """The held-out clips that are scored, and their captions."""
        return self.scored(runs.tiny_config("stunet", 0))

    def scored(self, config: ConfigDict) -> tuple[np.ndarray, list[str]]:
        """The first held-out clips whose object can be told from the ground without colours.

        One of the styles has none: an object that it hides would look like lost motion.
        """
        videos, captions = runs.held_out(config, 2 * self.captions)
        chosen = [i for i, caption in enumerate(captions) if grey_contrast(caption) >= CONTRAST]
        if len(chosen) < self.captions:
            raise UserError(
                f"only {len(chosen)} of {len(captions)} captions have an object that stands out in "
                f"grey, and --captions={self.captions} are asked for; ask for fewer."
            )
        chosen = chosen[: self.captions]
        return videos[chosen], [captions[i] for i in chosen]

    def cell(self, style: str, seed: int, alpha: float | str) -> report.Cell:
        """The figures of an alpha, or of true clips."""
        truth, captions = self.truth()
        size = truth.shape[2]
        folder = style_pictures.write_pictures(self.folder / f"pictures_{style}", style, PICTURES)
        pictures = style_pictures.read_pictures(folder, size)
        if alpha == STYLED_TRUTH:
            config = runs.tiny_config("stunet", 0)
            config.data.resolution = style_pictures.DRAWN_PIXELS
            large, _ = self.scored(config)
            truth = np.stack([style_pictures.in_style(clip, style, size) for clip in large])
        videos = truth if isinstance(alpha, str) else self.clips(style, seed, alpha)
        return {"figures": measure(videos, captions, pictures)}


def figures(cells: Sequence[report.Cell], style: str, alpha: float | str, key: str) -> list[float]:
    """A figure of one style and alpha, by seed."""
    found = report.matching(cells, style=style, alpha=alpha)
    return [c["figures"][key] for c in sorted(found, key=lambda c: c["settings"]["seed"])]


def judge(cells: Sequence[report.Cell], style: str) -> tuple[bool, float]:
    """Whether every seed gets nearer to a style, and by how much direction changes (median)."""
    near, far = (figures(cells, style, alpha, "style_distance") for alpha in (1.0, 0.0))
    after, before = (figures(cells, style, alpha, "direction") for alpha in (1.0, 0.0))
    nearer = all(a < b for a, b in zip(near, far, strict=True))
    return nearer, float(np.median(np.subtract(after, before)))


def verdict(cells: Sequence[report.Cell]) -> str:
    """For which styles there is a trade-off, by the rule that it states."""
    judged = {style: judge(cells, style) for style in present(cells)}
    number = sum(nearer and change < -TOLERANCE for nearer, change in judged.values())
    word = "Holds" if number == len(judged) else "Does not hold" if not number else "Holds partly"
    details = "; ".join(
        f"{style}: {'nearer' if nearer else 'not nearer'}, {100 * change:+.0f} points"
        for style, (nearer, change) in judged.items()
    )
    return (
        f"{word} here, by the rule that from alpha 0 to 1 clips get nearer to the style in every "
        f"seed and the share of right directions falls by more than {100 * TOLERANCE:.0f} points "
        f"(median of seeds); this is so for {number} of {len(judged)} styles ({details})."
    )


def present(cells: Sequence[report.Cell]) -> list[str]:
    """The styles that were measured."""
    return [style for style in STYLES if report.matching(cells, style=style)]


def section(output: Path) -> str:
    """The section about this claim for a document in the folder above that of the results."""
    cells = report.read_kept(output / FOLDER)
    settings = cells[0]["settings"]
    head = ["style", "alpha", "distance from the style", "direction right",
            "direction right, by the oracle", "path, frame widths"]  # fmt: skip
    forms = {"style_distance": ".3f", "direction": ".0%", "oracle_direction": ".0%", "path": ".3f"}
    rows = []
    for style in present(cells):
        for alpha in (*ALPHAS, TRUTH, STYLED_TRUTH):
            if figures(cells, style, alpha, "path"):
                found = [
                    report.spread(figures(cells, style, alpha, key), form)
                    for key, form in forms.items()
                ]
                rows.append([style, alpha if isinstance(alpha, str) else f"{alpha:g}", *found])
    seeds = len({c["settings"]["seed"] for c in report.matching(cells, alpha=0.0)})
    text = (
        f"{seeds} random starts (median and range); {settings['steps'][2]} steps of the stage "
        f"`style` on {PICTURES} pictures; clips of 8 frames of 16×16 of {settings['captions']} "
        "held-out captions, whose objects also stand out in grey. Distance from the style: between "
        "the mean Gram matrix of the frames and that of the pictures, over ten features per pixel "
        "(1, colours, and their differences from the pixels to the right and below). Direction: of "
        "the path of whatever differs from the background, which needs no colours. The oracle "
        "looks for the named colours, so a style misleads it, as its row of true clips in the "
        "style shows. Path: its length in clips that should move; true ones are 0.45 to 0.55 long."
    )
    return report.section(
        title="interpolated image weights trade style against motion",
        paper=(
            "The paper interpolates between the original image weights and those of a style, and "
            "picks alpha between 0.5 and 1 for each style: that it has to be picked says that more "
            "of the style costs something, which is taken here to be motion."
        ),
        command=COMMAND,
        cells=cells,
        body=[text, report.table(head, rows)],
        pictures=[f"{output.name}/{FOLDER}{suffix}.png" for suffix in ("", "_clips")],
        verdict=verdict(cells),
    )


def draw(cells: Sequence[report.Cell], path: Path) -> None:
    """Direction and length of the path against distance from the style, one line a style."""
    labels = {"direction": "direction right", "path": "path of what should move, frame widths"}
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, (key, label) in zip(panels, labels.items(), strict=True):
        for style in present(cells):
            found = [
                (figures(cells, style, a, "style_distance"), figures(cells, style, a, key))
                for a in ALPHAS
            ]
            x, y = np.median(found, axis=2).T
            axes.plot(x, y, "o-", color=COLOURS[style], label=style)
            axes.plot(*np.array(found).transpose(1, 0, 2).reshape(2, -1), ".", color=COLOURS[style],
                      alpha=0.4)  # fmt: skip
            for alpha, place in zip(ALPHAS, zip(x, y, strict=True), strict=True):
                axes.annotate(f"{alpha:g}", place, textcoords="offset points", xytext=(4, 4))
            styled = [figures(cells, style, STYLED_TRUTH, k) for k in ("style_distance", key)]
            axes.plot(*styled, "*", color=COLOURS[style], markersize=10)
        axes.set(xlabel="distance from the style (star: true clips in it)", ylabel=label)
        axes.set_ylim(0, None)
        axes.invert_xaxis()
    panels[0].legend(frameon=False, title="numbers: alpha", loc="lower left")
    report.save_figure(figure, path)


def draw_clips(setting: Setting, styles: Sequence[str], seed: int, path: Path) -> None:
    """Some clips of each style and alpha."""
    captions, shown, names = setting.truth()[1], [], []
    for style in styles:
        for number in range(min(SHOWN, setting.captions)):
            for alpha in ALPHAS:
                shown.append(setting.clips(style, seed, alpha)[number])
                names.append(f"{style}, alpha {alpha:g}: {captions[number]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(path, shown, names)


def main(argv: list[str]) -> None:
    """Trains and samples whatever is missing, and makes pictures and text of all."""
    del argv
    given, output = flags.FLAGS, report.output_folder(flags.FLAGS)
    steps = (4, 4, 4) if given.quick else (given.image_steps, given.steps, given.style_steps)
    seeds = [0] if given.quick else [int(seed) for seed in given.seeds]
    setting = Setting(Path(given.runs), *steps, 8 if given.quick else given.captions)
    runs.start(setting.folder)
    todo = []
    for style in STYLES:
        todo += [(style, seeds[0], alpha) for alpha in (TRUTH, STYLED_TRUTH)]
        todo += [(style, seed, alpha) for seed in seeds for alpha in ALPHAS]
    shared = {"captions": setting.captions, "steps": list(steps)}
    cells = [
        (
            f"{style}_{str(alpha).replace(' ', '_')}_seed{seed}",
            {"style": style, "alpha": alpha, "seed": seed, **shared},
            functools.partial(setting.cell, style, seed, alpha),
        )
        for style, seed, alpha in todo
    ]
    cells = report.all_kept(output / FOLDER, "style", cells)
    draw(cells, output / f"{FOLDER}.png")
    kept = [setting.clips_path(style, seeds[0], alpha) for style in STYLES for alpha in ALPHAS]
    if all(path.is_file() for path in kept):  # results may outlive their clips
        draw_clips(setting, list(STYLES), seeds[0], output / f"{FOLDER}_clips.png")
    print(section(output))


if __name__ == "__main__":
    runs.define_flags(1250, 64)
    flags.DEFINE_integer("style_steps", 200, "Steps of each style.", lower_bound=2)
    errors.run(main)
