"""How good is a model of real clips? Its videos of held-out captions, for `benchmarks/ucf101.md`.

    python benchmarks/ucf101_model.py --clips=CLIPS --generated=OUTPUT --untrained=OUTPUT_0

CLIPS is what `prepare_data` made of a folder with a folder for each class, and what the model was
trained on. The OUTPUTs are those of `eval --task=held_out`, by the model and by one that was
trained for a step. Prints tables and writes pictures; logits are kept in --work, so the same
command resumes.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import damages
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from etils import epath
from jaxtyping import Float, Int, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lumiere_jax.data.limits import changes
from lumiere_jax.data.prepared_format import Index, Shard, open_reader
from lumiere_jax.data.sources import spread
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.evaluation.networks import FeatureNetwork, i3d_network
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.metrics.frechet import Moments, frechet_distance
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.files import written
from lumiere_jax.runtime.progress import Progress

_CLIPS = flags.DEFINE_string("clips", None, "Folder that prepare_data wrote.", required=True)
_GENERATED = flags.DEFINE_string("generated", None, "Output of eval, of the model.", required=True)
_UNTRAINED = flags.DEFINE_string("untrained", None, "Output of eval, of an untrained one.")
_WORK = flags.DEFINE_string("work", ".cache/ucf101_model", "Folder of logits.")
_OUTPUT = flags.DEFINE_string("output", ".", "Folder for the pictures.")

BLUR = 2.0  # deviation in pixels, of the set that a model should beat by far
BLOCK = 64  # clips whose logits are kept together

Clips = UInt8[np.ndarray, "clip frame height width 3"]
Logits = Float[np.ndarray, "clip 400"]


@dataclasses.dataclass(frozen=True)
class Set:
    """Clips with what they are meant to show."""

    clips: Clips  # their pixels
    classes: np.ndarray  # name of the class of each
    logits: Logits  # of I3D


class Kept:
    """Logits of clips, kept in a folder by the clips' checksum."""

    def __init__(self, network: FeatureNetwork, folder: Path):
        """Takes the network whose logits they are."""
        self._network, self._folder = network, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, label: str, clips: Clips) -> Logits:
        """Logits of clips, a block at a time."""
        progress = Progress(f"I3D of {label}", len(clips), "clips")
        blocks = []
        for start in range(0, len(clips), BLOCK):
            block = clips[start : start + BLOCK]
            digest = hashlib.sha256(self._network.fingerprint.encode() + block.tobytes())
            path = self._folder / f"{digest.hexdigest()[:24]}.npy"
            if not path.is_file():
                with written(path) as temporary:
                    np.save(temporary, self._network(list(block)))
            blocks.append(np.load(path))
            progress.update(start + len(block))
        return np.concatenate(blocks)


# --- Sets --------------------------------------------------------------------------------------


def prepared(folder: str, split: str, count: int | None = None) -> tuple[Clips, np.ndarray]:
    """Prepared clips and their classes; `count` of them as `eval --task=held_out` takes them."""
    index, root = Index.load(epath.Path(folder)), epath.Path(folder)
    form, lengths = index.record_format(), index.shard_lengths[split]
    names = [Shard(split, number, len(lengths)).file_name for number in range(len(lengths))]
    records = [form.parse(one) for name in names for one in open_reader(root / name).read_all()]
    chosen = [records[number] for number in spread(records, count or len(records))]
    paths = [PurePosixPath(record.path) for record in chosen]
    return np.stack([r.frames for r in chosen]), np.array([path.parent.name for path in paths])


def made(output: str, count: int | None = None) -> Clips:
    """The videos that `eval` generated, in the order of their captions."""
    folder = Path(output) / "videos" / "0"
    paths = sorted(folder.glob("*.mkv"))[:count]
    if not paths:
        raise errors.UserError(f"{folder} holds no videos; give the --output of eval.")
    return np.stack([read_video(path, fps=probe_video(path).fps) for path in paths])


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


def table(train: Set, held_out: Set, others: dict[str, Set]) -> str:
    """A row for each set: FVD to the held-out clips, class, motion, sharpness, nearest clip."""
    count, rng = len(held_out.clips), np.random.default_rng(0)
    drawn = subset(train, rng.permutation(len(train.clips))[:count])
    rows = {"held-out clips": held_out, "training clips, as many": drawn} | others
    model, real = classifier(train), motion(held_out.clips).mean()
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
    halves = [distance(*np.array_split(train.logits[rng.permutation(len(train.clips))], 2))]
    lines.append(f"\nTwo halves of the {len(train.clips)} training clips: FVD {halves[0]:.1f}.")
    return "\n".join(lines)


def subset(some: Set, chosen: np.ndarray) -> Set:
    """Some of the clips, by their numbers."""
    return Set(some.clips[chosen], some.classes[chosen], some.logits[chosen])


def confusion(train: Set, some: Set) -> str:
    """How clips that were asked for a class (row) are told (column)."""
    names, told = np.unique(train.classes), classifier(train).predict(some.logits)
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


def show_nearest(path: Path, generated: Set, train: Set, count: int = 8, frames: int = 3) -> None:
    """The generated clips that are nearest to a training clip, each beside it."""
    found, far = nearest(generated.logits, train.logits)
    rows = []
    for index in np.argsort(far)[:count]:
        rows.append((f"generated: {generated.classes[index]}", generated.clips[index]))
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


def main(argv: list[str]) -> None:
    """Prints the tables and writes the pictures."""
    del argv
    devices.split_cpu()
    keep = Kept(i3d_network(PROFILES["unterthiner"]), Path(_WORK.value))

    def of(label: str, clips: Clips, classes: np.ndarray) -> Set:
        return Set(clips, classes, keep(label, clips))

    generated = made(_GENERATED.value)
    train = of("training clips", *prepared(_CLIPS.value, "train"))
    held_out = of("held-out clips", *prepared(_CLIPS.value, "test", len(generated)))
    sets = {"generated": of("generated", generated, held_out.classes)}
    if _UNTRAINED.value:
        clips = made(_UNTRAINED.value, len(generated))
        sets["untrained"] = of("untrained", clips, held_out.classes[: len(clips)])
    rng = np.random.default_rng(0)
    drawn = rng.permutation(len(train.clips))[: len(generated)]
    blurred = np.stack([damages.blur(train.clips[n], BLUR, rng) for n in drawn])
    sets[f"training clips, blurred (σ = {BLUR:g})"] = of("blurred", blurred, train.classes[drawn])
    print(table(train, held_out, sets))
    for name, some in {"held-out clips": held_out, "generated": sets["generated"]}.items():
        print(f"\n{name}:\n\n{confusion(train, some)}")
    output = Path(_OUTPUT.value)
    show_samples(output / "ucf101_samples.png", sets["generated"])
    show_nearest(output / "ucf101_nearest.png", sets["generated"], train)


if __name__ == "__main__":
    errors.run(main)
