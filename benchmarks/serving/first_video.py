"""What the first video costs, from the start of a process, without and with programs that are kept.

PYTHONPATH=. python benchmarks/serving/first_video.py --bundle=weights/small --write
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from absl import flags, logging
from starting import REPOSITORY, serving, write_section

from lumiere_jax.runtime import errors

_BUNDLE = flags.DEFINE_string("bundle", "weights/small", "Weights to sample from and to serve.")
_WARM = flags.DEFINE_integer("warm", 3, "Starts with programs that are kept; medians count.", 1)
_WRITE = flags.DEFINE_bool("write", False, "Write the figures into the page beside this file.")

PROMPT = "a large red circle moving right"
PARTS = {
    "imports": "start of Python, imports",
    "weights": "reading and checking weights",
    "tracing": "tracing",
    "compiling": "compiling",
    "programs": "reading, or writing, programs",
    "sampling": "sampling itself",
    "file": "writing the MP4",
    "rest": "the rest",
}
_SAMPLE = """
import atexit, functools, json, sys, time
import psutil
began = psutil.Process().create_time()
from lumiere_jax import sample
from lumiere_jax.inference import command, pipeline, pretrained, sampling, storyboard
from lumiere_jax.runtime import errors, programs
import jax
taken = dict.fromkeys(%(parts)r, 0.0)
taken["imports"] = time.time() - began
taken["get"] = 0.0

def timed(owner, name, part):
    inner = getattr(owner, name)
    @functools.wraps(inner)
    def outer(*arguments, **named):
        clock = time.time()
        try:
            return inner(*arguments, **named)
        finally:
            taken[part] += time.time() - clock
    setattr(owner, name, outer)

timed(pretrained.checkpoint, "load", "weights")
timed(pipeline.LumierePipeline, "fingerprints", "weights")
timed(programs.Programs, "_read", "programs")
timed(programs.Programs, "_write", "programs")
timed(programs.Programs, "get", "get")
timed(sampling.StageSampler, "_run", "sampling")
timed(command, "write_request", "file")
timed(pipeline.LumierePipeline, "_keys", "sampling")

def listen(name, seconds, **_):
    if name.endswith("backend_compile_duration"):
        taken["compiling"] += seconds

jax.monitoring.register_event_duration_secs_listener(listen)

def end():
    got = taken.pop("get")
    taken["sampling"] -= got
    taken["tracing"] = got - taken["compiling"] - taken["programs"]
    taken["rest"] = time.time() - began - sum(taken.values())
    open(%(told)r, "w").write(json.dumps(taken))

atexit.register(end)
errors.run(sample.main)
"""


def sampled(root: Path, bundle: str) -> dict[str, float]:
    """Seconds of each part of `sample`, by a process of its own."""
    told = root / "told.json"
    code = _SAMPLE % {"parts": list(PARTS), "told": str(told)}
    environment = os.environ | {"LUMIERE_CACHE": str(root / "programs")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    arguments = [f"--bundle={bundle}", f"--prompt={PROMPT}", f"--output={root / 'video.mp4'}"]
    command = [sys.executable, "-c", code, *arguments]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return json.loads(told.read_text())


def served(root: Path, bundle: str) -> dict[str, float]:
    """Seconds from the start of a server, with its first video and the next."""
    begun = time.monotonic()
    with serving(root, bundle) as server:
        found = {"ready": time.monotonic() - begun}
        _make(server.url, 0)
        found["first video"] = time.monotonic() - begun
        begun = time.monotonic()
        _make(server.url, 1)
        found["second video"] = time.monotonic() - begun
    return found


def _make(url: str, seed: int) -> None:
    with httpx.Client(base_url=url, timeout=120) as client:
        form = {"task": "text_to_video", "prompt": PROMPT, "seed": str(seed)}
        job = client.post("/api/v1/jobs", data=form).raise_for_status().json()
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = client.get(job["url"]).json()
        assert job["state"] == "done", job


def _median(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.median([one[name] for one in found])) for name in found[0]}


def _table(title: str, rows: dict[str, tuple[float, float]]) -> list[str]:
    lines = [f"| {title} (s) | cold | warm |", "| --- | --- | --- |"]
    return [
        *lines,
        *(f"| {name} | {cold:.1f} | {warm:.1f} |" for name, (cold, warm) in rows.items()),
    ]


def main(argv: list[str]) -> None:
    """Measures."""
    del argv
    logging.set_verbosity(logging.WARNING)  # httpx tells every request
    bundle = str(Path(_BUNDLE.value).absolute())
    figures = []
    for measure in (sampled, served):
        with tempfile.TemporaryDirectory(prefix="first-") as root:
            cold = measure(Path(root), bundle)
            warm = _median([measure(Path(root), bundle) for _ in range(_WARM.value)])
            figures.append({name: (cold[name], warm[name]) for name in cold})
            print(figures[-1], flush=True)
    sample, serve = figures
    total = tuple(np.sum(list(sample.values()), axis=0))
    rows = {PARTS[name]: pair for name, pair in sample.items()}
    beside = tuple(np.subtract(total, sample["sampling"]))
    rows |= {"**all**": total, "**all but sampling**": beside}
    first, second = serve["first video"], serve["second video"]
    answers = {f"until {name}": serve[name] for name in ("ready", "first video")}
    answers |= {
        "another video": second,
        "**first video but for another**": np.subtract(first, second),
    }
    lines = [*_table("`sample`", rows), "", *_table("`serve`", answers)]
    print("\n".join(lines))
    if _WRITE.value:
        write_section("first video", lines)


if __name__ == "__main__":
    errors.run(main)
