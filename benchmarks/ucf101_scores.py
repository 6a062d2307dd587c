"""FVD, KVD and Inception Scores of real clips, here and by an independent computation.

Here: `ClipRule`, `i3d_network` and the scores of `lumiere_jax.eval`. Independently: frames by the
program `ffmpeg`, then `independent_scores`. The clip of a video is its 16 frames in the middle.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import damages as damage
import independent_scores as independent
import numpy as np
from ffmpeg_program import by_ffmpeg, encode, size
from jaxtyping import Float, UInt8

from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.video_io import read_video, write_lossless
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.evaluation import scoring
from lumiere_jax.evaluation.clips import ClipRule
from lumiere_jax.evaluation.networks import i3d_network
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.metrics.frechet import Moments, frechet_distance, kernel_distance
from lumiere_jax.runtime.files import written
from lumiere_jax.runtime.progress import Progress

RULE = ClipRule()
PROFILE = PROFILES["unterthiner"]
Clip = UInt8[np.ndarray, "frame height width 3"]
Logits = Float[np.ndarray, "clip 400"]

_SIZES, _DRAWS = (8, 16, 32, 64), 5
_LEAST = 12  # clips of a class of which halves are compared


@dataclasses.dataclass(frozen=True)
class Scored:
    """Logits of clips by both ways."""

    paths: tuple[Path, ...]
    here: Logits
    independent: Logits
    is_same: np.ndarray  # bool [clip]: whether both were given the same pixels, to the bit

    def __getitem__(self, chosen: np.ndarray | slice) -> "Scored":
        """Some of the clips, by their numbers."""
        numbers = np.arange(len(self.paths))[chosen]
        paths = tuple(self.paths[number] for number in numbers)
        arrays = (self.here, self.independent, self.is_same)
        return Scored(paths, *(array[numbers] for array in arrays))


def score(paths: Sequence[Path], work: Path, most_damaged: int | None) -> None:
    """Prints all tables; the folder `work` keeps logits and damaged copies."""
    extractor = Extractor(work)
    originals = extractor("originals", paths)
    halves(originals)
    inception(originals)
    damages(extractor, originals, most_damaged)


# --- Clips and their logits --------------------------------------------------------------------


def both_clips(path: Path) -> tuple[Clip, Clip] | None:
    """A clip as it is read here, and its frames by the program; None if that counts other frames.

    So it is where a file skips frames: the one before is held here, and the middle is elsewhere.
    """
    info = probe_video(path)
    frames = by_ffmpeg(path, "rgb24").reshape(-1, *size(path), 3)
    if len(frames) != info.num_frames(info.fps):
        return None
    start = (len(frames) - RULE.num_frames) // 2
    return RULE.read(path, path.name), frames[start : start + RULE.num_frames]


class Extractor:
    """Computes logits by both ways, and keeps those of every clip in a folder."""

    def __init__(self, folder: Path):
        """Loads both networks."""
        self.folder = folder
        self._networks = {
            "here": i3d_network(PROFILE),
            "independent": independent.network(),
        }
        for name in self._networks:
            (folder / name).mkdir(parents=True, exist_ok=True)

    def __call__(self, label: str, paths: Sequence[Path]) -> Scored:
        """Logits of one clip of each video; names those that cannot be compared."""
        at_once = self._networks["here"].batch_size
        progress = Progress(f"I3D twice of {label}", len(paths), "clips")
        parts = []
        for start in range(0, len(paths), at_once):
            some = paths[start : start + at_once]
            pairs = dict(zip(some, map(both_clips, some), strict=True))
            for path in (path for path, pair in pairs.items() if pair is None):
                print(f"{path.name}: left out, since it skips frames")
            known = {path: pair for path, pair in pairs.items() if pair is not None}
            if known:
                here, there = zip(*known.values(), strict=True)
                same = np.array([np.array_equal(*pair) for pair in known.values()])
                logits = self._logits("here", here), self._logits("independent", there)
                parts.append(Scored(tuple(known), *logits, same))
            progress.update(start + len(some))
        names = ("here", "independent", "is_same")
        joined = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        return Scored(tuple(path for part in parts for path in part.paths), *joined)

    def _logits(self, name: str, clips: Sequence[Clip]) -> Logits:
        files = [self.folder / name / f"{_digest(clip)}.npy" for clip in clips]
        missing = [n for n, file in enumerate(files) if not file.is_file()]
        if missing:
            computed = self._networks[name]([clips[n] for n in missing])
            for n, row in zip(missing, computed, strict=True):
                with written(files[n]) as temporary:
                    np.save(temporary, row)
        return np.stack([np.load(file) for file in files])


def _digest(clip: Clip) -> str:
    return hashlib.sha256(str(clip.shape).encode() + clip.tobytes()).hexdigest()[:24]


# --- Figures -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Distances:
    """FVD and KVD of two sets, by both ways."""

    fvd: float
    fvd_independent: float
    kvd: float
    kvd_error: float
    kvd_independent: float

    @property
    def relative(self) -> float:
        """Relative difference of the two FVD."""
        return abs(self.fvd / self.fvd_independent - 1)

    @property
    def cells(self) -> str:
        """Cells of a table."""
        return (
            f"{self.fvd:.3f} | {self.fvd_independent:.3f} | {self.relative:.0e} | "
            f"{self.kvd:.3f} ± {self.kvd_error:.1f} | {self.kvd_independent:.3f}"
        )


HEAD = "FVD | independently | relative difference | KVD | independently"
RULES = "---|---|---|---|---"


def distances(first: Scored, second: Scored) -> Distances:
    """All distances of two sets."""
    moments = (Moments.of(scored.here) for scored in (first, second))
    kvd = kernel_distance(first.here, second.here)
    assert kvd.error is not None
    return Distances(
        frechet_distance(*moments, PROFILE.ddof),
        independent.frechet_distance(first.independent, second.independent),
        kvd.value,
        kvd.error,
        independent.kernel_distance(first.independent, second.independent),
    )


def random_halves(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of two disjoint sets of equal size."""
    order, half = rng.permutation(count), count // 2
    return order[:half], order[half : 2 * half]


def halves_of_scenes(
    paths: Sequence[Path], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of two sets that have no scene in common: `v_CLASS_g01_c02` is of `v_CLASS_g01`."""
    scenes = collections.defaultdict[str, list[int]](list)
    for number, path in enumerate(paths):
        scenes[path.stem.rpartition("_")[0]].append(number)
    sets: tuple[list[int], list[int]] = [], []
    for scene in rng.permutation(sorted(scenes)):
        min(sets, key=len).extend(scenes[scene])
    return np.array(sets[0]), np.array(sets[1])


def halves(originals: Scored) -> None:
    """Two halves, of all clips, by their number, and of classes."""
    _tell_difference(originals)
    rng = np.random.default_rng(0)
    same = originals[np.flatnonzero(originals.is_same)]
    sets = {
        "two halves": (originals, random_halves(len(originals.paths), rng)),
        "two halves without a common scene": (originals, halves_of_scenes(originals.paths, rng)),
        "two halves of the clips with the same pixels": (
            same, random_halves(len(same.paths), rng)),
    }  # fmt: skip
    print(f"\n| sets | clips | {HEAD} |\n|---|---|{RULES}|")
    for name, (clips, (one, two)) in sets.items():
        got = distances(clips[one], clips[two])
        print(f"| {name} | {len(one)} and {len(two)} | {got.cells} |", flush=True)
    _by_number(originals, rng)
    _by_class(originals, rng)


def _tell_difference(clips: Scored) -> None:
    apart = np.abs(clips.here - clips.independent).max(axis=1)
    print(
        f"{len(apart)} clips; largest difference of a logit, whose norm is in the median ", end=""
    )
    print(f"{np.median(np.linalg.norm(clips.here, axis=1)):.1f}:")
    for name, chosen in (("the same", clips.is_same), ("others", ~clips.is_same)):
        worst = f"{apart[chosen].max():.1e}" if chosen.any() else "none"
        print(f"  {chosen.sum()} clips whose pixels are {name}: {worst}")


def _by_number(originals: Scored, rng: np.random.Generator) -> None:
    print(
        f"\n| clips in each half | FVD, mean ± deviation of {_DRAWS} draws | independently | ",
        end="",
    )
    print("largest relative difference | KVD | independently |\n|---|---|---|---|---|---|")
    for number in _SIZES:
        if 2 * number > len(originals.paths):
            break
        draws = []
        for _ in range(_DRAWS):
            chosen = originals[rng.permutation(len(originals.paths))[: 2 * number]]
            draws.append(distances(chosen[:number], chosen[number:]))
        names = ("fvd", "fvd_independent", "kvd", "kvd_independent")
        cells = [_mean([getattr(draw, name) for draw in draws]) for name in names]
        cells.insert(2, f"{max(draw.relative for draw in draws):.0e}")
        print(f"| {number} | {' | '.join(cells)} |", flush=True)


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def _by_class(originals: Scored, rng: np.random.Generator) -> None:
    print(f"\n| class | clips in each set | against | {HEAD} |\n|---|---|---|{RULES}|")
    labels = np.array([path.stem.split("_")[1] for path in originals.paths])
    for label in sorted(set(labels)):
        own, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if len(own) < _LEAST:
            continue
        one, two = (own[half] for half in random_halves(len(own), rng))
        against = {"its other half": two, "other classes": rng.choice(others, len(one), False)}
        for name, numbers in against.items():
            got = distances(originals[one], originals[numbers])
            print(f"| {label} | {len(one)} | {name} | {got.cells} |", flush=True)


# --- Damage ------------------------------------------------------------------------------------


def _re_encoded(bit_rate: str) -> Callable[[Path, Path, int], None]:
    """All of a video, as H.264 of a bit rate; the clip is of the same frames as the original's."""

    def write(source: Path, target: Path, number: int) -> None:
        del number
        info = probe_video(source)
        with written(target.with_suffix(".mp4")) as temporary:
            encode(temporary, read_video(source, fps=info.fps, info=info), info.fps, bit_rate)

    return write


def _damaged(change: Callable, strength: float) -> Callable[[Path, Path, int], None]:
    """The clip, lossless; what is at random depends on its number alone."""

    def write(source: Path, target: Path, number: int) -> None:
        clip = change(RULE.read(source, source.name), strength, np.random.default_rng([1, number]))
        write_lossless(target.with_suffix(".mkv"), to_float(clip), probe_video(source).fps)

    return write


DAMAGES: dict[str, Callable[[Path, Path, int], None]] = {
    "H.264 at 400 kbit/s": _re_encoded("400k"),
    "H.264 at 100 kbit/s": _re_encoded("100k"),
    "H.264 at 50 kbit/s": _re_encoded("50k"),
    "blurred, σ = 2 pixels": _damaged(damage.blur, 2.0),
    "noise, σ = 10 levels": _damaged(damage.noise, 10.0),
    "frames shuffled": _damaged(damage.shuffle, 1.0),
    "half of the frames dropped": _damaged(damage.drop, 0.5),
    "blurred, σ = 1 pixel": _damaged(damage.blur, 1.0),
    "noise, σ = 5 levels": _damaged(damage.noise, 5.0),
    "a quarter of the frames dropped": _damaged(damage.drop, 0.25),
}
"""Ways to write a damaged copy of a video, given the source, the target and the video's number."""


def damaged_copies(name: str, paths: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Damaged copies of videos, made where they are not there yet."""
    folder = folder / "damaged" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        found = next(folder.glob(f"{path.stem}.*"), None)
        if found is None:
            DAMAGES[name](path, folder / path.stem, number)
            found = next(folder.glob(f"{path.stem}.*"))
        yield found


def damages(extractor: Extractor, originals: Scored, most: int | None) -> None:
    """Damaged copies of a half against that half, and against the other one."""
    others, own = random_halves(len(originals.paths), np.random.default_rng(0))
    own, others = own[:most], others[:most]
    print(f"\n| {len(own)} copies | {HEAD} | FVD to the other half | IS-I3D-K400 |")
    print(f"|---|{RULES}|---|---|")
    print(_damage_row("none", None, originals[own], originals[others]))
    for number, name in enumerate(DAMAGES, start=1):
        copies = list(damaged_copies(name, originals[own].paths, extractor.folder))
        scored = extractor(f"{name} ({number} of {len(DAMAGES)})", copies)
        print(_damage_row(name, originals[own], scored, originals[others]), flush=True)
    for name in (name for name in DAMAGES if name.startswith("H.264")):
        copies = list(damaged_copies(name, originals[own].paths, extractor.folder))
        rates = [copy.stat().st_size * 8e-3 / probe_video(copy).duration for copy in copies]
        print(f"{name}: files have {np.mean(rates):.0f} kbit/s")


def _damage_row(name: str, own: Scored | None, copies: Scored, others: Scored) -> str:
    cells = "0 | 0 | | | " if own is None else distances(own, copies).cells
    fvd = frechet_distance(Moments.of(others.here), Moments.of(copies.here), PROFILE.ddof)
    (score,) = scoring.inception_scores("IS-I3D-K400", [copies.here], 1, 0.0).values
    return f"| {name} | {cells} | {fvd:.1f} | {score:.3f} |"


# --- Inception Score ---------------------------------------------------------------------------


def inception(originals: Scored) -> None:
    """Inception Scores from I3D's logits: in one part and in ten, with each tool's epsilon."""
    order = np.random.default_rng(0).permutation(len(originals.paths))
    print("\n| splits | ε | IS-I3D-K400 | independently | relative difference |")
    print("|---|---|---|---|---|")
    for splits in (1, 10):
        for epsilon in (0.0, 1e-20, 1e-7):
            name = "IS-I3D-K400"
            here = scoring.inception_scores(name, [originals.here], splits, epsilon).mean
            logits = originals.independent[order] if splits > 1 else originals.independent
            there = independent.inception_score(logits, splits, epsilon)
            apart = abs(here / there - 1)
            print(f"| {splits} | {epsilon:g} | {here:.5f} | {there:.5f} | {apart:.0e} |")
