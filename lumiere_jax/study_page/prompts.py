"""The prompts that the videos of a study were made for."""

from pathlib import Path, PurePosixPath

from lumiere_jax.data.captions import CAPTION_COLUMNS, PATH_COLUMNS, read_table
from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, has_suffix
from lumiere_jax.data.finding import composed
from lumiere_jax.data.text_file import NotText, read_text
from lumiere_jax.runtime.errors import UserError

_LONGEST = 2**24  # characters of a file


def read(path: Path) -> dict[str, str]:
    """Prompts by the name of their videos.

    A .csv or .jsonl file has the columns (keys) `name` and `prompt`, or those of captions; a name
    is a path relative to the folder of videos, with or without its ending. In a .txt file line i,
    counted from 0 and without blank lines, belongs to the video named as four digits of i: what
    `python -m lumiere_jax.sample --prompts_file` writes. A `UserError` if a name has two prompts.
    """
    prompts: dict[str, str] = {}
    for name, prompt in _lines(path) if path.suffix.lower() == ".txt" else _rows(path):
        if not prompt:
            raise UserError(f"{path}: the prompt of {name} is empty; write it")
        if prompts.setdefault(name, prompt) != prompt:
            raise UserError(f"{path}: {name} has two different prompts; keep one")
    if not prompts:
        raise UserError(f"{path} has no prompts; give name and prompt of every video")
    return prompts


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        lines = read_text(path, _LONGEST).splitlines()
    except NotText as error:
        raise UserError(f"the prompts {path} cannot be read ({error})") from error
    prompts = [" ".join(line.split()) for line in lines if line.strip()]
    return [(f"{i:04d}", prompt) for i, prompt in enumerate(prompts)]


def _rows(path: Path) -> list[tuple[str, str]]:
    rows = read_table(path, ("name", *PATH_COLUMNS), ("prompt", *CAPTION_COLUMNS))
    named = [(PurePosixPath(composed(name)), prompt) for name, prompt in rows]
    return [
        (str(name.with_suffix("") if has_suffix(name, VIDEO_SUFFIXES) else name), prompt)
        for name, prompt in named
    ]
