"""The engine for more videos than one machine can decode: an Apache Beam pipeline over the shards.

Every shard is made by the function that the plain engine calls, wherever the runner puts it, and is
written straight into the output. No clip travels between machines, and what is done already is not
done again, so that a pipeline which was stopped continues; even by the plain engine.
"""

import contextlib
import dataclasses
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

    `text_config` is that of the encoder whose embeddings are stored, if any are. `arguments` are
    flags of Beam; without a `--runner`, this process does the work. A `UserError` if it fails.
    """
    flags = shlex.split(arguments)
    if not any(flag.split("=")[0] == "--runner" for flag in flags):
        flags.append(f"--runner={LOCAL_RUNNER}")
    if todo := run.left(plan):
        with _watched(plan):
            _run_pipeline(plan, todo, text_config, flags)
    return finish(plan, text.create(text_config) if text_config else None)


def _run_pipeline(
    plan: Plan, todo: list[Shard], text_config: dict[str, Any] | None, flags: list[str]
) -> None:
    try:
        with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
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
        self._plan = dataclasses.replace(Plan.load(self._output), root=self._root)
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


@contextlib.contextmanager
def _watched(plan: Plan) -> Iterator[None]:
    """Prints progress while a pipeline runs, here or elsewhere, by the files that appear."""
    total, ended = sum(1 for _ in plan.shards()), threading.Event()
    progress = Progress("preparing", total, "shards", start=_num_done(plan))

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            progress.update(min(_num_done(plan), total - 1))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.update(_num_done(plan), force=True)


def _num_done(plan: Plan) -> int:
    return sum(1 for _ in (plan.output / shards.FOLDER).glob("*.json"))
