"""How good a model of real clips is: classes, motion, nearest training clips; and pictures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lumiere_jax.data.limits import changes
from lumiere_jax.metrics.frechet import Moments, frechet_distance
from lumiere_jax.runtime.files import written

Clips = UInt8[np.ndarray, "clip frame height width 3"]
Logits = Float[np.ndarray, "clip 400"]


@dataclasses.dataclass(frozen=True)
class Set:
    """Clips with what they are meant to show."""

    clips: Clips  # their pixels
    classes: np.ndarray  # name of the class of each
    logits: Logits  # of I3D


# --- Figures -----------------------------------------------------------------------------------


def distance(first: Logits, second: Logits) -> float:
    """FVD of two sets."""
    return frechet_distance(Moments.of(first), Moments.of(second))


def motion(clips: Clips) -> Float[np.ndarray, " clip"]:
    """Mean absolute difference of neighbouring frames, in levels of 0 to 255."""
    return np.array([np.mean(changes(clip)) for clip in clips])


def sharpness(clips: Clips) -> Float[np.ndarray, " clip"]:
    """Mean absolute difference of neighbouring pixels of a row, in levels of 0 to 255."""
    return np.array([np.abs(np.diff(clip.astype(np.int16), axis=2)).mean() for clip in clips])


def nearest(logits: Logits, among: Logits) -> tuple[Int[np.ndarray, " clip"], np.ndarray]:
    """Number of the nearest clip of another set, and how far it is."""
    squares = (logits**2).sum(1)[:, None] + (among**2).sum(1) - 2 * logits @ among.T
    found = squares.argmin(1)
    return found, np.sqrt(np.maximum(squares[np.arange(len(logits)), found], 0))


def classifier(train: Set):
    """Tells classes apart by I3D's logits: multinomial logistic regression on standardized ones."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    return model.fit(train.logits, train.classes)


def accuracy(model, some: Set) -> float:
    """Mean over classes of the share that is told right, so that large ones do not decide."""
    right = model.predict(some.logits) == some.classes
    return float(np.mean([right[some.classes == name].mean() for name in np.unique(some.classes)]))


def table(model, train: Set, held_out: Set, others: dict[str, Set]) -> str:
    """A row for each set: FVD to the held-out clips, class by a `classifier`, motion and so on."""
    count, rng = len(held_out.clips), np.random.default_rng(0)
    drawn = subset(train, rng.permutation(len(train.clips))[:count])
    rows = {"held-out clips": held_out, "training clips, as many": drawn} | others
    real = motion(held_out.clips).mean()
    lines = [
        "| set | clips | FVD to held-out clips | class as asked | motion, in levels (to held-out) "
        "| sharpness | distance to the nearest training clip, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, some in rows.items():
        is_train = name.startswith("training")
        told = "-" if is_train else f"{accuracy(model, some):.0%}"
        far = "-" if is_train else f"{np.median(nearest(some.logits, train.logits)[1]):.1f}"
        fvd = "-" if some is held_out else f"{distance(held_out.logits, some.logits):.1f}"
        moves = motion(some.clips).mean()
        lines.append(
            f"| {name} | {len(some.clips)} | {fvd} | {told} | {moves:.2f} ({moves / real:.2f}×) | "
            f"{sharpness(some.clips).mean():.2f} | {far} |"
        )
    halves = np.array_split(train.logits[rng.permutation(len(train.clips))], 2)
    lines.append(
        f"\nTwo halves of the {len(train.clips)} training clips: FVD {distance(*halves):.1f}."
    )
    return "\n".join(lines)


def subset(some: Set, chosen: np.ndarray) -> Set:
    """Some of the clips, by their numbers."""
    return Set(some.clips[chosen], some.classes[chosen], some.logits[chosen])


def confusion(model, some: Set) -> str:
    """How clips that were asked for a class (row) are told (column) by a `classifier`."""
    names, told = model.classes_, model.predict(some.logits)
    lines = ["| asked | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name in names:
        counts = [str(int(np.sum((some.classes == name) & (told == other)))) for other in names]
        lines.append(f"| {name} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


# --- Pictures ----------------------------------------------------------------------------------


def show_samples(path: Path, some: Set, each: int = 2, frames: int = 4) -> None:
    """Frames of the first clips of each class."""
    names = np.unique(some.classes)
    chosen = [index for name in names for index in np.flatnonzero(some.classes == name)[:each]]
    _draw(path, [(some.classes[index], some.clips[index]) for index in chosen], frames, each)


def show_nearest(path: Path, generated: Set, train: Set, frames: int = 3) -> None:
    """Of each class the generated clip that is nearest to a training clip, beside that."""
    found, far = nearest(generated.logits, train.logits)
    rows = []
    for name in np.unique(generated.classes):
        index = min(np.flatnonzero(generated.classes == name), key=far.__getitem__)
        rows.append((f"generated: {name}", generated.clips[index]))
        rows.append((f"nearest, {far[index]:.0f}", train.clips[found[index]]))
    _draw(path, rows, frames, 2)


def _draw(path: Path, rows: Sequence[tuple[str, Clips]], frames: int, across: int) -> None:
    """A labelled strip of frames for each clip, `across` of them side by side."""
    lines = -(-len(rows) // across)
    size = 1.0 * frames * across, 1.15 * lines
    figure, axes = plt.subplots(lines, across, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (label, clip) in zip(axes.flat, rows, strict=False):
        shown = np.linspace(0, len(clip) - 1, frames).round().astype(int)
        axis.imshow(np.concatenate(clip[shown], axis=1), interpolation="nearest")
        axis.set_title(label, fontsize=6, pad=2)
    figure.tight_layout(pad=0.3)
    with written(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
