"""A server without HTTP and without weights, which tests kill: the queue, supervisor and workers.

    python -m tests.serving.stand_in_server SETTINGS WORKERS FIRST_SEED

`SETTINGS` are JSON. It submits jobs until the file `enough` is in its folder, prints each as soon
as it is accepted, and its workers make "videos" of their seeds.
"""

import itertools
import json
import signal
import sys
import threading
import time
from pathlib import Path

from lumiere_jax.serving import worker
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.queue import QueueError, QueueFull
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store
from lumiere_jax.serving.supervisor import Supervisor

_STEPS = 4
_MAX_QUEUE = 12
_STEP_SECONDS = 0.05


def video(seed: int) -> bytes:
    """The one right result for a seed."""
    return b"video of %d" % seed


class JobError(Exception):
    """The worker knows it."""


class Runner:
    """Makes "videos", step by step."""

    def __init__(self, settings):
        del settings

    def load(self, job):
        del job

    def stages(self, job):
        return 1

    def run(self, jobs, files, watch):
        watch.start("base", _STEPS)
        for _ in range(_STEPS):
            time.sleep(_STEP_SECONDS)
            watch.advance()
        return [files.get("image", video(job.options["seed"])) for job in jobs]


def work(name: str, settings: Settings) -> None:
    """The process of a worker."""
    sys.modules["lumiere_jax.serving.runner"] = sys.modules[__name__]
    run_worker(name, settings)


run_worker = worker.main


def main(settings: Settings, num_workers: int, first_seed: int) -> None:
    worker.main = work  # what the supervisor starts
    database, ending = Database(settings.database), threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ending.set())
    supervisor = Supervisor(database, settings, num_workers)
    supervisor.start()
    seeds = itertools.count(first_seed)
    while not ending.wait(0.1):
        if not (settings.scratch / "enough").exists():
            try_to_submit(Store(database), next(seeds))
    supervisor.stop()


def try_to_submit(store: Store, seed: int) -> None:
    """Every third job has a file, and the others may be made together."""
    files, key = ({"image": video(seed)}, None) if seed % 3 == 0 else ({}, "alike")
    try:
        job = store.submit("animate", {"seed": seed}, files, batch_key=key, max_queue=_MAX_QUEUE)
    except (QueueFull, QueueError):
        return
    print(job.id, flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    paths = {name: Path(given[name]) for name in ("bundle", "scratch")}
    main(Settings(**given | paths), int(sys.argv[2]), int(sys.argv[3]))
