"""A server for the benchmarks of serving, in folders of its own, and their page."""

import contextlib
import datetime
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).parents[2]
README = Path(__file__).parent / "README.md"


class Server:
    """`python -m lumiere_jax.serve`; whatever it writes by mistake lands below `root`."""

    def __init__(self, root: Path, bundle: str, *flags: str):
        """Starts it and waits until it is ready."""
        self.root, self.data = root, root / "data"
        elsewhere = {"HOME": root / "home", "TMPDIR": root / "tmp"}
        for folder in (*elsewhere.values(), root / "cwd"):
            folder.mkdir(exist_ok=True)
        environment = os.environ | {name: str(path) for name, path in elsewhere.items()}
        environment["PYTHONPATH"] = str(REPOSITORY)
        command = [sys.executable, "-m", "lumiere_jax.serve", f"--bundle={bundle}", "--port=0"]
        self.log = (root / "log").open("ab")
        self._before = self.log.tell()  # of a start before
        self.process = subprocess.Popen(
            [*command, f"--data={self.data}", *flags],
            cwd=root / "cwd", env=environment, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.url = ""
        until = time.monotonic() + 120
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit((root / "log").read_text())
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        told = (self.root / "log").read_bytes()[self._before :].decode()
        found = re.search(r" at (http://\S+)/ with", told)
        self.url = found[1] if found else ""
        with contextlib.suppress(httpx.HTTPError):
            return bool(found) and httpx.get(f"{self.url}/api/v1/health").status_code == 200
        return False

    def processes(self) -> list[psutil.Process]:
        """Itself and its workers."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def foreign_files(self) -> list[str]:
        """Files that it wrote, or has open for writing, outside of its data folder."""
        written = {
            str(path)
            for folder in ("home", "tmp", "cwd")
            for path in (self.root / folder).rglob("*")
            if path.is_file()
        }
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                written |= {f.path for f in process.open_files() if "r" not in f.mode[:1]}
        inside = (str(self.data), str(self.root / "log"), "/dev/", "/proc/")
        return sorted(path for path in written if not path.startswith(inside))

    def stop(self) -> int:
        """Ends it; returns its exit code."""
        self.process.terminate()
        code = self.process.wait(60)
        self.log.close()
        return code


@contextlib.contextmanager
def serving(root: Path, bundle: str, *flags: str) -> Iterator[Server]:
    """A server that runs meanwhile."""
    server = Server(root, bundle, *flags)
    try:
        yield server
    finally:
        server.stop()


def tiny_bundle(folder: Path) -> Path:
    """Weights for every task, trained for a few steps."""
    from lumiere_jax.checkpoints.exporting import export
    from tests.tiny_runs import train_cascade

    workdirs = train_cascade(folder / "cascade")
    stages = ("t2i", "stunet", "stunet_conditional", "t2i_ssr", "ssr", "style")
    export([str(workdirs[stage]) for stage in stages], folder / "bundle")
    return folder / "bundle"


def write_section(name: str, lines: list[str]) -> None:
    """Replaces what the page says between two marks."""
    busy = os.getloadavg()[1]
    made = (
        f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), mean load of the "
        f"last 5 minutes {busy:.1f}:"
    )
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    section = "\n".join([made, "", *lines])
    README.write_text(f"{before}{begin}\n{section}\n{end}{after}", encoding="utf-8")
