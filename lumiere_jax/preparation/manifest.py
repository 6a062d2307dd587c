"""Which videos to prepare: those of a folder, or the lines of a CSV, JSONL or Parquet file."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from lumiere_jax.data.captions import (
    CAPTION_COLUMNS,
    PATH_COLUMNS,
    any_of,
    check_columns,
    find_captions_file,
    read_caption_beside,
    read_captions_file,
    read_rows,
    real_path,
)
from lumiere_jax.data.source import SPLITS
from lumiere_jax.data.video_folder import SUFFIXES, find_videos
from lumiere_jax.runtime.errors import UserError

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True, slots=True)
class Video:
    """A video, or a part of one, that clips are made of."""

    path: str  # relative to `Source.root`, absolute, or in a bucket ("gs://BUCKET/NAME")
    captions: tuple[str, ...]  # one or more; empty if there is none, which is a reason to reject it
    split: str  # "train" or "test"
    start: float | None = None  # in seconds from the first frame; None: the beginning
    end: float | None = None  # likewise; None: the end

    def to_line(self) -> str:
        """One line of JSON, which `from_line` reads."""
        values = [self.path, self.captions, self.split, self.start, self.end]
        return json.dumps(values) + "\n"  # in ASCII: a path may be no UTF-8

    @classmethod
    def from_line(cls, line: str) -> "Video":
        """The video of a line of `to_line`."""
        path, captions, split, start, end = json.loads(line)
        return cls(path, tuple(captions), split, start, end)


@dataclasses.dataclass(frozen=True)
class Source:
    """All videos of a folder or manifest."""

    root: str  # folder that relative paths start from
    videos: list[Video]  # in the order of the manifest, or of the sorted paths of a folder


def read_source(path: str | os.PathLike, test_fraction: float) -> Source:
    """Reads a folder or a manifest.

    A folder is read as `VideoFolder` does: with the captions of its captions file, or of `.txt`
    files beside the videos; and where it has folders `train` and `test`, they are the splits. All
    other videos are split by a hash of their path, all parts of a video to the same side.

    Args:
      path: a folder, or a file, which may be in a bucket ("gs://BUCKET/NAME"), with a column (key)
        named as one of `captions.PATH_COLUMNS`, one of `captions.CAPTION_COLUMNS` and, if wanted,
        `start` and `end` in seconds. Relative paths in it start from its own folder. Several lines
        with the same path, start and end are several captions of the same clips.
      test_fraction: share of the videos that goes into the split "test".

    Raises:
      UserError: no such folder or file, no video in it, or a line that makes no sense.
    """
    if "://" in str(path):
        return _read_remote(epath.Path(path), test_fraction)
    path = Path(path).expanduser()
    if path.is_dir():
        root, videos = path, _read_folder(path, test_fraction)
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        root, videos = path.parent, _read_manifest(path, test_fraction)
    elif path.exists():
        raise UserError(f"source {path}: a manifest's name must end in {any_of(MANIFEST_SUFFIXES)}")
    else:
        raise UserError(f"source {path}: there is no such folder or manifest")
    if not videos:
        raise UserError(
            f"source {path} has no videos: a folder needs files ending in {any_of(SUFFIXES)}, a "
            "manifest a line for each"
        )
    return Source(str(real_path(root)), videos)


def _read_remote(path: epath.Path, test_fraction: float) -> Source:
    """Reads a manifest in a bucket; relative paths in it start from its folder there."""
    if path.suffix.lower() not in MANIFEST_SUFFIXES or not path.exists():
        raise UserError(
            f"source {path}: there is no such file, or none ending in {any_of(MANIFEST_SUFFIXES)}; "
            "of videos in a bucket, give a manifest and not their folder"
        )
    with tempfile.TemporaryDirectory() as folder:
        path.copy(local := Path(folder) / path.name)
        return dataclasses.replace(read_source(local, test_fraction), root=str(path.parent))


def choose_split(path: str, test_fraction: float) -> str:
    """The split of a video: "test" for the share of all paths whose hash is lowest."""
    number = int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "big")
    return "test" if number < test_fraction * 2**64 else "train"


def _read_folder(root: Path, test_fraction: float) -> list[Video]:
    """The videos below a folder, with the captions that belong to them."""
    captions_file = find_captions_file([root])
    listed = read_captions_file(captions_file) if captions_file else {}
    split_folders = [name for name in SPLITS if (root / name).is_dir()]
    missing = [path for path in listed if not path.exists()]  # they are rejected, with that reason
    videos = []
    for path in [*find_videos(root), *missing]:
        captions = listed.get(real_path(path)) or read_caption_beside(path)
        base = next((b for b in (root, real_path(root)) if path.is_relative_to(b)), None)
        name = (path.relative_to(base) if base else path).as_posix()
        first = name.split("/")[0]
        split = first if first in split_folders else choose_split(name, test_fraction)
        videos.append(Video(name, tuple(captions), split))
    return videos


def _read_manifest(path: Path, test_fraction: float) -> list[Video]:
    """The clips of a manifest; lines for the same clips become one with several captions."""
    captions: dict[tuple[str, float | None, float | None], list[str]] = {}
    for line, row in _rows(path):
        where = f"manifest {path}, line {line}"
        name = _text(where, row, PATH_COLUMNS)
        if not name:
            raise UserError(f"{where}: the path is empty")
        start, end = (_seconds(where, row, key) for key in ("start", "end"))
        if end is not None and end <= (begin := start or 0.0):
            raise UserError(f"{where}: end is {end:g} s, which is not after start, {begin:g} s")
        caption = _text(where, row, CAPTION_COLUMNS)
        known = captions.setdefault((name, start, end), [])
        if caption and caption not in known:
            known.append(caption)
    return [
        Video(name, tuple(known), choose_split(name, test_fraction), start, end)
        for (name, start, end), known in captions.items()
    ]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and values of each line of a manifest; rows of Parquet count from 1."""
    columns = (PATH_COLUMNS, CAPTION_COLUMNS)
    if path.suffix.lower() != ".parquet":
        yield from read_rows(path, columns, kind="manifest")
        return
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_columns(f"manifest {path}", names, columns)
            used = [n for n in names if n in {*PATH_COLUMNS, *CAPTION_COLUMNS, "start", "end"}]
            batches = (batch.to_pylist() for batch in file.iter_batches(columns=used))
            yield from enumerate(itertools.chain.from_iterable(batches), start=1)
    except OSError as error:
        raise UserError(f"manifest {path} cannot be read: {error}") from error
    except pyarrow.ArrowException as error:
        raise UserError(f"manifest {path} is not Parquet: {error}") from error


def _text(where: str, row: dict[str, Any], names: tuple[str, ...]) -> str:
    """The text under the first of the names that the row has; white space becomes one space."""
    if not any(name in row for name in names):
        raise UserError(f"{where}: {any_of(names)} is missing")
    value = next((row[name] for name in names if row.get(name) is not None), "")
    if not isinstance(value, str):
        raise UserError(f"{where}: {any_of(names)} is {value!r}, not a text")
    if names is PATH_COLUMNS:
        return value.strip()
    return " ".join(value.encode(errors="replace").decode().split())  # half a character is none


def _seconds(where: str, row: dict[str, Any], key: str) -> float | None:
    """A time, which may be absent."""
    value = row.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, float) and math.isnan(value):  # how Parquet files of pandas say "none"
        return None
    if not 0 <= seconds < math.inf:
        raise UserError(f"{where}: {key} is {value!r}, not a time in seconds")
    return seconds
