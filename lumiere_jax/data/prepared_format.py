"""What `python -m lumiere_jax.prepare_data` writes: settings, records in shards, and an index.

A clip is a serialized `tf.train.Example` of a TFDS data set. Its frames are raw bytes, which
ArrayRecord compresses by zstd: lossless, and the fastest of what was tried. On two cores, 64 frames
of 128 x 128 pixels are read in 18 ms, while a video of 1280 x 720 takes 290 ms to decode to them;
PNG frames take 70 ms, JPEG frames, with a loss, 20 ms.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from jaxtyping import Float32

from lumiere_jax.data.limits import Limits
from lumiere_jax.data.pixels import Frames
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text

FORMAT_VERSION = 1  # of the records and files; another one means other fingerprints
DATASET = "prepared"
FILE_FORMAT = "array_record"
INDEX_FILE = "index.json"
# Of what was prepared before there were limits.
NO_LIMITS: dict[str, Any] = {"min_size": 1, "min_rate": 0.0, "max_repeats": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits of the filters, all in levels of 0 to 255; 0 turns one off."""

    brightness: float = 16.0  # least mean luma of a clip
    motion: float = 0.5  # least mean change between neighbouring frames
    cut: float = 40.0  # lowest score of a cut between two frames, see `filters.find_cuts`

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 255:
                raise UserError(f"the {name} threshold is {value:g}; it is a level of 0 to 255")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides which records are made of videos, whatever engine makes them."""

    num_frames: int  # frames of a clip
    resolution: tuple[int, int]  # (height, width) of a clip in pixels
    fps: float  # frames per second of a clip
    max_clips_per_video: int = 0  # clips from one video, the first ones; 0 for all
    test_fraction: float = 0.01  # share of the videos that goes into the split "test"
    videos_per_shard: int = 0  # videos whose clips share a file; 0 chooses by their number
    thresholds: Thresholds = Thresholds()  # of the filters
    limits: Limits = Limits()  # for files and clips
    text_fingerprint: str | None = None  # of the encoder of stored embeddings; None: none are

    def __post_init__(self) -> None:
        if self.num_frames < 1 or min(self.resolution) < 1 or self.fps <= 0:
            raise UserError(
                f"a clip of {self.num_frames} frames of {self.resolution} pixels at {self.fps:g} "
                "frames per second cannot be made; all must be positive"
            )
        if not 0 <= self.test_fraction < 1:
            fraction = f"{self.test_fraction:g}"
            raise UserError(f"test_fraction is {fraction}; it must be from 0 to below 1")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, 3) of a clip."""
        return (self.num_frames, *self.resolution, 3)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return dataclasses.asdict(self) | {"resolution": list(self.resolution)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """The settings of a plan or an index."""
        height, width = values["resolution"]
        parts: dict[str, Any] = {
            "resolution": (height, width),
            "thresholds": Thresholds(**values["thresholds"]),
            "limits": Limits(**values.get("limits", NO_LIMITS)),
        }
        return cls(**values | parts)


@dataclasses.dataclass(frozen=True, order=True)
class Shard:
    """A file of the output: number `number` of the `count` of its split."""

    split: str
    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.split}-{self.number:05d}-of-{self.count:05d}"

    @property
    def file_name(self) -> str:
        """Its file, named as TFDS does."""
        return f"{DATASET}-{self.split}.{FILE_FORMAT}-{self.number:05d}-of-{self.count:05d}"


@dataclasses.dataclass(frozen=True)
class Record:
    """A clip as it is stored."""

    frames: Frames  # the clip
    captions: tuple[str, ...]  # one or more
    path: str  # of the video, as the manifest spells it
    start: float  # where in the video the clip begins, in seconds
    text: tuple[Float32[np.ndarray, "token channel"], ...] = ()  # of each caption, or empty


class RecordFormat:
    """Serializes records of one size, and parses them; `features` are those of TFDS."""

    def __init__(self, clip_shape: Sequence[int], text_dim: int | None = None):
        """Args: shape [T, H, W, 3] of a clip, and size D of stored embeddings, if there are any."""
        import tensorflow as tf
        import tensorflow_datasets as tfds  # here, because it takes a second or two
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        as_bytes = {"encoding": tfds.features.Encoding.BYTES}
        features = {
            "video": tfds.features.Tensor(shape=tuple(clip_shape), dtype=np.uint8, **as_bytes),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "path": tfds.features.Text(),
            "start": tfds.features.Scalar(np.float32),
        }
        if text_dim:
            shape = (None, text_dim)
            features["text"] = tfds.features.Tensor(shape=shape, dtype=np.float32, **as_bytes)
            features["text_lengths"] = tfds.features.Tensor(shape=(None,), dtype=np.int64)
        self.features = tfds.features.FeaturesDict(features)
        self._clip_shape, self._text_dim = tuple(clip_shape), text_dim or 0
        self._example = tf.train.Example
        self._serializer = ExampleSerializer(self.features.get_serialized_info())

    def serialize(self, record: Record) -> bytes:
        """The bytes of a record, the same ones on every machine."""
        example: dict[str, Any] = {
            "video": record.frames,
            "captions": list(record.captions),
            "path": record.path.encode(errors="backslashreplace"),
            "start": np.float32(record.start),
        }
        if "text" in self.features:
            example["text"] = np.concatenate(record.text)
            example["text_lengths"] = np.array([len(text) for text in record.text], np.int64)
        proto = self._serializer.get_tf_example(self.features.encode_example(example))
        return proto.SerializeToString(deterministic=True)  # else a map has no order

    def parse(self, serialized: bytes) -> Record:
        """The record of `serialize`."""
        # TFDS copies the frames once more, and keeps all other threads waiting for it.
        example = self._example.FromString(serialized).features.feature
        text: tuple[np.ndarray, ...] = ()
        if "text" in self.features:
            rows = np.frombuffer(_bytes(example, "text"), np.float32).reshape(-1, self._text_dim)
            lengths = example["text_lengths"].int64_list.value
            text = tuple(np.split(rows, np.cumsum(lengths)[:-1]))
        frames = np.frombuffer(_bytes(example, "video"), np.uint8)
        return Record(
            frames=frames.reshape(self._clip_shape),
            captions=tuple(caption.decode() for caption in example["captions"].bytes_list.value),
            path=_bytes(example, "path").decode(),
            start=float(example["start"].float_list.value[0]),
            text=text,
        )


def _bytes(example: Mapping[str, Any], name: str) -> bytes:
    """A feature that is one string of bytes."""
    (value,) = example[name].bytes_list.value
    return value


def open_writer(path: os.PathLike) -> ArrayRecordWriter:
    """A writer of a new file; one record is a group, so that each can be read without others."""
    return ArrayRecordWriter(os.fspath(path), "group_size:1,zstd:3")


def open_reader(path: os.PathLike) -> ArrayRecordReader:
    """A reader of a file, for single records in any order."""
    return ArrayRecordReader(os.fspath(path), "readahead_buffer_size:0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """What a finished output holds."""

    settings: Settings  # that it was made by
    shard_lengths: dict[str, list[int]]  # split -> number of clips in each of its shards
    num_bytes: dict[str, int]  # split -> size of its clips in bytes, before compression
    text_shape: tuple[int, int] | None  # (L, D) of stored embeddings, padded; None: there are none
    fingerprint: str  # SHA-256 of the settings of the clips and of all records in order

    def num_clips(self, split: str) -> int:
        """Clips of a split."""
        return sum(self.shard_lengths[split])

    def record_format(self) -> RecordFormat:
        """How the records are stored."""
        return RecordFormat(self.settings.clip_shape, self.text_shape and self.text_shape[1])

    def save(self, output: epath.PathLike) -> None:
        """Writes the index of a finished output."""
        values = dataclasses.asdict(self) | {"settings": self.settings.to_json()}
        text = json.dumps({"format": FORMAT_VERSION} | values) + "\n"
        write_text(epath.Path(output) / INDEX_FILE, text)

    @classmethod
    def load(cls, output: epath.PathLike) -> "Index":
        """Reads the index of a finished output; a `UserError` if there is none of this version."""
        path = epath.Path(output) / INDEX_FILE
        try:
            values = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(
                f"{output} holds no prepared data ({path.name}: {error}); prepare it, or finish "
                "what was begun, with python -m lumiere_jax.prepare_data"
            ) from error
        if values.pop("format", None) != FORMAT_VERSION:
            raise UserError(f"{path} is of another version: prepare the data again")
        return cls(**values | {"settings": Settings.from_json(values["settings"])})
