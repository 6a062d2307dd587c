"""How people say which part of their data is held out: by names of folders, or in a table."""

from pathlib import Path

COLUMN = "split"
"""The column (key) of a table that says it."""

HELD_OUT = ("test", "testing", "val", "valid", "validation")
"""Names of what is not trained on, all of which is the split "test" here."""

_NAMES = dict.fromkeys(HELD_OUT, "test") | dict.fromkeys(("train", "training"), "train")


def split_named(name: str) -> str | None:
    """The split that a folder's name or a table's word means, in whatever case; None if none."""
    return _NAMES.get(name.strip().casefold())


def split_folders(root: Path) -> dict[str, list[Path]]:
    """The folders in `root` that are named as a split, by that split."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if (split := split_named(path.name)) and path.is_dir():
            found.setdefault(split, []).append(path)
    return found
