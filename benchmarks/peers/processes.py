"""Networks in processes of their own, which answer requests in JSON lines, and take turns."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import Progress

FOLDER = Path(__file__).parent
RUNS = ("forward", "sample", "train")  # in this order: the peak of memory only rises
TEXT_LENGTH, TEXT_DIM = 24, 768


class Worker:
    """A process of `torch_worker.py` or `stunet_worker.py`; use it in a `with` statement.

    Attributes:
      hello: its first line: parameters and peak memory in bytes before the first run.
    """

    def __init__(self, python: str, script: str, *arguments: str) -> None:
        """Starts the process and waits until its network is built.

        Args:
          python: that runs it.
          script: file of this folder.
          arguments: of the script.

        Raises:
          UserError: if it ends before, with the end of what it said.
        """
        self._command = [python, str(FOLDER / script), *arguments]
        self._said = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            text=True,
        )  # fmt: skip
        try:
            self.hello = self._answer()
        except UserError:
            self.__exit__()
            raise

    def ask(self, run: str) -> dict[str, Any]:
        """One run of "forward", "train" or "sample": "seconds" and "peak", or an "error".

        A process that ends, say for lack of memory, is an error as well.
        """
        try:
            self._process.stdin.write(json.dumps({"run": run}) + "\n")
            self._process.stdin.flush()
            return self._answer()
        except (UserError, BrokenPipeError):
            return {"error": f"its process ended with exit code {self._process.wait()}"}

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            raise UserError(f"{' '.join(self._command)} ended: {self._said.read()[-800:]}")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()


def torch_worker(python: str, setting: Sequence[str], **flags: Any) -> Worker:
    """Another implementation, see `torch_worker.py`."""
    return Worker(python, "torch_worker.py", *setting, *_arguments(flags))


def stunet_worker(setting: Sequence[str], **flags: Any) -> Worker:
    """A space-time U-Net of ours, see `stunet_worker.py`."""
    return Worker(sys.executable, "stunet_worker.py", *setting, *_arguments(flags))


def _arguments(flags: dict[str, Any]) -> list[str]:
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in flags.items()
        if value is not False
    ]


def measure_rounds(
    workers: Mapping[str, Worker], runs: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """Runs all networks in turns.

    Args:
      workers: by name.
      runs: kinds of run, in their order.
      rounds: runs of each kind that count, after one that does not.

    Returns:
      For each worker and kind of run: seconds of the "first" run and of those that count
      ("seconds"), and "peak" memory in bytes; or an "error".
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in workers}
    for run in runs:
        progress = Progress(f"{run}, {len(workers)} networks", rounds + 1, "rounds")
        for number in range(rounds + 1):
            for name, worker in workers.items():
                cell = found[name].setdefault(run, {"seconds": []})
                if "error" in cell:
                    continue
                answer = worker.ask(run)
                if "error" in answer:
                    found[name][run] = answer
                elif not number:
                    cell["first"] = answer["seconds"]
                else:
                    cell["seconds"].append(answer["seconds"])
                    cell["peak"] = answer["peak"]
            progress.advance()
    return found
