"""The engine for more videos than one machine can decode: an Apache Beam pipeline over the shards.

Every shard is made by the function that the plain engine calls, wherever the runner puts it, and is
written straight into the output. No clip travels between machines, and what is done already is not
done again, so that a pipeline which was stopped continues; even by the plain engine.
"""

import shlex
import threading
from collections.abc import Iterator
from typing import Any

from lumiere_jax import text
from lumiere_jax.data.prepared_format import Index, Shard
from lumiere_jax.preparation import run, shards
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.preparation.report import finish
from lumiere_jax.preparation.shards import Summary, Task
from lumiere_jax.preparation.workers import Crew
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import Progress

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as _error:
    raise UserError(
        "--beam needs Apache Beam: pip install 'lumiere_jax[beam]', in an environment of its own"
    ) from _error

LOCAL_RUNNER = "FnApiRunner"  # the others need a server, or a program that is downloaded
_POLL_SECONDS = 5.0


def prepare(plan: Plan, text_config: dict[str, Any] | None, arguments: str) -> Index:
    """Makes what is left of a plan, as `run.prepare` does.

    Args:
      plan: what to make.
      text_config: `config.text` of the encoder whose embeddings are stored; None stores none.
      arguments: flags of Beam; without a `--runner`, this process does the work.

    Raises:
      UserError: no clip is left, or the pipeline failed.
    """
    flags = shlex.split(arguments)
    if not any(flag.split("=")[0] == "--runner" for flag in flags):
        flags.append(f"--runner={LOCAL_RUNNER}")
    todo = run.left(plan)
    if todo:
        with _Watch(plan):
            _run_pipeline(plan, todo, text_config, PipelineOptions(flags))
    return finish(plan, text.create(text_config) if text_config else None)


def _run_pipeline(
    plan: Plan, todo: list[Shard], text_config: dict[str, Any] | None, options: PipelineOptions
) -> None:
    """Runs the pipeline to its end."""
    try:
        with beam.Pipeline(options=options) as pipeline:
            (
                pipeline
                | "shards to make" >> beam.Create(todo)
                | "spread" >> beam.Reshuffle()
                | "make" >> beam.ParDo(_MakeShard(str(plan.output), plan.root, text_config))
            )
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise UserError(f"the Beam pipeline failed: {lines[-1]}") from error


class _MakeShard(beam.DoFn):
    """Makes a shard in a process of its own, which a video that kills it cannot take along."""

    def __init__(self, output: str, root: str, text_config: dict[str, Any] | None):
        self._output, self._root, self._text_config = output, root, text_config

    def setup(self) -> None:
        """Called once by each worker of the runner."""
        self._plan = Plan.load(self._output).moved(self._root)
        self._encoder = text.create(self._text_config) if self._text_config else None
        self._crew = Crew(self._plan, 1)

    def process(self, shard: Shard) -> Iterator[str]:
        """Makes one shard, unless a worker that the runner gave up made it already."""
        if Summary.read(self._plan, shard) is None:
            for event in self._crew.run([Task.of(self._plan, shard, self._encoder)]):
                if event.summary is not None:
                    count = beam.metrics.Metrics.counter
                    count("prepare_data", "clips").inc(event.summary.records)
                    rejected = len(event.summary.rejected_files)
                    count("prepare_data", "files rejected").inc(rejected)
        yield str(shard)

    def teardown(self) -> None:
        """Called when the runner is done with the worker."""
        self._crew.__exit__()


class _Watch:
    """Prints progress while a pipeline runs, here or elsewhere, by the files that appear."""

    def __init__(self, plan: Plan):
        self._plan, self._ended = plan, threading.Event()
        self._total = sum(1 for _ in plan.shards())
        self._progress = Progress("preparing", self._total, "shards", start=self._done())
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._progress.update(self._done(), force=True)

    def _run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._progress.update(min(self._done(), self._total - 1))

    def _done(self) -> int:
        return sum(1 for _ in (self._plan.output / shards.FOLDER).glob("*.json"))
