"""How good is a model of real clips? Its videos of held-out captions, for `benchmarks/ucf101.md`.

    python benchmarks/ucf101_model.py --clips=CLIPS --generated=OUTPUT --untrained=OUTPUT_0

CLIPS is what `prepare_data` made of a folder with a folder for each class, and what the model was
trained on. The OUTPUTs are those of `eval --task=held_out`, by the model and by one that was
trained for a step. Prints tables and writes pictures; logits are kept in --work, so the same
command resumes.
"""

from pathlib import Path

import damages
import numpy as np
from absl import flags
from cached_features import CachedFeatures
from clip_figures import (
    Clips,
    Set,
    classifier,
    confusion,
    show_nearest,
    show_samples,
    table,
)
from real_clips import logits_of, prepared

from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.evaluation.networks import i3d_network
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.runtime import devices, errors

_CLIPS = flags.DEFINE_string("clips", None, "Folder that prepare_data wrote.", required=True)
_GENERATED = flags.DEFINE_string("generated", None, "Output of eval, of the model.", required=True)
_UNTRAINED = flags.DEFINE_string("untrained", None, "Output of eval, of an untrained one.")
_WORK = flags.DEFINE_string("work", ".cache/ucf101_model", "Folder of logits.")
_OUTPUT = flags.DEFINE_string("output", ".", "Folder for the pictures.")

BLUR = 2.0  # deviation in pixels, of the set that a model should beat by far


def made(output: str, count: int | None = None) -> Clips:
    """The videos that `eval` generated, in the order of their captions."""
    folder = Path(output) / "videos" / "0"
    paths = sorted(folder.glob("*.mkv"))[:count]
    if not paths:
        raise errors.UserError(f"{folder} holds no videos; give the --output of eval.")
    return np.stack([read_video(path, fps=probe_video(path).fps) for path in paths])


def main(argv: list[str]) -> None:
    """Prints the tables and writes the pictures."""
    del argv
    devices.split_cpu()
    features = CachedFeatures(i3d_network(PROFILES["unterthiner"]), Path(_WORK.value))

    def of(label: str, clips: Clips, classes: np.ndarray) -> Set:
        return Set(clips, classes, logits_of(features, label, clips))

    def real(label: str, split: str, count: int | None = None) -> Set:
        read = prepared(_CLIPS.value, split, count)
        return of(label, read.clips, read.classes)

    generated = made(_GENERATED.value)
    train = real("training clips", "train")
    held_out = real("held-out clips", "test", len(generated))
    sets = {"generated": of("generated", generated, held_out.classes)}
    if _UNTRAINED.value:
        clips = made(_UNTRAINED.value, len(generated))
        sets["untrained"] = of("untrained", clips, held_out.classes[: len(clips)])
    rng = np.random.default_rng(0)
    drawn = rng.permutation(len(train.clips))[: len(generated)]
    blurred = np.stack([damages.blur(train.clips[n], BLUR, rng) for n in drawn])
    sets[f"training clips, blurred (σ = {BLUR:g})"] = of("blurred", blurred, train.classes[drawn])
    model = classifier(train)
    print(table(model, train, held_out, sets))
    for name, some in {"held-out clips": held_out, "generated": sets["generated"]}.items():
        print(f"\n{name}:\n\n{confusion(model, some)}")
    output = Path(_OUTPUT.value)
    show_samples(output / "ucf101_samples.png", sets["generated"])
    show_nearest(output / "ucf101_nearest.png", sets["generated"], train)


if __name__ == "__main__":
    errors.run(main)
