"""Load on a live server, on the loopback and bounded: jobs a second, latencies, waits.

PYTHONPATH=. python benchmarks/serving/load.py --bundle=weights/small --write
"""

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
from absl import flags, logging
from starting import serving, write_section

from lumiere_jax.runtime import errors

_BUNDLE = flags.DEFINE_string("bundle", "weights/small", "Weights to serve.")
_JOBS = flags.DEFINE_integer("jobs", 32, "Jobs of each setting.", 1, 10_000)
_CLIENTS = flags.DEFINE_integer("clients", 8, "Clients at once.", 1, 100)
_BATCHES = flags.DEFINE_list("batches", ["1", "4"], "Settings of --max_batch, one after the other.")
_STEPS = flags.DEFINE_integer("steps", 2, "Steps of the base, without super-resolution.", 1)
_WRITE = flags.DEFINE_bool("write", False, "Write the figures into the page beside this file.")


def measure(url: str, jobs: int, clients: int, steps: int) -> dict[str, float]:
    """Submits jobs, asks for each as its page would, and gives figures in seconds."""
    submits, looks, lock = [], [], threading.Lock()
    fields = {"task": "text_to_video", "base_only": "true", "steps": str(steps)}

    def one(seed: int) -> dict:
        with httpx.Client(base_url=url, timeout=120) as client:
            begun = time.monotonic()
            form = fields | {"seed": str(seed), "prompt": f"a small red circle moving up {seed}"}
            reply = client.post("/api/v1/jobs", data=form)
            took, times = time.monotonic() - begun, []
            reply.raise_for_status()
            job = reply.json()
            while job["state"] in ("queued", "running"):
                time.sleep(0.3)
                begun = time.monotonic()
                job = client.get(job["url"]).json()
                times.append(time.monotonic() - begun)
            with lock:
                submits.append(took)
                looks.extend(times)
            return job

    begun = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(one, range(jobs)))
    seconds = time.monotonic() - begun
    assert all(job["state"] == "done" for job in done), done
    waits = [_seconds(job["created_at"], job["started_at"]) for job in done]
    made = [_seconds(job["started_at"], job["finished_at"]) for job in done]
    return {
        "jobs a second": jobs / seconds,
        **_percentiles("submit", submits),
        **_percentiles("status", looks),
        **_percentiles("wait in the queue", waits),
        **_percentiles("made in", made),
    }


def _seconds(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def _percentiles(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}, p{p} (s)": float(np.percentile(values, p)) for p in (50, 95)}


def main(argv: list[str]) -> None:
    """Measures."""
    del argv
    logging.set_verbosity(logging.WARNING)  # httpx tells every request
    results = {}
    for batch in _BATCHES.value:
        with tempfile.TemporaryDirectory(prefix="load-") as root:
            bundle = str(Path(_BUNDLE.value).absolute())
            with serving(Path(root), bundle, f"--max_batch={batch}", "--max_queue=10000") as server:
                # What is compiled is not measured: every size of batch once.
                measure(server.url, 4 * int(batch), 4 * int(batch), _STEPS.value)
                results[batch] = measure(server.url, _JOBS.value, _CLIENTS.value, _STEPS.value)
        print(batch, results[batch], flush=True)
    lines = [
        f"{_JOBS.value} jobs of {_CLIENTS.value} clients, each for one video of {_STEPS.value} "
        "steps of the base; one worker, SQLite.",
        "",
        "| figure | " + " | ".join(f"`--max_batch={batch}`" for batch in results) + " |",
        "| --- |" + " --- |" * len(results),
    ]
    for name in next(iter(results.values())):
        row = " | ".join(f"{found[name]:.3g}" for found in results.values())
        lines.append(f"| {name} | {row} |")
    print("\n".join(lines))
    if _WRITE.value:
        write_section("load", lines)


if __name__ == "__main__":
    errors.run(main)
