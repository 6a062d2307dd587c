"""A server as users start it, and a client for it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).parents[2]
PROMPT = "a large red circle moving right"


class LiveServer:
    """`python -m lumiere_jax.serve` in a process group of its own."""

    def __init__(
        self, bundle: Path, data: Path, *flags: str, is_ready: bool = True,
        program: tuple[str, ...] = ("-m", "lumiere_jax.serve"),
    ):  # fmt: skip
        self.data = data
        data.parent.mkdir(parents=True, exist_ok=True)
        self.log = data.parent / f"{data.name}.log"
        command = [sys.executable, *program, f"--bundle={bundle}"]
        command += [f"--data={data}", "--port=0", *flags]
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
            )
        pattern = re.compile(rb" at (http://\S+)/ with|workers take jobs")
        found = self._wait(lambda: pattern.search(self.log.read_bytes()[begin:]))
        self.url = (found[1] or b"").decode()
        self.client = httpx.Client(base_url=f"{self.url}/api/v1", timeout=300)
        if is_ready and self.url:
            self._wait(lambda: self.client.get("/health").status_code == 200)

    def _wait(self, is_so, seconds: float = 600.0):
        until = time.monotonic() + seconds
        while not (found := is_so()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)
        return found

    def submit(self, files=None, **fields) -> str:
        reply = self.client.post(
            "/jobs", data={"task": "text_to_video", "prompt": PROMPT} | fields, files=files
        )
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    def job(self, job: str) -> dict:
        return self.client.get(f"/jobs/{job}").json()

    def wait(self, *jobs: str, states=("done", "failed", "cancelled"), seconds=600.0) -> list[dict]:
        """The jobs as soon as all are in one of the states."""

        def look():
            found = [self.job(job) for job in jobs]
            return found if all(job["state"] in states for job in found) else None

        return self._wait(look, seconds)

    def workers(self) -> list[psutil.Process]:
        """Processes that make videos."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
        return found

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(300)

    def kill(self) -> None:
        """SIGKILL to the server alone: its workers must notice."""
        self.client.close()
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = self.workers() if self.process.poll() is None else []
            self.process.kill()
            self.process.wait()
            _, left = psutil.wait_procs(workers, timeout=200)
            for worker in left:
                os.kill(worker.pid, signal.SIGKILL)
            assert not left, "workers outlive their server"
