"""Makes one shard: the unit of work of every engine, the same wherever it runs."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Self

import numpy as np
from etils import epath
from jaxtyping import Float32

from lumiere_jax.data.prepared_format import Record, RecordFormat, Shard, open_writer
from lumiere_jax.preparation.clips import Clip, Rejection, find_clips
from lumiere_jax.preparation.manifest import Video
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.text import TextEncoder

FOLDER = "shards"
_CAPTIONS_AT_ONCE = 64

Embeddings = Mapping[str, Float32[np.ndarray, "token channel"]]
"""Caption -> embedding, without padding."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A shard to make."""

    shard: Shard
    embeddings: Embeddings | None = None  # of all captions of its videos; None: not stored
    killers: Mapping[int, str] = field(default_factory=dict)
    """Number of a video of the shard -> why it must not be opened again."""

    @classmethod
    def of(cls, plan: Plan, shard: Shard, encoder: TextEncoder | None) -> Self:
        """What a worker needs to make a shard: embeddings are computed once, here."""
        if encoder is None:
            return cls(shard)
        captions = {caption: None for video in plan.videos(shard) for caption in video.captions}
        return cls(shard, embed(encoder, captions))


def embed(encoder: TextEncoder, captions: Iterable[str]) -> Embeddings:
    """Embeds captions, without their padding, which must be at the end, or it is a `UserError`."""
    captions, embeddings = list(captions), {}
    for first in range(0, len(captions), _CAPTIONS_AT_ONCE):
        batch = captions[first : first + _CAPTIONS_AT_ONCE]
        vectors, mask = (np.asarray(array) for array in encoder(batch))
        for caption, rows, used in zip(batch, vectors, mask, strict=True):
            length = int(used.sum())
            if not used[:length].all() or rows[length:].any():
                raise UserError(
                    f"the embeddings of {encoder.fingerprint} cannot be stored: its padding is not "
                    "zeros at the end"
                )
            embeddings[caption] = rows[:length].astype(np.float32)
    return embeddings


@dataclasses.dataclass(kw_only=True)
class Summary:
    """What is known of a shard that is done; its file says that it is."""

    records: int = 0  # how many clips
    bytes: int = 0  # of all records, not compressed
    file_bytes: int = 0  # of the file
    sha256: str = ""  # of the records in order
    # Path, start, end and reason: of each video that gave no clip, and of each clip left out.
    rejected_files: list[dict[str, Any]] = field(default_factory=list)
    treated: dict[str, str] = field(default_factory=dict)  # what was done to a video, by its path
    rejected_clips: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def path(plan: Plan, shard: Shard) -> epath.Path:
        """The file of the summary of a shard."""
        return plan.output / FOLDER / f"{shard}.json"

    @classmethod
    def read(cls, plan: Plan, shard: Shard) -> Self | None:
        """The summary of a shard that is done; None for one that is not."""
        try:
            summary = cls(**json.loads(cls.path(plan, shard).read_text()))
            size = (plan.output / shard.file_name).stat().length
        except (OSError, json.JSONDecodeError):
            return None
        return summary if size == summary.file_bytes else None

    def note_rejections(self, video: Video, rejections: list[Rejection], is_empty: bool) -> None:
        """Notes those of a video, which gave no clip at all if `is_empty`."""
        for part in rejections:
            if part.start is not None:
                self.rejected_clips.append(_entry(video, part.start, part.end, part.reason))
        if is_empty:
            reason = _reason_for_all(rejections)
            self.rejected_files.append(_entry(video, video.start, video.end, reason))


def make_shard(plan: Plan, task: Task, tell: Callable[[int], None]) -> Summary:
    """Writes the file of a shard, and then its summary, which says that the shard is done.

    `tell` is called with the number of a video before each part of it is read. A `UserError` if the
    files cannot be written.
    """
    path = plan.output / task.shard.file_name
    try:
        with written(path) as temporary:
            summary = _write_records(temporary, plan, task, tell)
        text = json.dumps(dataclasses.asdict(summary)) + "\n"
        write_text(Summary.path(plan, task.shard), text)
    except (OSError, RuntimeError) as error:  # the latter are ArrayRecord's
        raise UserError(f"{path} cannot be written: {error}") from error
    return summary


def _write_records(
    path: epath.PathLike, plan: Plan, task: Task, tell: Callable[[int], None]
) -> Summary:
    """Writes all clips of a shard, and sums up."""
    summary, digest, record_format = Summary(), hashlib.sha256(), None
    writer = open_writer(path)
    for number, video in enumerate(plan.videos(task.shard)):
        clips = find_clips(video, plan.root, plan.settings)
        if number in task.killers:
            clips = iter([Rejection(task.killers[number])])
        text = tuple(task.embeddings[c] for c in video.captions) if task.embeddings else ()
        before, rejections = summary.records, []
        for found in _telling(clips, number, tell):
            if isinstance(found, Rejection):
                rejections.append(found)
                continue
            if record_format is None:
                record_format = RecordFormat(found.frames.shape, text[0].shape[1] if text else None)
            if found.treated:
                summary.treated[video.path] = ", ".join(found.treated)
            record = Record(found.frames, video.captions, video.path, found.start, text)
            serialized = record_format.serialize(record)
            writer.write(serialized)
            summary.records, summary.bytes = summary.records + 1, summary.bytes + len(serialized)
            digest.update(hashlib.sha256(serialized).digest())
        summary.note_rejections(video, rejections, is_empty=summary.records == before)
    writer.close()
    summary.sha256, summary.file_bytes = digest.hexdigest(), epath.Path(path).stat().length
    return summary


def _telling(
    clips: Iterator[Clip | Rejection], number: int, tell: Callable[[int], None]
) -> Iterator[Clip | Rejection]:
    """Passes clips on, and tells the number of the video before each of them."""
    tell(number)
    for found in clips:
        yield found
        tell(number)


def _entry(video: Video, start: float | None, end: float | None, reason: str) -> dict[str, Any]:
    return {"path": video.path, "start": start, "end": end, "reason": reason}


def _reason_for_all(rejections: list[Rejection]) -> str:
    """Why a video gave no clip at all."""
    whole = [rejection.reason for rejection in rejections if rejection.start is None]
    kinds = collections.Counter(rejection.reason.split(":")[0] for rejection in rejections)
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return whole[0] if whole else f"no clip is left: {parts}"
