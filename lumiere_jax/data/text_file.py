"""Text files of others: in UTF-8, or in another encoding where a file itself makes that certain."""

import codecs
from pathlib import Path
from typing import TextIO

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BEGINNING = 1024  # bytes by which UTF-16 without a mark is known


class NotText(Exception):
    """A file whose text is not certain; the message says which, and what to do."""


def open_text(path: Path) -> TextIO:
    """Opens a text; reading it raises a `UnicodeDecodeError` if it is in another encoding.

    An `OSError` if it cannot be opened.
    """
    with path.open("rb") as file:
        encoding = _encoding(file.read(_BEGINNING))
    return path.open(encoding=encoding, newline="")


def read_text(path: Path, most: int) -> str:
    """The whole text of a file of at most that many characters; a `NotText` if it is none."""
    try:
        with open_text(path) as file:
            text = file.read(most + 1)
    except UnicodeDecodeError as error:
        raise NotText(
            f"{path.name} is not UTF-8 text ({error.reason}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise NotText(f"{path.name}: {error.strerror}") from error
    if len(text) > most:
        raise NotText(f"{path.name} has more than {most} characters")
    if "\0" in text:
        raise NotText(f"{path.name} is not text: it has zero bytes")
    return text


def _encoding(beginning: bytes) -> str:
    """By the byte order mark; without one, where every second byte is zero, it is UTF-16."""
    for mark, encoding in _MARKS:
        if beginning.startswith(mark):
            return encoding
    low, high = beginning[::2], beginning[1::2]
    if high and not any(high) and all(low):
        return "utf-16-le"
    if high and not any(low) and all(high):
        return "utf-16-be"
    return "utf-8"
