"""Captions of a folder of videos: from one CSV or JSONL file, or from `.txt` files beside them."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

from lumiere_jax.runtime.errors import UserError

FILE_NAMES = ("captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl")
PATH_COLUMNS = ("path", "file", "video", "file_name")
CAPTION_COLUMNS = ("caption", "text")


def find_captions_file(folders: list[Path]) -> Path | None:
    """The first file of `FILE_NAMES` in the first of the folders that has one."""
    candidates = (folder / name for folder in folders for name in FILE_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def read_captions_file(path: Path) -> dict[Path, list[str]]:
    """Reads a CSV or JSONL file with one video and its caption a line.

    The video is a path relative to the file's own folder, in a column (key) named as one of
    `PATH_COLUMNS`; the caption is in one of `CAPTION_COLUMNS`. A video may have several lines.

    Returns:
      Resolved video path -> its captions, in the order of the file; empty ones are left out.

    Raises:
      UserError: the file is missing or malformed; the message names the line and what it lacks.
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
    path: Path, name_columns: tuple[str, ...], text_columns: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Reads names and texts from a CSV or JSONL file.

    Each is in the first of its columns (keys) that there is; white space in a text becomes one
    space.

    Raises:
      UserError: the file is missing or malformed; the message names the line and what it lacks.
    """
    table = []
    for line, row in read_rows(path, (name_columns, text_columns)):
        name, text = (_field(path, line, row, names) for names in (name_columns, text_columns))
        table.append((name, " ".join(text.split())))
    return table


def read_rows(
    path: Path, wanted: tuple[tuple[str, ...], ...], kind: str = "captions file"
) -> Iterator[tuple[int, dict]]:
    """Line number and fields of each row of a CSV or JSONL file, which messages call a `kind`.

    The header of a CSV file needs one column of each tuple in `wanted`.

    Raises:
      UserError: the file is missing or malformed; the message names the line and what it lacks.
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
    if not path.is_file():
        return []
    caption = " ".join(path.read_text(encoding="utf-8-sig", errors="replace").split())
    return [caption] if caption else []


def _csv_rows(
    file_name: str, path: Path, wanted: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[int, dict]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            _check_columns(file_name, reader.fieldnames, wanted)
            for row in reader:
                if None in row or None in row.values():
                    found = sum(value is not None for key, value in row.items() if key is not None)
                    found += len(row.get(None, []))
                    raise UserError(
                        f"{file_name}, line {reader.line_num}: {found} fields where the "
                        f"header has {len(reader.fieldnames)}; put captions with commas in quotes"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            line = reader.reader.line_num
            raise UserError(f"{file_name}, line {line}: {error}") from error


def _check_columns(file_name: str, columns: list[str], wanted: tuple[tuple[str, ...], ...]) -> None:
    """Names the columns that a header lacks."""
    for names in wanted:
        if not set(names) & set(columns):
            raise UserError(
                f"{file_name}, line 1: no column {any_of(names)} among "
                f"{', '.join(columns) or 'none'}"
            )


def _jsonl_rows(
    file_name: str, path: Path, _: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[int, dict]]:
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


def _field(path: Path, line: int, row: dict, names: tuple[str, ...]) -> str:
    """The text under the first of the names that the row has."""
    value = next((row[name] for name in names if name in row), None)
    if not isinstance(value, str):
        problem = "missing" if value is None else "not a text"
        raise UserError(f"captions file {path}, line {line}: {any_of(names)} is {problem}")
    return value


def any_of(names: tuple[str, ...]) -> str:
    """A choice in words: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
