"""Where training metrics go: TensorBoard, by clu, and a JSON line a step."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clu import metric_writers
from etils import epath

from lumiere_jax.runtime.distributed import is_primary
from lumiere_jax.runtime.files import write_text

FILE = "metrics.jsonl"


class MetricsFile(metric_writers.MultiWriter):
    """Appends scalars to `metrics.jsonl`, and hands everything on to other writers.

    A run that is resumed at step N drops what a previous process wrote after N, so that the
    file is that of one uninterrupted run.
    """

    def __init__(
        self,
        workdir: str | Path,
        resumed_step: int,
        others: Sequence[metric_writers.MetricWriter] = (),
    ):
        """Opens the file in `workdir`, without the lines after `resumed_step`."""
        super().__init__(others)
        path = epath.Path(workdir) / FILE
        kept = [line for line in read(workdir) if line["step"] <= resumed_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line; a number that is not finite becomes null."""
        line = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()
        super().write_scalars(step, scalars)

    def close(self) -> None:
        """Closes the file and the other writers."""
        self._file.close()
        super().close()


def read(workdir: str | Path) -> Iterator[dict[str, float]]:
    """The lines of a run's metrics file, each with "step"; a half-written last line is left out."""
    path = epath.Path(workdir) / FILE
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def create_writer(workdir: str | Path, resumed_step: int) -> metric_writers.MetricWriter:
    """The writer of this process; only the first one writes."""
    if not is_primary():
        return metric_writers.MultiWriter([])
    tensorboard = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
    return MetricsFile(workdir, resumed_step, [tensorboard])
