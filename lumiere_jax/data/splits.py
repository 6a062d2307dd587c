"""How people say which part of their data is held out: by names of folders, or in a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumiere_jax.data.table import any_of
from lumiere_jax.runtime.errors import UserError

COLUMN = "split"
"""The column (key) of a table that says it."""

HELD_OUT = ("test", "testing", "val", "valid", "validation")
"""Names of what is not trained on, all of which is the split "test" here."""

_NAMES = dict.fromkeys(HELD_OUT, "test") | dict.fromkeys(("train", "training"), "train")


def split_named(name: str) -> str | None:
    """The split that a folder's name or a table's word means, in whatever case; None if none."""
    return _NAMES.get(name.strip().casefold())


def split_told(where: str, row: Mapping[str, Any]) -> str:
    """What `COLUMN` says of a row, "" if nothing; a `UserError` for a word that means no split."""
    value = row.get(COLUMN)
    if value is None or value != value or not str(value).strip():  # NaN is how pandas says "none"
        return ""
    if split := split_named(str(value)):
        return split
    raise UserError(
        f"{where}: {COLUMN} is {value!r}; use train, or {any_of(HELD_OUT)}, or call the column "
        "otherwise if it says something else"
    )


def split_folders(root: Path) -> dict[str, list[Path]]:
    """The folders in `root` that are named as a split, by that split."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if (split := split_named(path.name)) and path.is_dir():
            found.setdefault(split, []).append(path)
    return found
