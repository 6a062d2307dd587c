"""Captions of a folder of videos: from one CSV or JSONL file, or from `.txt` files beside them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from lumiere_jax.data.finding import place
from lumiere_jax.data.splits import split_told
from lumiere_jax.data.table import Columns, any_of, read_rows
from lumiere_jax.data.text_file import read_text
from lumiere_jax.data.time_columns import cutting
from lumiere_jax.runtime.errors import UserError

FILE_NAMES = ("captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl")
PATH_COLUMNS = ("path", "file", "video", "file_name")
CAPTION_COLUMNS = ("caption", "text")

_MOST_CHARACTERS = 2**20  # of a `.txt` file, far more than any caption has


def find_captions_file(folder: Path) -> Path | None:
    """The first of `FILE_NAMES`, in whatever case, that a folder has."""
    found = [path for path in folder.iterdir() if path.name.lower() in FILE_NAMES]
    files = [path for path in found if path.is_file()]
    order = {path: (FILE_NAMES.index(path.name.lower()), path) for path in files}
    return min(files, key=order.__getitem__, default=None)


@dataclasses.dataclass
class Listed:
    """What a captions file says of a video."""

    captions: list[str] = dataclasses.field(default_factory=list)  # without empty ones
    split: str = ""  # "train" or "test"; "" if it says nothing


def read_captions_file(path: Path) -> dict[str, Listed]:
    """Reads a CSV or JSONL file with one video and its caption a line.

    The video is a path relative to the file's own folder, in a column (key) named as one of
    `PATH_COLUMNS`; the caption is in one of `CAPTION_COLUMNS`, and `splits.COLUMN` may say the
    split. A video may have several lines.

    The result has the video's `finding.place` as keys, in the order of the file. A `UserError`
    names the line that is malformed and what it lacks, or columns that name parts of videos,
    because captions in such a folder are of whole ones.
    """
    found: dict[str, Listed] = {}
    known: set[str] = set()
    for line, row in read_rows(path, (PATH_COLUMNS, CAPTION_COLUMNS)):
        if not known.issuperset(row):
            _refuse_times(path, list(row))
            known.update(row)
        video, caption = _name_and_text(path, line, row, PATH_COLUMNS, CAPTION_COLUMNS)
        listed = found.setdefault(place(path.parent / video), Listed())
        listed.captions.extend([caption] if caption else [])
        where = f"captions file {path}, line {line}"
        split = split_told(where, row) or listed.split
        if listed.split not in ("", split):
            raise UserError(f"{where}: {video} is {listed.split} in a line before and {split} here")
        listed.split = split
    return found


def read_table(
    path: Path, name_columns: Columns, text_columns: Columns
) -> Iterator[tuple[str, str]]:
    """Names and texts in a CSV or JSONL file; white space in a text becomes one space."""
    for line, row in read_rows(path, (name_columns, text_columns)):
        yield _name_and_text(path, line, row, name_columns, text_columns)


def read_caption(path: Path) -> list[str]:
    """The caption in a `.txt` file, as a list of one, or empty; a `NotText` if it is no text."""
    text = read_text(path, _MOST_CHARACTERS)
    return list(filter(None, [" ".join(text.split())]))


def _refuse_times(path: Path, columns: list[str]) -> None:
    """Refuses a table of parts of videos, which would all get the captions of the others."""
    if times := cutting(columns):
        raise UserError(
            f"captions file {path} has {', '.join(times)}, but in a folder a caption is of a whole "
            f"video; let prepare_data cut the videos (--source={path}), or remove the columns"
        )


def _name_and_text(
    path: Path, line: int, row: dict, name_columns: Columns, text_columns: Columns
) -> tuple[str, str]:
    name, text = (_field(path, line, row, names) for names in (name_columns, text_columns))
    return name.strip(), " ".join(text.split())


def _field(path: Path, line: int, row: dict, names: Columns) -> str:
    """The text under the first of the names that the row has."""
    value = next((row[name] for name in names if name in row), None)
    if not isinstance(value, str):
        problem = "missing" if value is None else "not a text"
        raise UserError(f"captions file {path}, line {line}: {any_of(names)} is {problem}")
    return value
