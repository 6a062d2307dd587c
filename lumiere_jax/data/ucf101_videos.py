"""The videos of UCF101 on a disk: the official files, or the records that TFDS makes of them.

Officially: `UCF-101/CLASS/v_CLASS_gXX_cYY.avi` and `ucfTrainTestlist/`, where the videos may have
been converted to another format. The TFDS builder `ucf101`
prepares records of JPEG frames and a label.
"""

import collections
import dataclasses
import functools
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from lumiere_jax.data import same_clip
from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES
from lumiere_jax.data.finding import find_files as find_all
from lumiere_jax.data.finding import first_files, not_found
from lumiere_jax.data.folder import examine_all
from lumiere_jax.data.pixels import Frames
from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoInfo, VideoReadError, probe_video
from lumiere_jax.runtime.errors import UserError

VIDEOS = "UCF-101"
LISTS = "ucfTrainTestlist"
LISTS_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask.zip"
VIDEO_ARCHIVES = ("UCF101.rar", "UCF101_videos.zip")

_FRAMING = 12  # bytes before the data of a TFRecord: its length and a checksum; 4 follow


@dataclasses.dataclass(frozen=True)
class UcfVideo:
    """A video of UCF101."""

    name: str  # of its file, or which record of which shard it is; unique and stable
    label: int  # its class, 0 to 100, as TFDS counts
    num_frames: int  # how many it has
    read: Callable[[int, int], Frames]  # its frames, by the number of the first one and how many


Found = tuple[list[UcfVideo], dict[str, str]]
"""The videos of a split, and by name the reason why others cannot be used."""


def find_files(root: Path, split: str, fold: int) -> Found:
    """The videos of a split, in the order of their files' names.

    `root` holds the videos, in folders or not, and the lists, unpacked or not. A `UserError` says
    what is missing, and how to get it.
    """
    labels = {action.name.casefold(): label for label, action in enumerate(classes())}
    known = _known(root)
    if not known:
        _explain_missing_videos(root)
    videos: list[UcfVideo] = []
    left_out: dict[str, str] = {}
    listed = sorted(_listed(root, f"{split}list{fold:02d}.txt"), key=str.casefold)
    paths = [_the_one(name, known.get(_key(name), [root / name])) for name in listed]
    if not any(path.is_file() for path in paths):
        near = not_found(root / listed[0], first_files(root))
        raise UserError(f"ucf101: not one of the {len(paths)} listed videos is there: {near}")
    for name, path, info in zip(listed, paths, examine_all(_probe, paths), strict=True):
        label = labels.get(Path(name).parent.name.casefold())
        if label is None:
            raise UserError(f"ucf101: {name!r} in {LISTS} is of no class that UCF101 has")
        if isinstance(info, str):
            left_out[Path(name).name] = info
            continue
        read = functools.partial(_read_file, path, info)
        videos.append(UcfVideo(path.name, label, info.num_frames(info.fps), read))
    return videos, left_out


def _known(root: Path) -> dict[str, list[Path]]:
    """The files of each video at the best of the places and formats that hold it."""
    found = collections.defaultdict[str, list[Path]](list)
    for path in find_all(root, VIDEO_SUFFIXES):
        found[_key(path)].append(path)
    for name, paths in found.items():
        ranks = {path: _rank(path.relative_to(root)) for path in paths}
        best = (path for path in paths if ranks[path] == min(ranks.values()))
        found[name] = list(same_clip.once(best))
    return found


def _key(name: str | Path) -> str:
    return Path(name).stem.casefold()


def _rank(path: Path) -> tuple[int, bool]:
    """`UCF-101/CLASS/FILE`, or the root for it, comes before all others, and AVI first there."""
    folders = [part.casefold() for part in path.parts[:-1]]
    action = [name.casefold() for name in path.stem.split("_")[1:2]]
    is_official = folders == [VIDEOS.casefold(), *action]
    return 0 if is_official else 1 if folders == action else 2, path.suffix.lower() != ".avi"


def _the_one(name: str, paths: list[Path]) -> Path:
    """The file of a video; a `UserError` if there are several, of which none is the official."""
    if len(paths) > 1:
        raise UserError(
            f"ucf101: there are {len(paths)} copies of {Path(name).name}: "
            f"{', '.join(map(str, paths))}; keep one, or put the right ones into {VIDEOS}/CLASS"
        )
    return paths[0]


def _read_file(path: Path, info: VideoInfo, first: int, count: int) -> Frames:
    try:
        return read_video(
            path, fps=info.fps, start=first, num_frames=count, info=info, num_threads=1
        )
    except VideoReadError as error:
        raise UserError(f"{error}; it was fine when the folder was read: restore it") from error


def _probe(path: Path) -> VideoInfo | str:
    if not path.is_file():
        return "missing: listed, but there is no such file"
    try:
        return probe_video(path)
    except VideoReadError as error:
        return f"broken: {error.reason}"


def _listed(root: Path, name: str) -> list[str]:
    """Lines "CLASS/FILE.avi" of a list, which train lists end with the class's number."""
    place, archive = root / LISTS / name, root / LISTS_ARCHIVE
    try:
        if place.is_file():
            text = place.read_text(encoding="utf-8")
        elif archive.is_file():
            with zipfile.ZipFile(archive) as file:
                text = file.read(f"{LISTS}/{name}").decode()
        else:
            raise UserError(
                f"ucf101: {root} has no {LISTS}/{name}; put {LISTS_ARCHIVE} of the data set's page "
                "there, or unpack it there"
            )
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"ucf101: the list {name} in {root} cannot be read ({error})") from error
    lines = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"ucf101: the list {place} is empty; unpack {LISTS_ARCHIVE} again")
    return lines


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
    return list(examine_all(_Place.video, places)), {}


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a record is: in which file, its first byte and its length."""

    path: Path
    begin: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.path.name}@{self.begin}"

    def features(self) -> dict[str, tf.train.Feature]:
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
