"""Captions of a folder of videos: from one CSV or JSONL file, or from `.txt` files beside them."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lumiere_jax.runtime.errors import UserError

FILE_NAMES = ("captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl")
PATH_COLUMNS = ("path", "file", "video", "file_name")
CAPTION_COLUMNS = ("caption", "text")

Columns = tuple[str, ...]  # names of a column (key), of which the first that there is counts


def find_captions_file(folders: list[Path]) -> Path | None:
    """The first file of `FILE_NAMES` in the first of the folders that has one."""
    candidates = (folder / name for folder in folders for name in FILE_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def read_captions_file(path: Path) -> dict[Path, list[str]]:
    """Reads a CSV or JSONL file with one video and its caption a line.

    The video is a path relative to the file's own folder, in a column (key) named as one of
    `PATH_COLUMNS`; the caption is in one of `CAPTION_COLUMNS`. A video may have several lines.

    The result is resolved video path -> captions, in the order of the file, without empty ones. A
    `UserError` names the line that is malformed and what it lacks.
    """
    captions: dict[Path, list[str]] = {}
    for video, caption in read_table(path, PATH_COLUMNS, CAPTION_COLUMNS):
        listed = captions.setdefault(real_path(path.parent / video), [])
        listed.extend([caption] if caption else [])
    return captions


def real_path(path: Path) -> Path:
    """A path with its links followed; links in a circle stay as they are, where `resolve` fails."""
    return Path(os.path.realpath(path))


def read_table(
    path: Path, name_columns: Columns, text_columns: Columns
) -> Iterator[tuple[str, str]]:
    """Names and texts in a CSV or JSONL file; white space in a text becomes one space."""
    for line, row in read_rows(path, (name_columns, text_columns)):
        name, text = (_field(path, line, row, names) for names in (name_columns, text_columns))
        yield name, " ".join(text.split())


def read_rows(
    path: Path, wanted: Sequence[Columns], kind: str = "captions file"
) -> Iterator[tuple[int, dict]]:
    """Line number and fields of each row of a CSV or JSONL file, which messages call a `kind`.

    A CSV file needs a column of each of `wanted`. A `UserError` names the line that is malformed.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise UserError(f"{kind} {path}: its name must end in .csv or .jsonl")
    try:
        yield from readers[path.suffix.lower()](f"{kind} {path}", path, wanted)
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{kind} {path} is not UTF-8 text ({error.reason})") from error


def read_caption_beside(video: Path) -> list[str]:
    """The caption in the `.txt` file of the same name, as a list of one; empty if there is none."""
    path = video.with_suffix(".txt")
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    return list(filter(None, [" ".join(text.split())]))


def _csv_rows(file_name: str, path: Path, wanted: Sequence[Columns]) -> Iterator[tuple[int, dict]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            check_columns(f"{file_name}, line 1", reader.fieldnames, wanted)
            for row in reader:
                if None in row or None in row.values():
                    surplus = row.pop(None, [])
                    found = sum(value is not None for value in row.values()) + len(surplus)
                    raise UserError(
                        f"{file_name}, line {reader.line_num}: {found} fields where the "
                        f"header has {len(reader.fieldnames)}; put captions with commas in quotes"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            line = reader.reader.line_num
            raise UserError(f"{file_name}, line {line}: {error}") from error


def check_columns(where: str, columns: Sequence[str], wanted: Sequence[Columns]) -> None:
    """Names the columns that a header lacks."""
    for names in wanted:
        if not set(names) & set(columns):
            among = ", ".join(columns) or "none"
            raise UserError(f"{where}: no column {any_of(names)} among {among}")


def _jsonl_rows(file_name: str, path: Path, _: Sequence[Columns]) -> Iterator[tuple[int, dict]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"{file_name}, line {line}: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{file_name}, line {line}: not a JSON object")
            yield line, row


def _field(path: Path, line: int, row: dict, names: Columns) -> str:
    """The text under the first of the names that the row has."""
    value = next((row[name] for name in names if name in row), None)
    if not isinstance(value, str):
        problem = "missing" if value is None else "not a text"
        raise UserError(f"captions file {path}, line {line}: {any_of(names)} is {problem}")
    return value


def any_of(names: Columns) -> str:
    """A choice in words: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
