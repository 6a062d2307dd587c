"""Which files are one clip in several formats, as `sample` writes each as MP4 and as GIF."""

from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

from lumiere_jax.data.finding import composed

Name = TypeVar("Name", bound=PurePath)

_PREFERENCE = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_POOREST = (".apng", ".gif")  # of few colours, and at rates that are rounded


def once(paths: Iterable[Name]) -> dict[Name, list[Name]]:
    """The file of each clip to use, sorted, and the others that hold the same clip.

    Files whose paths differ in nothing but the ending are one clip, of which MP4 is preferred, and
    a GIF taken only where nothing else is there.
    """
    clips: dict[str, list[Name]] = {}
    for path in sorted(paths, key=lambda path: (_rank(path), path)):
        clips.setdefault(composed(path.with_suffix("")), []).append(path)
    return dict(sorted((same[0], same[1:]) for same in clips.values()))


def _rank(path: PurePath) -> int:
    suffix = path.suffix.lower()
    if suffix in _POOREST:
        return len(_PREFERENCE) + 1
    return _PREFERENCE.index(suffix) if suffix in _PREFERENCE else len(_PREFERENCE)


def reason(used: PurePath) -> str:
    """Why a file that holds the same clip as another is left out."""
    return f"repeated: the same clip as {used.name}"


def left_out(clips: dict[Name, list[Name]]) -> dict[str, str]:
    """The reason by name of the files that `once` does not use."""
    return {str(copy): reason(used) for used, same in clips.items() for copy in same}


def told(left_out: dict[str, str]) -> str:
    """One line about what `left_out` gives."""
    name, why = next(iter(left_out.items()))
    more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    return f"left out {name} ({why}){more}"
