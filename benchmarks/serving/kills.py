"""Kills and stops servers and workers under load, and checks every job that was accepted.

    PYTHONPATH=. python benchmarks/serving/kills.py --write

`sqlite` is a server with two workers; `postgres` are two servers with a worker each; `cluster` are
two servers without workers behind nginx, and three workers with nothing else, on one PostgreSQL.
Ends with code 1 if a job was lost, stuck, wrong or ended twice.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
from absl import flags, logging
from starting import REPOSITORY, tiny_bundle, write_section

import tests.conftest  # noqa: F401  what compiles fast
from lumiere_jax.data.video_io import read_video
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from tests.serving import postgres
from tests.serving.kills import Fleet

_SETTINGS = flags.DEFINE_list("settings", ["sqlite", "postgres", "cluster"], "Which, in order.")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Kills or stops in each.", 1)
_CLIENTS = flags.DEFINE_integer("clients", 6, "Clients at once, each with a job.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of victims, signals and moments.")
_PAUSE = flags.DEFINE_float("pause", 5.0, "Seconds between two at most, beside those for a job.")
_BUNDLE = flags.DEFINE_string("bundle", None, "Weights to serve; None for those of the tests.")
_WRITE = flags.DEFINE_bool("write", False, "Write the figures into the page beside this file.")

_FINAL = ("done", "failed", "cancelled")
_SEEDS = 8  # of jobs: as many different videos
_FLAGS = ("--lease=6", "--max_queue=1000")
_LONGEST = 600.0  # seconds until a job counts as stuck
_FIELDS = {"task": "text_to_video", "base_only": "true", "steps": "2", "prompt": "a red circle"}

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream servers {{ {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://servers; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_buffering off; proxy_connect_timeout 2s; proxy_read_timeout 1h;
      client_max_body_size 32m;
    }}
  }}
}}
"""


class Load:
    """Clients that submit jobs and follow each to its end, whatever happens to the servers."""

    def __init__(self, urls: list[str]):
        """They ask the addresses in turn."""
        self._urls, self._enough, self._lock = urls, threading.Event(), threading.Lock()
        self.accepted: dict[str, int] = {}  # seeds
        self.ended: dict[str, dict] = {}
        self.errors, self.longest = Counter(), 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(_CLIENTS.value)
        ]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when all jobs have ended, or are stuck."""
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Returns when one more job has ended."""
        before, until = len(self.ended), time.monotonic() + _LONGEST
        while len(self.ended) == before and time.monotonic() < until:
            time.sleep(0.1)

    def _run(self, number: int) -> None:
        for count in range(10**6):
            if self._enough.is_set():
                return
            seed, url = (number + count) % _SEEDS, self._urls[count % len(self._urls)]
            job = self._submit(url, seed)
            if job is None:
                time.sleep(0.2)
                continue
            begun = time.monotonic()
            self._follow(job)
            self.longest = max(self.longest, time.monotonic() - begun)

    def _submit(self, url: str, seed: int) -> str | None:
        try:
            reply = httpx.post(f"{url}/api/v1/jobs", data=_FIELDS | {"seed": str(seed)}, timeout=30)
        except httpx.HTTPError as error:
            self.errors[type(error).__name__] += 1
            return None
        if reply.status_code != 202:
            self.errors[str(reply.status_code)] += 1
            return None
        with self._lock:
            self.accepted[reply.json()["id"]] = seed
        return reply.json()["id"]

    def _follow(self, job: str) -> None:
        until = time.monotonic() + _LONGEST
        for count in range(10**6):
            if time.monotonic() > until:
                return
            url = self._urls[count % len(self._urls)]
            with contextlib.suppress(httpx.HTTPError):
                for state in events(f"{url}/api/v1/jobs/{job}/events"):
                    if state["state"] in _FINAL:
                        self.ended[job] = state
                        return
            time.sleep(0.2)


def events(url: str) -> Iterator[dict]:
    """The states of a job."""
    with httpx.stream("GET", url, timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def starter(folder: Path, bundle: Path, *given: str) -> Callable[[], subprocess.Popen]:
    """Starts `python -m lumiere_jax.serve`, always with the same folder."""
    command = [sys.executable, "-m", "lumiere_jax.serve", f"--bundle={bundle}", f"--data={folder}"]

    def start() -> subprocess.Popen:
        with folder.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [*command, *_FLAGS, *given], cwd=REPOSITORY, stdout=log, stderr=log,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip

    return start


@contextlib.contextmanager
def balancer(folder: Path, ports: list[int]) -> Iterator[str]:
    """nginx before servers; its address."""
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{p} max_fails=1 fail_timeout=2s;" for p in ports)
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, servers=servers, port=port))
    try:
        process = subprocess.Popen(["nginx", "-c", str(path), "-e", f"{folder}/nginx.log"])
    except FileNotFoundError as error:
        raise UserError("the setting `cluster` needs nginx: apt-get install nginx-light") from error
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def setting(name: str, folder: Path, bundle: Path) -> Iterator[tuple[Fleet, list[str]]]:
    """Servers that run, and the addresses at which clients find them."""
    with contextlib.ExitStack() as opened:
        ports = [free_port() for _ in range(1 if name == "sqlite" else 2)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        given = [[f"--port={port}"] for port in ports]
        if name != "sqlite":
            url = postgres.new_database(opened.enter_context(postgres.running()))
            given = [[*each, f"--database={url}"] for each in given]
        workers = {"sqlite": 2, "postgres": 1, "cluster": 0}[name]
        given = [[*each, f"--workers={workers}"] for each in given]
        if name == "cluster":
            urls = [opened.enter_context(balancer(folder, ports))]
            given += [["--worker_only", "--workers=1", f"--database={url}"]] * 3
        starts = [starter(folder / f"{i}", bundle, *each) for i, each in enumerate(given)]
        fleet = Fleet(*starts)
        opened.callback(fleet.kill)
        yield fleet, urls


def wait_for(url: str) -> None:
    """Returns when a server is ready."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/v1/health", timeout=30).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the servers do not become ready")


def frames(content: bytes) -> np.ndarray:
    """A video as numbers."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(content)
        file.flush()
        return read_video(file.name, fps=8).astype(float)


def right_videos(url: str) -> list[np.ndarray]:
    """What each seed gives while nothing is killed."""
    made = []
    for seed in range(_SEEDS):
        reply = httpx.post(f"{url}/api/v1/jobs", data=_FIELDS | {"seed": str(seed)}, timeout=60)
        job = list(events(f"{url}/api/v1/jobs/{reply.json()['id']}/events"))[-1]
        made.append(frames(httpx.get(f"{url}{job['video_url']}").content))
    return made


def judge(load: Load, url: str, right: list[np.ndarray]) -> Counter:
    """How the jobs ended, by what they are after all is calm."""
    found: Counter = Counter()
    for job, seed in load.accepted.items():
        reply = httpx.get(f"{url}/api/v1/jobs/{job}", timeout=60)
        if reply.status_code != 200:
            found["lost"] += 1
            continue
        state, seen = reply.json(), load.ended.get(job)
        if seen is None or state["state"] not in _FINAL:
            found["stuck"] += 1
        elif state["finished_at"] != seen["finished_at"] or state["state"] != seen["state"]:
            found["ended twice"] += 1
        elif state["state"] == "failed" and "the worker was lost 2 times" in state["error"]:
            found["failed, since two workers were lost"] += 1
        elif state["state"] == "done" and is_right(url, state, seed, right):
            found["done"] += 1
        else:
            found["wrong"] += 1
    return found


def is_right(url: str, job: dict, seed: int, right: list[np.ndarray]) -> bool:
    """Whether it is the video of its seed; in a batch, sums are rounded otherwise."""
    video = frames(httpx.get(f"{url}{job['video_url']}", timeout=60).content)
    far = [np.abs(video - other).mean() for other in right]
    return int(np.argmin(far)) == seed and far[seed] < 1.0


def measure(name: str, folder: Path, bundle: Path) -> dict[str, object]:
    """One setting."""
    folder.mkdir()
    begun, strikes = time.monotonic(), Counter()
    with setting(name, folder, bundle) as (fleet, urls):
        wait_for(urls[0])
        right = right_videos(urls[0])
        load = Load(urls)
        load.start()
        for strike in fleet.strikes(_ROUNDS.value, _SEED.value, _PAUSE.value):
            strikes[strike] += 1
            print(f"{name}: {strike}; {len(load.accepted)} accepted", flush=True)
            load.wait_for_more()
        load.stop()
        wait_for(urls[0])
        found = judge(load, urls[0], right)
        codes = fleet.end()
    if any(codes):
        found["wrong"] += 1
        print(f"exit codes {codes}")
    kept = [f"{n}× {what}" for what, n in sorted(load.errors.items())]
    return {
        "rounds": sum(strikes.values()),
        "jobs accepted": len(load.accepted),
        **{key: found[key] for key in (
            "done", "failed, since two workers were lost", "lost", "stuck", "wrong", "ended twice"
        )},
        "requests to submit that were not answered by 202": ", ".join(kept) or "0",
        "longest time to an end (s)": round(load.longest),
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }  # fmt: skip


def main(argv: list[str]) -> int:
    """Measures all."""
    del argv
    logging.set_verbosity(logging.WARNING)  # httpx tells every request
    results = {}
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as root:
        bundle = Path(_BUNDLE.value).absolute() if _BUNDLE.value else tiny_bundle(Path(root))
        for name in _SETTINGS.value:
            results[name] = measure(name, Path(root) / name, bundle)
            print(name, results[name], flush=True)
    lines = ["| figure | " + " | ".join(f"`{name}`" for name in results) + " |"]
    lines.append("| --- |" + " --- |" * len(results))
    for figure in next(iter(results.values())):
        lines.append(f"| {figure} | " + " | ".join(str(r[figure]) for r in results.values()) + " |")
    print("\n".join(lines))
    if _WRITE.value:
        write_section("kills", lines)
    bad = ("lost", "stuck", "wrong", "ended twice")
    return int(any(result[key] for result in results.values() for key in bad))


if __name__ == "__main__":
    errors.run(main)
