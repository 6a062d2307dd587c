"""Where training metrics go: TensorBoard, by clu, and a JSON line a step."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from clu import metric_writers
from etils import epath

from lumiere_jax.runtime.distributed import is_primary
from lumiere_jax.runtime.files import write_text

FILE = "metrics.jsonl"


class MetricsFile:
    """Appends scalars to `metrics.jsonl` and gives them back.

    A run that is resumed at step N drops what a previous process wrote after N, so that the
    file is that of one uninterrupted run.
    """

    def __init__(self, workdir: str | Path, resumed_step: int):
        """Opens the file in `workdir`, without the lines after `resumed_step`."""
        self.path = epath.Path(workdir) / FILE
        kept = [line for line in read(workdir) if line["step"] <= resumed_step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line; a number that is not finite becomes null."""
        line = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read(workdir: str | Path) -> Iterator[dict[str, float]]:
    """The lines of a run's metrics file, each with "step"; a half-written last line is left out."""
    path = epath.Path(workdir) / FILE
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


class MetricsWriter:
    """Writes scalars to TensorBoard and to the JSON-lines file."""

    def __init__(self, workdir: str | Path, resumed_step: int):
        """Opens both in `workdir`."""
        self._file = MetricsFile(workdir, resumed_step)
        self._tensorboard = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes `scalars` under `step`."""
        self._file.write(step, scalars)
        self._tensorboard.write_scalars(step, dict(scalars))

    def close(self) -> None:
        """Flushes and closes both."""
        self._tensorboard.close()
        self._file.close()


class NoWriter:
    """Writes nothing: for all processes but the first."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def create_writer(workdir: str | Path, resumed_step: int) -> MetricsWriter | NoWriter:
    """The writer of this process."""
    return MetricsWriter(workdir, resumed_step) if is_primary() else NoWriter()
