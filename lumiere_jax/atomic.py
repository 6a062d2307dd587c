"""Text files that are never seen half-written."""

import os
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8 to a temporary name beside `path`, then renames it.

    Raises:
      OSError: if the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
