"""Figures of real videos, UCF101's above all, for `benchmarks/ucf101.md`.

    .venv/bin/python benchmarks/ucf101.py --stage=reading --ucf101=DATA
    .venv/bin/python benchmarks/ucf101.py --stage=tfds --ucf101=DATA --tfds=DATA_DIR
    .venv/bin/python benchmarks/ucf101.py --stage=prepared --ucf101=DATA
    .venv/bin/python benchmarks/ucf101.py --stage=cuts --ucf101=DATA
    .venv/bin/python benchmarks/ucf101.py --stage=scores --ucf101=DATA

DATA holds `UCF-101`; for `reading` and `prepared` it may be any folder of videos, `--max_videos`
takes some at random. All but `cuts` compare with what the program `ffmpeg` decodes: frame by frame,
and `scores` (FVD, KVD, the Inception Score) by `ucf101_scores.py`, which keeps what it computed in
the folder of `--work`, so the same command resumes.
"""

import collections
import csv
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from ffmpeg_program import by_ffmpeg

from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES
from lumiere_jax.data.finding import find_files
from lumiere_jax.data.limits import Limits, change
from lumiere_jax.data.pixels import Frames
from lumiere_jax.data.prepared_format import Settings, Thresholds, open_reader
from lumiere_jax.data.ucf101 import RATE, SIZE
from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.ucf101_videos import find_records
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoInfo, probe_video, shown_frames
from lumiere_jax.preparation import run
from lumiere_jax.preparation.filters import colours, cut_score, find_cuts, is_cut
from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.devices import num_cores
from lumiere_jax.runtime.progress import Progress

_STAGE = flags.DEFINE_enum(
    "stage", "reading", ["reading", "tfds", "prepared", "cuts", "scores"], "Which."
)
_UCF101 = flags.DEFINE_string("ucf101", None, "Folder of the videos.", required=True)
_TFDS = flags.DEFINE_string("tfds", None, "data_dir of TFDS, for the stage tfds.")
_MAX_VIDEOS = flags.DEFINE_integer("max_videos", None, "So many, at random.", 1)
_PLACES = flags.DEFINE_integer("places", 8, "Random places at which a video is entered.", 1)
_PAIRS = flags.DEFINE_integer("pairs", 600, "Cuts that are made of two clips.", 2)
_WORK = flags.DEFINE_string("work", ".cache/ucf101", "Folder of logits and of damaged copies.")
_DAMAGED = flags.DEFINE_integer("damaged", None, "Clips that are damaged; default: a half.", 2)


ALIKE = 4
"""Levels of RGB that are no difference: versions of FFmpeg differ by one of yuv420p, two of RGB."""

_JPEG = 0.5  # levels by which a wrong frame may be nearer than the right one, by the loss of JPEG
_NEAR = 20  # frames among which the next one is looked for, if a file skips some


def videos() -> list[Path]:
    """The videos of the folder, or some of them."""
    paths = find_files(Path(_UCF101.value), VIDEO_SUFFIXES)
    most = _MAX_VIDEOS.value or len(paths)
    return sorted(random.Random(0).sample(paths, min(most, len(paths))))


# --- Reading -----------------------------------------------------------------------------------


def decoded_here(path: Path, info: VideoInfo) -> np.ndarray:
    """All frames that are shown at the file's own rate, once each, as rows of yuv420p."""
    times = [n / info.fps for n in range(info.num_frames(info.fps))]
    frames, last = [], None
    for frame, _ in shown_frames(path, info, times, num_threads=0):
        if frame is not last:
            frames.append(frame.reformat(format="yuv420p").to_ndarray().ravel())
        last = frame
    return np.stack(frames)


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, float]:
    """Largest and mean difference in levels, of bytes."""
    apart = np.maximum(ours, theirs) - np.minimum(ours, theirs)
    return int(apart.max(initial=0)), float(apart.mean(dtype=np.float64))


def places_of(shown: np.ndarray, decoded: np.ndarray) -> list[int]:
    """Which decoded frame each shown one is, as far as each is one: they go forward.

    Where a file skips frames (a gap in its times), the one before is shown for longer.
    """
    if len(shown) == len(decoded):
        places = list(range(len(shown)))
        return [n for n in places if difference(shown[n], decoded[n])[0] <= ALIKE]
    places = [0]
    for frame in shown[1:]:
        near = [difference(frame, one) for one in decoded[places[-1] : places[-1] + _NEAR]]
        best = min(range(len(near)), key=lambda n: near[n][1])
        if near[best][0] <= ALIKE:
            places.append(places[-1] + best)
    return places


def reading() -> None:
    """Sequential and random access, as decoded (yuv420p) and as RGB."""
    counts, worst = collections.Counter[str](), collections.Counter[int]()
    paths, rng = videos(), np.random.default_rng(0)
    progress = Progress("comparing", len(paths), "videos")
    for number, path in enumerate(paths, start=1):
        info = probe_video(path)
        ours, theirs = decoded_here(path, info), by_ffmpeg(path, "yuv420p")
        if len(ours) != len(theirs):
            print(f"{path}: {len(ours)} frames here, {len(theirs)} by FFmpeg")
            continue
        apart, _ = difference(ours, theirs)
        counts["frames"] += len(ours)
        counts["videos with FFmpeg's frames in its order"] += apart <= 1
        counts["of them to the bit"] += apart == 0
        if apart > 1:
            print(f"{path}: a pixel differs by {apart} levels")
        whole = read_video(path, fps=info.fps, info=info)
        if info.treated:
            print(f"{path}: {', '.join(info.treated)}; not compared as RGB")
        else:
            shown, theirs = whole.reshape(len(whole), -1), by_ffmpeg(path, "rgb24")
            places = places_of(shown, theirs)
            is_whole = bool(places) and not difference(theirs[places[-1]], theirs[-1])[0]
            if len(places) < len(shown) or not is_whole:
                print(f"{path}: as RGB {len(places)} of {len(shown)} frames are the same")
            else:
                counts["videos with the same RGB"] += 1
                counts["of them with held frames"] += len(shown) > len(theirs)
                worst[difference(shown, theirs[places])[0]] += 1
        for _ in range(_PLACES.value):
            start = int(rng.integers(len(whole)))
            count = int(rng.integers(1, min(17, len(whole) - start + 1)))
            part = read_video(path, fps=info.fps, start=start, num_frames=count, info=info)
            counts["parts from random places"] += 1
            counts["of these parts to the bit"] += np.array_equal(part, whole[start:][:count])
        progress.update(number)
    print(f"{len(paths)} videos: {dict(counts)}")
    print(
        f"videos by the largest difference of their RGB, in levels: {dict(sorted(worst.items()))}"
    )


def tfds() -> None:
    """The records of the TFDS builder, which are JPEG, against the files that they were made of."""
    labels = {action.name.casefold(): label for label, action in enumerate(classes())}
    known = collections.defaultdict[int, dict[Path, np.ndarray]](dict)
    for path in videos():
        known[labels[path.parent.name.casefold()]][path] = by_ffmpeg(path, "rgb24")
    records = [*find_records(Path(_TFDS.value), "train", 1).videos]
    records += find_records(Path(_TFDS.value), "test", 1).videos
    alike, repeats = list[float](), collections.Counter[int]()
    for record in records:
        frames = record.read(0, record.num_frames).reshape(record.num_frames, -1)
        ends = {
            path: max(difference(frames[n], whole[n])[1] for n in (0, -1))
            for path, whole in known[record.label].items()
        }
        path = min(ends, key=lambda path: ends[path])
        whole = known[record.label][path]
        more = len(frames) - len(whole)
        worst = 0.0
        for number in sorted({*range(0, len(frames), 4), 1, len(frames) - 1}):
            place = max(number - more, 0)
            near = whole[max(place - 2, 0) : place + 3]
            apart = [difference(frames[number], other)[1] for other in near]
            own = apart[place - max(place - 2, 0)]
            worst = max(worst, own)
            if own > min(apart) + _JPEG:
                break
        else:
            alike.append(worst)
            repeats[more] += 1
            continue
        print(f"{path.name}: frame {number} of {len(frames)} is another one of {len(whole)}")
    print(
        f"{len(alike)} of {len(records)} records have FFmpeg's frames in its order (every fourth "
        f"is compared with its neighbours); JPEG changes the mean of a frame by at most "
        f"{max(alike):.1f} levels, in the median by {np.median(alike):.1f}; records by how often "
        f"the first frame is repeated: {dict(sorted(repeats.items()))}"
    )


def prepared() -> None:
    """A copy by `prepare_data`: every frame is the one that FFmpeg shows at that time."""
    paths = [path for path in videos() if probe_video(path).size == SIZE]
    settings = Settings(
        num_frames=16, resolution=SIZE, fps=RATE, test_fraction=0,
        thresholds=Thresholds(brightness=0, motion=0, cut=0),
        limits=Limits(min_rate=0, max_repeats=1),
    )  # fmt: skip
    clips, worst = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = Path(folder) / "videos.csv", Path(folder) / "clips"
        with manifest.open("w", newline="") as file:
            rows = [(str(path.absolute()), path.parent.name) for path in paths]
            csv.writer(file).writerows([("path", "caption"), *rows])
        with run.begun(str(manifest), str(output), settings) as plan:
            index = run.prepare(plan, None, num_cores())
        form, shards = index.record_format(), sorted(output.glob("*.array_record*"))
        records = (form.parse(one) for shard in shards for one in open_reader(shard).read_all())
        for name, group in itertools.groupby(records, lambda record: record.path):
            path = Path(name)
            info, theirs = probe_video(path), by_ffmpeg(path, "rgb24")
            whole = read_video(path, fps=info.fps, info=info)
            places = np.array(places_of(whole.reshape(len(whole), -1), theirs))
            for record in group:
                times = round(record.start * RATE) / RATE + np.arange(16) / RATE
                shown = theirs[places[np.floor(times * info.fps + 0.5 + 1e-6).astype(int)]]
                clips += 1
                worst = max(worst, difference(record.frames.reshape(16, -1), shown)[0])
    print(f"{clips} clips of {len(paths)} videos differ from FFmpeg's by at most {worst} levels")


# --- Cuts --------------------------------------------------------------------------------------

CUTS: dict[str, tuple[int, ...]] = {
    "v_HorseRace_g06_c06": (1,),
    "v_HorseRace_g20_c03": (244,),
    "v_Surfing_g03_c03": (13,),
    "v_Surfing_g07_c02": (55, 111),
    "v_Surfing_g08_c06": (2,),
    "v_Surfing_g09_c03": (63,),
    "v_Surfing_g09_c05": (13,),
}
"""Frames with which a new shot begins in clips of UCF101, found by eye."""


def cuts() -> None:
    """Precision and recall of the filter of `prepare_data`, at several rates and sizes.

    In brackets: of steps that stand out alone, without a look whether the picture comes back.
    """
    paths, progress = videos(), Progress("decoding", len(videos()), "videos")
    whole: dict[str, Frames] = {}
    for number, path in enumerate(paths, start=1):
        whole[path.stem] = read_video(path, fps=probe_video(path).fps, size=(64, 64))
        progress.update(number)
    print("| clips | false cuts | true cuts | made, in a class | made, between classes |")
    print("|---|---|---|---|---|")
    for step, side in ((1, 64), (2, 32), (3, 64), (3, 16)):
        clips = {name: shrunk(video[::step], side) for name, video in whole.items()}
        false, seen, hits = [0, 0], [0, 0], collections.Counter[tuple[int, bool]]()
        for name, clip in clips.items():
            true = {-(-cut // step) for cut in CUTS.get(name, ())}
            for way, found in enumerate((found_cuts(clip), standing_out(clip))):
                apart = np.abs(np.subtract.outer(np.array(found), np.array(sorted(true))))
                seen[way] += int((apart <= 1).any(axis=0).sum())
                false[way] += len(found) - int((apart <= 1).any(axis=1).sum())
        long = [name for name in clips if name not in CUTS and len(clips[name]) >= 12]
        for alike, pair in pairs(long):
            joined = np.concatenate([clips[name][:12] for name in pair])
            for way, found in enumerate((found_cuts(joined), standing_out(joined))):
                hits[way, alike] += 12 in found
        half = _PAIRS.value // 2
        made = [f"{hits[0, k]} ({hits[1, k]}) of {half}" for k in (True, False)]
        print(
            f"| {len(clips)} at {RATE / step:.3g} fps, {side} pixels | {false[0]} ({false[1]}) | "
            f"{seen[0]} ({seen[1]}) of {sum(map(len, CUTS.values()))} | {made[0]} | {made[1]} |"
        )


def shrunk(video: Frames, side: int) -> Frames:
    """Frames of 64×64 made smaller, by means of squares."""
    by = 64 // side
    return video.reshape(len(video), side, by, side, by, 3).mean((2, 4)).astype(np.uint8)


def found_cuts(clip: Frames) -> list[int]:
    """Frames with which the filter says that a shot begins."""
    found = find_cuts(iter(clip), Thresholds().cut)
    return [number for number, (_, _, begins_shot) in enumerate(found) if begins_shot]


def standing_out(clip: Frames) -> list[int]:
    """Frames of which the step before looks like a cut, whatever comes after."""
    seen = [colours(frame) for frame in clip]
    pairs_ = zip(itertools.pairwise(clip), itertools.pairwise(seen), strict=True)
    scores = [cut_score(change(*frames), *both) for frames, both in pairs_]
    return [n + 1 for n in range(len(scores)) if is_cut(scores, n, Thresholds().cut)]


def pairs(names: Sequence[str]) -> Iterator[tuple[bool, tuple[str, str]]]:
    """Pairs of clips of different scenes, by turns of one class and of different ones."""
    rng = random.Random(0)
    by_class = collections.defaultdict[str, list[str]](list)
    for name in names:
        by_class[name.split("_")[1]].append(name)
    for number in range(_PAIRS.value):
        alike = number % 2 == 0
        while True:
            first, second = rng.choice(names), rng.choice(names)
            if alike:
                second = rng.choice(by_class[first.split("_")[1]])
            is_same = first.split("_")[1] == second.split("_")[1]
            if is_same == alike and first.split("_")[1:3] != second.split("_")[1:3]:
                break
        yield alike, (first, second)


# --- Scores ------------------------------------------------------------------------------------


def scores() -> None:
    """FVD, KVD and the Inception Score, each beside an independent computation."""
    devices.split_cpu()
    import ucf101_scores  # JAX starts with it

    ucf101_scores.score(videos(), Path(_WORK.value), _DAMAGED.value)


def main(argv: list[str]) -> None:
    """Runs a stage."""
    del argv
    stages: dict[str, Callable[[], None]] = {
        "reading": reading, "tfds": tfds, "prepared": prepared, "cuts": cuts, "scores": scores,
    }  # fmt: skip
    stages[_STAGE.value]()


if __name__ == "__main__":
    errors.run(main)
