"""`prepared`: clips that `python -m lumiere_jax.prepare_data` made of videos."""

import collections
import functools
import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from lumiere_jax.data.limits import Limits
from lumiere_jax.data.pixels import Frames, as_size
from lumiere_jax.data.prepared_format import Index, Record, Shard, open_reader
from lumiere_jax.data.source import Embedding, HoldsFrames, check_clip, choose_start, fingerprint
from lumiere_jax.runtime.errors import UserError

_OPEN_FILES = 256
_TEXTS_KEPT = 256  # of clips that are read at once, whose texts are asked for after their frames


class Prepared(HoldsFrames):
    """Clips in shards, each of which can be read without any other.

    No video is decoded and no clip is filtered here: that was done once, for all trainings.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        num_frames: int,
        resolution: int | Sequence[int],
        fps: float,
        split: str = "train",
        clip: str = "random",
    ):
        """Reads the index of what `prepare_data` wrote, locally or in a bucket.

        Arguments are the fields of `DataConfig`: resolution and rate must be those that are stored,
        and of longer clips a part is taken. Without clips for "test" both splits are the same. A
        `UserError` if the folder holds other clips, or no finished output.
        """
        check_clip("prepared", split, clip)
        self._folder = epath.Path(folder).expanduser()
        self._index = Index.load(self._folder)
        self._split = split if self._index.num_clips(split) else "train"
        self._ends = list(accumulate(self._index.shard_lengths[self._split]))
        if not self._ends or not self._ends[-1]:
            raise UserError(f"{folder} has no clip in its split train")
        self._check(num_frames, as_size(resolution), fps)
        self._num_frames, self._clip = num_frames, clip
        self._format = self._index.record_format()
        self._reader = functools.lru_cache(_OPEN_FILES)(self._open)
        self._texts = collections.OrderedDict[int, tuple[np.ndarray, ...]]()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def is_held_out(self) -> bool:
        """Whether there are clips for "test"."""
        return self._index.num_clips("test") > 0

    @property
    def fingerprint(self) -> str:
        """Names the clips: all that is stored, and which part of it is taken."""
        facts = {"index": self._index.fingerprint, "split": self._split}
        return fingerprint("prepared", **facts, clip=[self._num_frames, self._clip])

    @property
    def limits(self) -> Limits:
        """What videos had to have to be prepared."""
        return self._index.settings.limits

    @property
    def text_fingerprint(self) -> str | None:
        """The text encoder whose embeddings are stored; None if there are none."""
        return self._index.settings.text_fingerprint

    def frames(self, index: int, seed: int = 0) -> tuple[Frames, str]:
        """A clip and its caption, by (index, seed); a `UserError` if its file is damaged."""
        record = self._read(index)
        start, number = self._draw(index, seed, len(record.captions))
        return record.frames[start : start + self._num_frames], record.captions[number]

    def stored_text(self, index: int, seed: int = 0) -> Embedding | None:
        """The encoder's answer to the caption of `frames(index, seed)`, zero where it is padding.

        None if no embeddings are stored.
        """
        if self._index.text_shape is None:
            return None
        with self._lock:
            texts = self._texts.get(index)
        texts = texts or self._read(index).text
        tokens = texts[self._draw(index, seed, len(texts))[1]]
        text = np.zeros(self._index.text_shape, np.float32)
        text[: len(tokens)] = tokens
        return text, np.arange(len(text)) < len(tokens)

    def _draw(self, index: int, seed: int, num_captions: int) -> tuple[int, int]:
        """First frame and number of the caption of an example."""
        generator = np.random.default_rng([seed, index])
        spare = self._index.settings.num_frames - self._num_frames
        start = choose_start(generator, spare, self._clip)
        return start, int(generator.integers(num_captions))

    def _read(self, index: int) -> Record:
        """The stored clip; its texts are kept for a while."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._ends, index)
        position = index - (self._ends[shard - 1] if shard else 0)
        try:
            reader, lock = self._reader(shard)
            with lock:
                serialized = reader.read([position])[0]
            record = self._format.parse(serialized)
        except Exception as error:  # as readers and parsers please
            raise UserError(
                f"{self._path(shard)} is missing or damaged ({error}): restore it, or prepare the "
                "data again"
            ) from error
        if record.text:
            with self._lock:
                self._texts[index] = record.text
                while len(self._texts) > _TEXTS_KEPT:
                    self._texts.popitem(last=False)
        return record

    def _path(self, shard: int) -> epath.Path:
        return self._folder / Shard(self._split, shard, len(self._ends)).file_name

    def _open(self, shard: int) -> tuple[ArrayRecordReader, threading.Lock]:
        return open_reader(self._path(shard)), threading.Lock()

    def _check(self, num_frames: int, size: tuple[int, int], fps: float) -> None:
        """Refuses to give other clips than those that are stored."""
        stored = self._index.settings
        if size == stored.resolution and fps == stored.fps and 1 <= num_frames <= stored.num_frames:
            return
        raise UserError(
            f"{self._folder} holds clips of {stored.num_frames} frames of {_by(stored.resolution)} "
            f"pixels at {stored.fps:g} fps, but {num_frames} frames of {_by(size)} pixels at "
            f"{fps:g} fps are asked for: set config.data to what is stored (fewer frames are "
            "possible), or prepare the videos again"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
