"""Makes one shard: the unit of work of every engine, the same wherever it runs."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from lumiere_jax.data.prepared_records import Record, RecordFormat, Shard, file_name, open_writer
from lumiere_jax.preparation.clips import Clip, Rejection, find_clips
from lumiere_jax.preparation.manifest import Video
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written

FOLDER = "shards"

Embeddings = Mapping[str, np.ndarray]
"""Caption -> embedding, float32 [tokens, D], without padding."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A shard to make.

    Attributes:
      shard: which.
      embeddings: of all captions of its videos; None where none are stored.
      killers: number of a video of the shard -> why it must not be opened again.
    """

    shard: Shard
    embeddings: Embeddings | None = None
    killers: Mapping[int, str] = dataclasses.field(default_factory=dict)


def make_shard(plan: Plan, task: Task, tell: Callable[[int], None]) -> dict[str, Any]:
    """Writes the file of a shard, and then its summary, which says that the shard is done.

    Args:
      plan: that the shard belongs to.
      task: the shard, and what is known of it.
      tell: called with the number of a video before each part of it is looked at.

    Returns:
      The summary, see `read_summary`.

    Raises:
      UserError: the files cannot be written.
    """
    path = plan.output / file_name(task.shard)
    try:
        with written(path) as temporary:
            summary = _write_records(temporary, plan, task, tell)
        write_text(_summary_path(plan, task.shard), json.dumps(summary) + "\n")
    except (OSError, RuntimeError) as error:  # the latter are ArrayRecord's
        raise UserError(f"{path} cannot be written: {error}") from error
    return summary


def read_summary(plan: Plan, shard: Shard) -> dict[str, Any] | None:
    """What is known of a shard that is done; None for one that is not.

    Returns:
      Dict of `records`, `bytes` (of all records, not compressed), `file_bytes`, `sha256` (of the
      records in order), `rejected_files` (path, part and reason of each video that gave no clip)
      and `rejected_clips` (path, start, end and reason).
    """
    try:
        summary = json.loads(_summary_path(plan, shard).read_text())
        size = (plan.output / file_name(shard)).stat().length
    except (OSError, json.JSONDecodeError):
        return None
    return summary if size == summary["file_bytes"] else None


def _summary_path(plan: Plan, shard: Shard) -> epath.Path:
    return plan.output / FOLDER / f"{shard}.json"


def _write_records(
    path: epath.PathLike, plan: Plan, task: Task, tell: Callable[[int], None]
) -> dict[str, Any]:
    """Writes all clips of a shard, and sums up."""
    tally, record_format, writer = _Tally(), None, open_writer(path)
    for number, video in enumerate(plan.videos(task.shard)):
        clips = find_clips(video, plan.root, plan.settings)
        if number in task.killers:
            clips = iter([Rejection(task.killers[number])])
        before, rejections = tally.records, []
        for found in _telling(clips, number, tell):
            if isinstance(found, Rejection):
                rejections.append(found)
                continue
            record = _record(video, found, task.embeddings)
            record_format = record_format or _format_of(record)
            serialized = record_format.serialize(record)
            writer.write(serialized)
            tally.add(serialized)
        tally.add_rejections(video, rejections, is_empty=tally.records == before)
    writer.close()
    return tally.summary() | {"file_bytes": epath.Path(path).stat().length}


class _Tally:
    """Counts what is written, and notes what is not."""

    def __init__(self) -> None:
        self.records, self._bytes, self._digest = 0, 0, hashlib.sha256()
        self._files: list[dict[str, Any]] = []
        self._clips: list[dict[str, Any]] = []

    def add(self, serialized: bytes) -> None:
        """Counts a record."""
        self.records, self._bytes = self.records + 1, self._bytes + len(serialized)
        self._digest.update(hashlib.sha256(serialized).digest())

    def add_rejections(self, video: Video, rejections: list[Rejection], is_empty: bool) -> None:
        """Notes those of a video, which gave no clip at all if `is_empty`."""
        for part in rejections:
            if part.start is not None:
                entry = {"start": part.start, "end": part.end, "reason": part.reason}
                self._clips.append({"path": video.path} | entry)
        if is_empty:
            entry = {"start": video.start, "end": video.end, "reason": _reason_for_all(rejections)}
            self._files.append({"path": video.path} | entry)

    def summary(self) -> dict[str, Any]:
        """Most of what `read_summary` reads."""
        return {
            "records": self.records,
            "bytes": self._bytes,
            "sha256": self._digest.hexdigest(),
            "rejected_files": self._files,
            "rejected_clips": self._clips,
        }


def _telling(
    clips: Iterator[Clip | Rejection], number: int, tell: Callable[[int], None]
) -> Iterator[Clip | Rejection]:
    """Passes clips on, and tells the number of the video before each of them."""
    tell(number)
    for found in clips:
        yield found
        tell(number)


def _record(video: Video, clip: Clip, embeddings: Embeddings | None) -> Record:
    text = tuple(embeddings[caption] for caption in video.captions) if embeddings else None
    return Record(clip.frames, video.captions, video.path, clip.start, text)


def _format_of(record: Record) -> RecordFormat:
    return RecordFormat(record.frames.shape, record.text[0].shape[1] if record.text else None)


def _reason_for_all(rejections: list[Rejection]) -> str:
    """Why a video gave no clip at all."""
    whole = [rejection.reason for rejection in rejections if rejection.start is None]
    kinds = collections.Counter(rejection.kind for rejection in rejections)
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return whole[0] if whole else f"no clip is left: {parts}"
