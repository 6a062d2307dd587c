"""The videos of UCF101 on a disk: the official files, or the records that TFDS makes of them.

Officially: `UCF-101/CLASS/v_CLASS_gXX_cYY.avi` and `ucfTrainTestlist/`, where the videos may have
been converted to another format. The TFDS builder `ucf101`
prepares records of JPEG frames and a label.
"""

import dataclasses
import functools
import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES
from lumiere_jax.data.finding import find_files as find_all
from lumiere_jax.data.folder import examine_all
from lumiere_jax.data.pixels import Frames
from lumiere_jax.data.text_file import NotText, read_text
from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_list import MISSING, find_listed
from lumiere_jax.data.video_timing import VideoInfo, VideoReadError, probe_video
from lumiere_jax.runtime.errors import UserError

LISTS = "ucfTrainTestlist"
LISTS_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask.zip"
VIDEO_ARCHIVES = ("UCF101.rar", "UCF101_videos.zip")

_LONGEST_LIST = 2**24  # characters
_FRAMING = 12  # bytes before the data of a TFRecord: its length and a checksum; 4 follow


@dataclasses.dataclass(frozen=True)
class UcfVideo:
    """A video of UCF101."""

    name: str  # of its file, or which record of which shard it is; unique and stable
    label: int  # its class, 0 to 100, as TFDS counts
    num_frames: int  # how many it has
    read: Callable[[int, int], Frames]  # its frames, by the number of the first one and how many


class Found(NamedTuple):
    """What there is of a split."""

    videos: list[UcfVideo]  # that can be used
    left_out: dict[str, str]  # by name the reason why others cannot
    treated: dict[str, str]  # by name what else than decoding is done to a video


def find_files(root: Path, split: str, fold: int) -> Found:
    """The videos of a split, in the order of their files' names.

    `root` holds the videos, in folders or not, and the lists, unpacked or not. A `UserError` says
    what is missing, and how to get it.
    """
    labels = {action.name.casefold(): label for label, action in enumerate(classes())}
    if not (paths := find_all(root, VIDEO_SUFFIXES)):
        _explain_missing_videos(root)
    name = f"{split}list{fold:02d}.txt"
    try:
        listed = find_listed(_list(root, name), root, paths)
    except UserError as error:
        raise UserError(f"ucf101: the list {name} in {root}: {error}") from error
    found = Found([], {}, {})
    probed = examine_all(_probe, list(listed.values()))
    for (name, path), info in zip(listed.items(), probed, strict=True):
        label = labels.get(Path(name).parent.name.casefold())
        if label is None:
            raise UserError(f"ucf101: {name!r} in {LISTS} is of no class that UCF101 has")
        if path is None or isinstance(info, str):
            found.left_out[Path(name).name] = str(info)
            continue
        read = functools.partial(_read_file, path, info)
        found.videos.append(UcfVideo(path.name, label, info.num_frames(info.fps), read))
        if info.treated:
            found.treated[path.name] = ", ".join(info.treated)
    return found


def _read_file(path: Path, info: VideoInfo, first: int, count: int) -> Frames:
    try:
        return read_video(
            path, fps=info.fps, start=first, num_frames=count, info=info, num_threads=1
        )
    except VideoReadError as error:
        raise UserError(f"{error}; it was fine when the folder was read: restore it") from error


def _probe(path: Path | None) -> VideoInfo | str:
    if path is None:
        return MISSING
    try:
        return probe_video(path)
    except VideoReadError as error:
        return f"broken: {error.reason}"


def _list(root: Path, name: str) -> str:
    """The text of a list, unpacked or not."""
    place, archive = root / LISTS / name, root / LISTS_ARCHIVE
    try:
        if place.is_file():
            return read_text(place, _LONGEST_LIST)
        if archive.is_file():
            with zipfile.ZipFile(archive) as file:
                return file.read(f"{LISTS}/{name}").decode("utf-8-sig")
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError, NotText) as error:
        raise UserError(f"it cannot be read ({error})") from error
    raise UserError(
        f"there is none; put {LISTS_ARCHIVE} of the data set's page there, or unpack it there"
    )


def _explain_missing_videos(root: Path) -> None:
    packed = [name for name in VIDEO_ARCHIVES if (root / name).is_file()]
    if packed:
        tool = "unrar x" if packed[0].endswith(".rar") else "unzip"
        raise UserError(
            f"ucf101: {root} holds {packed[0]}, which is not unpacked: run `cd {root} && {tool} "
            f"{packed[0]}`"
        )
    raise UserError(
        f"ucf101: {root} holds no .avi file and no other video; give the folder that holds "
        "UCF-101, or the data_dir of TFDS, in which there is a folder ucf101"
    )


def find_records(root: Path, split: str, fold: int) -> Found:
    """The videos of a split, in the order of the records, all of which are read once.

    `root` is the `data_dir` of TFDS; a `UserError` if it has no TFRecords of the data set.
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
        places = [_Place(path, *span) for path in files for span in _spans(path)]
    except (OSError, struct.error) as error:
        raise UserError(f"ucf101: a record file cannot be read ({error})") from error
    return Found(list(examine_all(_Place.video, places)), {}, {})


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a record is: in which file, its first byte and its length."""

    path: Path
    begin: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.path.name}@{self.begin}"

    def features(self) -> Mapping[str, Any]:
        import tensorflow as tf  # takes seconds, and who reads files does not need it

        with self.path.open("rb") as file:
            file.seek(self.begin)
            return tf.train.Example.FromString(file.read(self.length)).features.feature

    def video(self) -> UcfVideo:
        features = self.features()
        label = features["label"].int64_list.value[0]
        return UcfVideo(self.name, label, len(features["video"].bytes_list.value), self.read)

    def read(self, first: int, count: int) -> Frames:
        frames = self.features()["video"].bytes_list.value[first : first + count]
        try:
            return np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in frames])
        except (OSError, ValueError) as error:
            raise UserError(f"ucf101: {self.name} cannot be decoded ({error})") from error


def _spans(path: Path) -> list[tuple[int, int]]:
    """First byte and length of the records of a TFRecord file; only their lengths are read."""
    spans, begin, size = [], 0, path.stat().st_size
    if ".tfrecord" not in path.name:
        raise UserError(f"ucf101: {path} is no TFRecord file; prepare ucf101 in that format")
    with path.open("rb") as file:
        while begin < size:
            file.seek(begin)
            (length,) = struct.unpack("<Q", file.read(8))
            if begin + _FRAMING + length + 4 > size:
                raise UserError(f"ucf101: {path} ends within a record; prepare ucf101 again")
            spans.append((begin + _FRAMING, length))
            begin += _FRAMING + length + 4
    return spans
