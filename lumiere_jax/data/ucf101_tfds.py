"""UCF101 as the TFDS builder `ucf101` prepares it: records of JPEG frames and a label."""

import dataclasses
import io
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from lumiere_jax.data.video_folder import with_progress
from lumiere_jax.runtime.errors import UserError

_FRAMING = 12  # bytes before the data of a TFRecord: its length and a checksum; 4 follow


@dataclasses.dataclass
class VideoRecords:
    """See `ucf101.Videos`; names say which record of which shard it is."""

    names: list[str]
    labels: list[int]
    counts: list[int]
    left_out: dict[str, str]
    places: list[tuple[Path, int, int]]  # file, first byte, length

    def read(self, index: int, first: int, count: int) -> np.ndarray:
        """See `ucf101.Videos`."""
        frames = _parse(*self.places[index])["video"].bytes_list.value[first : first + count]
        try:
            return np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in frames])
        except (OSError, ValueError) as error:
            raise UserError(f"ucf101: {self.names[index]} cannot be decoded ({error})") from error


def find_records(root: Path, split: str, fold: int) -> VideoRecords:
    """The videos of a split, in the order of the records, all of which are read once.

    Args:
      root: `data_dir` of TFDS.
      split: "train" or "test".
      fold: 1, 2 or 3.

    Raises:
      UserError: if the data set is not there, or not prepared as TFRecords at its own size.
    """
    import tensorflow_datasets as tfds

    name = f"ucf101/ucf101_{fold}"
    builder = tfds.builder(name, data_dir=root)
    if not builder.data_path.exists():
        raise UserError(
            f"ucf101: {root} has no {name}; prepare it by `tfds build {name} --data_dir={root}` "
            "(ucf101_1_256, which TFDS prepares by default, changes the aspect of the videos)"
        )
    files = [Path(path) for path in builder.info.splits[split].filepaths]
    try:
        places = [place for path in files for place in _index(path)]
    except (OSError, struct.error) as error:
        raise UserError(f"ucf101: a record file cannot be read ({error})") from error
    records = VideoRecords([], [], [], {}, places)
    with ThreadPoolExecutor(max_workers=4) as pool:
        parsed = with_progress(pool.map(lambda place: _describe(*place), places), len(places))
        for (path, begin, _), (label, count) in zip(places, parsed, strict=True):
            records.names.append(f"{path.name}@{begin}")
            records.labels.append(label)
            records.counts.append(count)
    return records


def _index(path: Path) -> list[tuple[Path, int, int]]:
    """Where the records of a TFRecord file are; only their lengths are read."""
    places, begin, size = [], 0, path.stat().st_size
    if ".tfrecord" not in path.name:
        raise UserError(f"ucf101: {path} is no TFRecord file; prepare ucf101 in that format")
    with path.open("rb") as file:
        while begin < size:
            file.seek(begin)
            (length,) = struct.unpack("<Q", file.read(8))
            if begin + _FRAMING + length + 4 > size:
                raise UserError(f"ucf101: {path} ends within a record; prepare ucf101 again")
            places.append((path, begin + _FRAMING, length))
            begin += _FRAMING + length + 4
    return places


def _parse(path: Path, begin: int, length: int) -> dict[str, tf.train.Feature]:
    with path.open("rb") as file:
        file.seek(begin)
        return tf.train.Example.FromString(file.read(length)).features.feature


def _describe(path: Path, begin: int, length: int) -> tuple[int, int]:
    """Class and number of frames of a record."""
    feature = _parse(path, begin, length)
    return feature["label"].int64_list.value[0], len(feature["video"].bytes_list.value)
