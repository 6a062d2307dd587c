"""A pod in small: processes of this machine that find each other as the hosts of a pod do."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LocalPod:
    """Runs one command in many processes, each with its own virtual devices.

    Use as a context manager: at its end, whatever still runs is killed. What each process prints,
    stdout and stderr together, goes to `FOLDER/process_INDEX.log`.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        processes: int = 2,
        devices: int = 1,
        environment: Mapping[str, str] | None = None,
    ):
        """Remembers what to run.

        Args:
          command: the program and its arguments, the same for all.
          folder: for the logs.
          processes: how many; one process alone is told of no cluster.
          devices: virtual devices of each.
          environment: variables that all of them get beside this process's.
        """
        self._command, self._folder, self._count = list(command), Path(folder), processes
        self._environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
        }
        if processes > 1:
            self._environment["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free_port()}"
            self._environment["JAX_NUM_PROCESSES"] = str(processes)
        self._environment |= environment or {}
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> "LocalPod":
        """Starts the processes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for index in range(self._count):
            number = {"JAX_PROCESS_ID": str(index)} if self._count > 1 else {}
            with open(self._log(index), "wb") as log:
                process = subprocess.Popen(
                    self._command,
                    cwd=REPOSITORY,
                    env=self._environment | number,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)
        return self

    def __exit__(self, *exception: object) -> None:
        """Kills what still runs, stopped processes too."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(30)

    def output(self, index: int) -> str:
        """What a process printed so far."""
        return self._log(index).read_text(errors="replace")

    def send(self, index: int, number: signal.Signals) -> None:
        """Sends a signal to one process."""
        self.processes[index].send_signal(number)

    def wait_for(self, text: str, index: int = 0, timeout_s: float = 300) -> None:
        """Waits until a process has printed a text.

        Raises:
          AssertionError: with all that was printed, if it ends or the time is over before that.
        """
        end = time.monotonic() + timeout_s
        while text not in self.output(index):
            is_over = self.processes[index].poll() is not None and text not in self.output(index)
            if is_over or time.monotonic() > end:
                raise AssertionError(f"no {text!r} from process {index}.\n{self._everything()}")
            time.sleep(0.05)

    def wait(self, *indices: int, timeout_s: float = 300) -> list[int]:
        """Exit codes of the processes named, or of all, once they have ended.

        Raises:
          AssertionError: with all that was printed, if one does not end in time.
        """
        end = time.monotonic() + timeout_s
        codes = []
        for index in indices or range(self._count):
            try:
                codes.append(self.processes[index].wait(max(end - time.monotonic(), 0.1)))
            except subprocess.TimeoutExpired:
                text = f"process {index} does not end.\n{self._everything()}"
                raise AssertionError(text) from None
        return codes

    def _log(self, index: int) -> Path:
        return self._folder / f"process_{index}.log"

    def _everything(self) -> str:
        indices = range(len(self.processes))
        return "\n".join(f"---- process {index}\n{self.output(index)}" for index in indices)
