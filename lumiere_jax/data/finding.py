"""Finds the files of a folder, in an order that does not depend on the file system."""

import difflib
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lumiere_jax.data.file_kinds import has_suffix
from lumiere_jax.runtime.errors import UserError

_OF_SYSTEMS = {
    "$recycle.bin", "#recycle", "#snapshot", "@eadir", "@recycle", "__macosx", "desktop.ini",
    "ehthumbs.db", "lost+found", "recycler", "system volume information", "thumbs.db",
}  # fmt: skip
"""Names of what systems keep for themselves in the folders of others, in lower case."""

ENDLESS = "it is a pipe, a socket or a device, not a file"
_MOST_COMPARED = 10_000  # files among which the nearest name is looked for


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name belongs to a system and to nobody's data."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def all_files(folder: Path) -> list[Path]:
    """All files of a folder and those below it, sorted by their paths.

    Hidden ones, as of a write that is not complete, and those in hidden folders are left out; links
    that lead nowhere are not, so that they are reported. Links to folders are not followed. A
    `UserError` if a folder cannot be read.
    """
    return sorted(_walk(folder, _refuse))


def is_endless(path: str | os.PathLike) -> bool:
    """Whether a path is `ENDLESS`, so that to open it may take for ever."""
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def first_files(folder: Path) -> list[Path]:
    """Some of `all_files` for `nearest`, always the same, of a folder that may be huge."""
    return list(itertools.islice(_walk(folder, onerror=None), _MOST_COMPARED))


def _walk(folder: Path, onerror: Callable[[OSError], None] | None) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(place, name) for name in sorted(names) if not is_hidden(name))


def _refuse(error: OSError) -> None:
    raise UserError(f"the folder {error.filename} cannot be read: {error.strerror}")


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Those of `all_files` whose names end in one of `suffixes`."""
    return [path for path in all_files(folder) if has_suffix(path, suffixes)]


def composed(name: str | os.PathLike) -> str:
    """A name to compare with others, however its accents are stored (Unicode's form NFC).

    macOS stores "é" as two characters, and most tables have one.
    """
    return unicodedata.normalize("NFC", os.fspath(name))


def place(path: str | os.PathLike) -> str:
    """What tells whether two paths mean one file: `composed`, and with links followed.

    Links in a circle stay as they are, where `Path.resolve` fails.
    """
    return composed(os.path.realpath(path))


def stored(path: Path) -> Path:
    """The path of a file as the file system stores it, if it is there but for `composed`."""
    if os.path.lexists(path) or str(path).isascii() or path.parent == path:
        return path
    folder = stored(path.parent)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return folder / path.name
    same = (name for name in names if composed(name) == composed(path.name))
    return folder / next(same, path.name)


def nearest(wanted: str | os.PathLike, paths: Iterable[Path]) -> Path | None:
    """The file that somebody may have meant by a path that leads nowhere."""
    name = re.split(r"[\\/]", composed(wanted).lower())[-1]
    by_name: dict[str, Path] = {}
    for path in paths:
        by_name.setdefault(composed(path.name).lower(), path)
    if name in by_name:
        return by_name[name]
    stem = os.path.splitext(name)[0]
    same_stem = (path for other, path in by_name.items() if os.path.splitext(other)[0] == stem)
    if found := next(same_stem, None):
        return found
    close = difflib.get_close_matches(name, list(by_name)[:_MOST_COMPARED], 1)
    return by_name[close[0]] if close else None


def not_found(wanted: str | os.PathLike, paths: Sequence[Path]) -> str:
    """Says of a path that leads nowhere what it was looked for as, and which file is nearest."""
    near = nearest(wanted, paths)
    return f"there is no file {os.fspath(wanted)}" + (f"; the nearest is {near}" if near else "")
