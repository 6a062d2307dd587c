"""The plain engine: many processes of one machine make the shards of a plan."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from lumiere_jax.data.prepared_format import DATASET, Index, Settings, Shard
from lumiere_jax.data.source import SPLITS
from lumiere_jax.preparation import shards
from lumiere_jax.preparation.manifest import check_found, read_source
from lumiere_jax.preparation.plan import FOLDER, Plan, make_plan
from lumiere_jax.preparation.report import finish, read_summaries
from lumiere_jax.preparation.shards import Task
from lumiere_jax.preparation.splitting import note_of_few
from lumiere_jax.preparation.workers import Crew
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.preemption import Interruption
from lumiere_jax.runtime.progress import Progress, announced
from lumiere_jax.text import TextEncoder


@contextlib.contextmanager
def begun(source: str | os.PathLike, output: epath.PathLike, settings: Settings) -> Iterator[Plan]:
    """The plan of an output, which nobody else works on meanwhile, or it is a `UserError`."""
    output = epath.Path(output).expanduser()
    with announced(f"reading {source}"):
        videos = read_source(source, settings.test_fraction)
        check_found(videos)
    print(*filter(None, (videos.columns, videos.splits)), sep="\n")
    held_out = sum(video.split == "test" for video in videos.videos)
    if few := note_of_few(held_out, "videos", settings.test_fraction):
        print(few)
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
    """The shards that are not done; says on stdout how many that are."""
    summaries = read_summaries(plan)
    todo = [shard for shard, summary in summaries.items() if summary is None]
    videos = ", ".join(f"{plan.num_videos[split]} for {split}" for split in SPLITS)
    num_done = len(summaries) - len(todo)
    done = f", {num_done} of them done before" if num_done else ""
    print(f"videos: {videos}; {len(summaries)} shards{done}")
    return todo


def prepare(plan: Plan, encoder: TextEncoder | None, num_workers: int) -> Index:
    """Makes what is left of a plan, and stores embeddings by the encoder if there is one.

    After Ctrl-C (KeyboardInterrupt) or SIGTERM (Preempted) another call continues. A `UserError` if
    no clip is left, or the output cannot be written.
    """
    todo = left(plan)
    total, current = sum(plan.num_videos.values()), dict[Shard, int]()
    finished = total - sum(plan.size(shard) for shard in todo)
    progress = Progress("preparing", total, "videos", start=finished)
    num_clips = num_rejected = 0
    tasks = (Task.of(plan, shard, encoder) for shard in todo)
    with Interruption() as interruption, Crew(plan, min(num_workers, len(todo))) as crew:
        for event in crew.run(tasks):
            interruption.poll()
            if event.shard is None and finished == total:
                continue  # the last line was printed
            if event.shard is not None and event.video is not None:
                current[event.shard] = event.video
            elif event.shard is not None and event.summary is not None:
                current.pop(event.shard, None)
                finished += plan.size(event.shard)
                num_clips += event.summary.records
                num_rejected += len(event.summary.rejected_files)
            note = f"{num_clips} clips, {num_rejected} files rejected" if num_clips else ""
            progress.update(finished + sum(current.values()), note)
    return finish(plan, encoder)


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
