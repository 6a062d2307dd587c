"""Which videos to prepare: those of a folder, or the lines of a CSV, JSONL or Parquet file."""

import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from lumiere_jax.data.captions import CAPTION_COLUMNS, PATH_COLUMNS
from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, usual
from lumiere_jax.data.finding import composed, first_files, not_found, stored
from lumiere_jax.data.listing import Listing
from lumiere_jax.data.splits import COLUMN, split_told
from lumiere_jax.data.table import any_of, check_columns, named, read_rows
from lumiere_jax.data.time_columns import TimeColumns
from lumiere_jax.preparation.splitting import Splitting, common_folder
from lumiere_jax.runtime.errors import UserError

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".parquet", ".tsv")
_SUFFIXES_TOLD = f"{any_of(MANIFEST_SUFFIXES[:-1])}, or {MANIFEST_SUFFIXES[-1]}"


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
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # reason by file of a folder
    columns: str = ""  # which columns of a manifest are used, and as what
    splits: str = ""  # by what the splits were chosen, and how many videos each has


def read_source(path: str | os.PathLike, test_fraction: float) -> Source:
    """Reads a folder or a manifest.

    A folder is read as `VideoFolder` does: with the captions of its captions file, or of `.txt`
    files beside the videos. A video's split is what the column `split` of that file or of a
    manifest says of it, else the first folder of its path if that is named as a split
    (`data.splits`): in the folder, or in that of the manifest, or in the one that all videos of a
    manifest are in. All other videos are split by a hash of their path, all parts of a video to the
    same side.

    Args:
      path: a folder, or a file, which may be in a bucket ("gs://BUCKET/NAME"), with a column (key)
        named as one of `captions.PATH_COLUMNS`, one of `captions.CAPTION_COLUMNS` and, if wanted,
        times, as `start` and `end` in seconds or what `time_columns` knows. Relative paths in it
        start from its own folder. Several lines with the same path, start and end are several
        captions of the same clips.
      test_fraction: share of the videos that goes into the split "test".

    Raises:
      UserError: no such folder or file, no video in it, or a line that makes no sense.
    """
    place = Path(path) if "://" in str(path) else stored(Path(path).expanduser())
    if "://" in str(path):
        source = _read_remote(epath.Path(path), test_fraction)
    elif place.is_dir():
        source = _read_folder(place, test_fraction)
    elif place.suffix.lower() in MANIFEST_SUFFIXES:
        source = _read_manifest(place, os.path.realpath(place.parent), test_fraction)
    elif place.exists():
        raise UserError(f"source {path}: a manifest's name must end in {_SUFFIXES_TOLD}")
    else:
        raise UserError(f"source {path}: there is no such folder or manifest")
    if not source.videos:
        left_out = "".join(f"; {name}: {why}" for name, why in list(source.left_out.items())[:3])
        raise UserError(
            f"source {path} has no videos: a folder needs videos ({usual(VIDEO_SUFFIXES)}), a "
            f"manifest a line for each{left_out}"
        )
    return source


def check_found(source: Source) -> None:
    """Refuses a source of which not one video is there; what is in buckets is not looked for."""
    paths = [video.path for video in source.videos]
    if "://" in source.root or any("://" in path for path in paths):
        return
    if not any(os.path.lexists(stored(Path(source.root, path))) for path in paths):
        wanted = os.path.join(source.root, paths[0])
        raise UserError(
            f"not one of the {len(paths)} videos is there: "
            f"{not_found(wanted, first_files(Path(source.root)))}; relative paths start from "
            f"{source.root}"
        )


def _read_remote(path: epath.Path, test_fraction: float) -> Source:
    """Reads a manifest in a bucket; relative paths in it start from its folder there."""
    if path.suffix.lower() not in MANIFEST_SUFFIXES or not path.exists():
        raise UserError(
            f"source {path}: there is no such file, or none ending in {_SUFFIXES_TOLD}; "
            "of videos in a bucket, give a manifest and not their folder"
        )
    with tempfile.TemporaryDirectory() as folder:
        path.copy(local := Path(folder) / path.name)
        return _read_manifest(local, str(path.parent), test_fraction)


def _read_folder(root: Path, test_fraction: float) -> Source:
    """The videos below a folder, with the captions that belong to them."""
    listing = Listing(root, "video")
    nothing_listed = listing.nothing_listed()
    if nothing_listed and not any(listing.captions.values()):
        raise UserError(f"source {root}: no video has a caption; {nothing_listed}")
    captions = listing.captions | listing.missing  # which are rejected, with that reason
    real_root, videos = Path(os.path.realpath(root)), []
    splitting = Splitting(test_fraction, str(real_root))
    for path, texts in captions.items():
        base = next((b for b in (root, real_root) if path.is_relative_to(b)), None)
        name = (path.relative_to(base) if base else path).as_posix()
        split = splitting.choose(name, listing.splits.get(path, ""))
        videos.append(Video(name, texts, split))
    return Source(str(real_root), videos, listing.left_out, splits=str(splitting))


def _read_manifest(path: Path, root: str, test_fraction: float) -> Source:
    """The clips of a manifest; lines for the same clips become one with several captions."""
    captions: dict[tuple[str, float | None, float | None], list[str]] = {}
    told: dict[tuple[str, float | None, float | None], str] = {}  # the splits that a column says
    told_of: dict[str, str] = {}  # the same by path, for parts of which it says nothing
    names: dict[str, str] = {}  # of one file, which may be spelled in two ways
    columns: dict[tuple[str, ...], TimeColumns] = {}
    for line, row in _rows(path):
        where = f"manifest {path}, line {line}"
        name = _text(where, row, PATH_COLUMNS)
        if not name:
            raise UserError(f"{where}: the path is empty")
        keys = tuple(row)
        if keys not in columns:
            columns[keys] = TimeColumns.among(where, keys)
        start, end = columns[keys].span(where, row)
        caption = _text(where, row, CAPTION_COLUMNS)
        key = names.setdefault(composed(name), name), start, end
        known = captions.setdefault(key, [])
        if caption and caption not in known:
            known.append(caption)
        if split := split_told(where, row):
            told_of.setdefault(key[0], split)
            if told.setdefault(key, split) != split:
                raise UserError(
                    f"{where}: the same as before is {told[key]} there and {split} here"
                )
    common = [common_folder(root, names.values())] if names else []
    splitting = Splitting(test_fraction, root, common)
    videos = [
        Video(
            name, tuple(known), splitting.choose(name, told.get(key, told_of.get(name, ""))), *part
        )
        for key, known in captions.items()
        for name, *part in [key]
    ]
    return Source(root, videos, columns=_told(columns), splits=str(splitting))


def _told(columns: dict[tuple[str, ...], TimeColumns]) -> str:
    """Which columns of a manifest are used, and which are not."""
    used: dict[str, str] = {}
    for names, times in columns.items():
        for choice in (PATH_COLUMNS, CAPTION_COLUMNS, (COLUMN,)):
            used |= {name: name for name in choice if name in names}
        used |= {name: f"{name} ({meaning})" for name, meaning in times.told().items()}
    others = {name: None for names in columns for name in names if name and name not in used}
    told = f"columns used: {', '.join(used.values())}"
    return told + (f"; not used: {', '.join(others)}" if others else "")


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
            keys = dict(zip(names, named(f"manifest {path}", names), strict=True))
            check_columns(f"manifest {path}", list(keys.values()), columns)
            times = TimeColumns.among(f"manifest {path}", list(keys.values())).told()
            read_as = {*PATH_COLUMNS, *CAPTION_COLUMNS, COLUMN, *times}
            used = [name for name in names if keys[name] in read_as]
            batches = (batch.to_pylist() for batch in file.iter_batches(columns=used))
            rows = itertools.chain.from_iterable(batches)
            unused: dict[str, Any] = dict.fromkeys(keys.values())  # not read, but told of
            read = (unused | {keys[name]: row[name] for name in used} for row in rows)
            yield from enumerate(read, start=1)
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
