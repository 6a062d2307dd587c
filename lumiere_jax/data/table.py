"""Tables of others: CSV, as programs and spreadsheets write it, and JSONL."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lumiere_jax.data.text_file import open_text
from lumiere_jax.runtime.errors import UserError

Columns = tuple[str, ...]  # names of a column (key), of which the first that there is counts

_SEPARATORS = ",;\t"  # semicolons and tabs are what spreadsheets write in many countries
_SUFFIXES = (".csv", ".jsonl")

HeaderCheck = Callable[[str, Sequence[str]], object]
"""Takes where the names of columns were found, and these; raises a `UserError`."""


def read_rows(
    path: Path, wanted: Sequence[Columns], kind: str = "captions file"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields of each row of a CSV or JSONL file, which messages call a `kind`.

    Names of columns (keys) are as of `named`. A CSV file, with commas, semicolons or tabs, needs a
    column of each of `wanted`. A `UserError` names the line that is malformed.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_SUFFIXES, ".tsv"):
        raise UserError(f"{kind} {path}: its name must end in {any_of(_SUFFIXES)}, or .tsv")
    read = _jsonl_rows if suffix == ".jsonl" else _csv_rows
    try:
        yield from read(f"{kind} {path}", path, wanted)
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{kind} {path} is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from error


def named(where: str, names: Iterable[str]) -> list[str]:
    """Names of columns in lower case, without spaces around; a `UserError` if one comes twice."""
    found = [name.strip().lower() for name in names]
    if twice := [name for name in found if name and found.count(name) > 1]:
        raise UserError(f"{where}: two columns are named {twice[0]}; keep one")
    return found


def check_columns(where: str, columns: Sequence[str], wanted: Sequence[Columns]) -> None:
    """Names the columns that a header lacks."""
    for names in wanted:
        if not set(names) & set(columns):
            among = ", ".join(columns) or "none"
            raise UserError(f"{where}: no column {any_of(names)} among {among}")


def any_of(names: Columns) -> str:
    """A choice in words: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _csv_rows(
    file_name: str, path: Path, wanted: Sequence[Columns]
) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        header, line = file.readline(), 1
        if header.strip().lower() in [f"sep={separator}".strip() for separator in _SEPARATORS]:
            header, line = file.readline(), 2  # a note of spreadsheets to each other
        reader = csv.DictReader(
            itertools.chain([header], file),
            delimiter=_separator(header, wanted),
            skipinitialspace=True,
            strict=True,
        )
        try:
            where = f"{file_name}, line {line}"
            reader.fieldnames = named(where, reader.fieldnames or [])
            check_columns(where, reader.fieldnames, wanted)
            for row in reader:
                number = reader.line_num + line - 1
                if None in row or None in row.values():
                    surplus = row.pop(None, [])
                    found = sum(value is not None for value in row.values()) + len(surplus)
                    raise UserError(
                        f"{file_name}, line {number}: {found} fields where the "
                        f"header has {len(reader.fieldnames)}; put captions with commas in quotes"
                    )
                yield number, row
        except csv.Error as error:
            number = reader.reader.line_num + line - 1
            raise UserError(f"{file_name}, line {number}: {error}") from error


def _separator(header: str, wanted: Sequence[Columns]) -> str:
    """The separator with which a header has all columns that are needed; else the comma."""
    for separator in _SEPARATORS:
        columns = {name.strip(' "\r\n').lower() for name in header.split(separator)}
        if all(columns & set(names) for names in wanted):
            return separator
    return ","


def _jsonl_rows(
    file_name: str, path: Path, _: Sequence[Columns]
) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            where = f"{file_name}, line {line}"
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{where}: not a JSON object")
            yield line, dict(zip(named(where, row), row.values(), strict=True))
