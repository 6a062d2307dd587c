"""The plain engine: many processes of one machine make the shards of a plan."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from lumiere_jax.data.prepared_index import Index
from lumiere_jax.data.prepared_records import DATASET, Shard
from lumiere_jax.data.prepared_settings import Settings
from lumiere_jax.data.video_folder import SPLITS
from lumiere_jax.preparation import embedding, index, shards
from lumiere_jax.preparation.manifest import read_source
from lumiere_jax.preparation.plan import FOLDER, Plan, make_plan
from lumiere_jax.preparation.workers import Crew
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.preemption import Interruption
from lumiere_jax.runtime.progress import Announcement, Progress
from lumiere_jax.text import TextEncoder


@contextlib.contextmanager
def begun(source: str | os.PathLike, output: epath.PathLike, settings: Settings) -> Iterator[Plan]:
    """The plan of an output, which nobody else works on meanwhile.

    Args:
      source: folder or manifest, see `read_source`.
      output: folder of the output; made if missing.
      settings: of the records.

    Raises:
      UserError: as `read_source` and `make_plan`, or somebody else works on the output.
    """
    output = epath.Path(output)
    with Announcement(f"reading {source}"):
        videos = read_source(source, settings.test_fraction)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(output))
            plan = make_plan(output, videos, settings)
            (output / shards.FOLDER).mkdir(exist_ok=True)
            _remove_unfinished(output)
        except OSError as error:
            raise UserError(f"--output {output} cannot be written: {error}") from error
        stack.callback(_remove_unfinished, output)
        yield plan


def left(plan: Plan) -> list[Shard]:
    """The shards that are not done."""
    with ThreadPoolExecutor(16) as pool:  # in a bucket, each takes a while
        done = list(pool.map(lambda shard: shards.read_summary(plan, shard), plan.shards()))
    return [shard for shard, found in zip(plan.shards(), done, strict=True) if found is None]


def prepare(plan: Plan, encoder: TextEncoder | None, num_workers: int) -> Index:
    """Makes what is left of a plan.

    Args:
      plan: what to make.
      encoder: of captions, whose embeddings are stored; None stores none.
      num_workers: processes that decode.

    Raises:
      UserError: no clip is left, or the output cannot be written.
      KeyboardInterrupt: after Ctrl-C; another call continues.
      Preempted: after SIGTERM; another call continues.
    """
    todo = left(plan)
    print(describe_plan(plan, len(todo)))
    total = sum(plan.num_videos.values())
    finished, current = total - sum(plan.size(shard) for shard in todo), {}
    progress = Progress("preparing", total, "videos", start=finished)
    num_clips = num_rejected = 0
    tasks = (embedding.task(plan, shard, encoder) for shard in todo)
    with Interruption() as interruption, Crew(plan, min(num_workers, len(todo))) as crew:
        for event in crew.run(tasks):
            interruption.poll()
            if event.video is not None:
                current[event.shard] = event.video
            elif event.summary is not None:
                current.pop(event.shard, None)
                finished += plan.size(event.shard)
                num_clips += event.summary["records"]
                num_rejected += len(event.summary["rejected_files"])
            if finished == total and event.summary is None:
                continue  # the last line was printed
            note = f"{num_clips} clips, {num_rejected} files rejected" if num_clips else ""
            progress.update(finished + sum(current.values()), note)
    return index.finish(plan, encoder and (encoder.max_length, encoder.dim))


def describe(output: epath.PathLike) -> str:
    """The head of the report of a finished output."""
    report = json.loads((epath.Path(output) / index.REPORT_JSON).read_text())
    return "\n".join(index.summary_lines(report))


def describe_plan(plan: Plan, num_left: int) -> str:
    """One line: how many videos there are, and how many shards are left to make."""
    num_shards = sum(1 for _ in plan.shards())
    videos = ", ".join(f"{plan.num_videos[split]} for {split}" for split in SPLITS)
    done = f", {num_shards - num_left} of them done before" if num_left < num_shards else ""
    return f"videos: {videos}; {num_shards} shards{done}"


@contextlib.contextmanager
def _locked(output: epath.Path) -> Iterator[None]:
    """Keeps a second run out of a local output. The kernel forgets the lock of a killed one."""
    if "://" in str(output):
        yield
        return
    folder = Path(output) / FOLDER
    made = not folder.exists()
    if made and Path(output).exists() and any(Path(output).iterdir()):
        raise UserError(f"{output} holds other files: choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is preparing {output}: wait for its end") from None
        yield


def _remove_unfinished(output: epath.Path) -> None:
    """Removes what a killed run was about to write."""
    for pattern in (f".{DATASET}-*", f"{shards.FOLDER}/.*", ".index-*", ".report-*"):
        for path in output.glob(pattern):
            path.unlink(missing_ok=True)
