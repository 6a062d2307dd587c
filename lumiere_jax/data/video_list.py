"""Lists of videos, as those of UCF101's splits, and which file each of their lines means."""

import collections
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lumiere_jax.data import same_clip
from lumiere_jax.data.finding import composed, first_files, not_found
from lumiere_jax.runtime.errors import UserError

VIDEOS = "UCF-101"
"""The folder of UCF101's archive."""

MISSING = "missing: listed, but there is no such file"

_UCF101 = re.compile(r"v_\w+_g\d+_c\d+", re.IGNORECASE)
_LABELS = re.compile(r"(\s+\d+)+$")


def find_listed(text: str, root: Path, paths: Iterable[Path]) -> dict[str, Path | None]:
    """The videos of a list by the name that it calls them, sorted, and their files.

    A line is a path, "CLASS/FILE.avi", which may be followed by a space and a label. It means the
    file with that path below `root`, also if that was converted to another format. A file named as
    those of UCF101, "v_CLASS_gXX_cYY", is found in whatever folder it is, and in any case, since
    the lists spell "v_HandStandPushups" and an archive of the data set "v_HandstandPushups". Of
    several copies the one in `UCF-101/CLASS` counts, or else the one in `CLASS`.

    Args:
      text: the list.
      root: the folder of the videos, or the one that holds `UCF-101`.
      paths: of the videos below it.

    Returns:
      The file by name; None where there is none.

    Raises:
      UserError: the list is empty, none of its videos is there, or one is there several times.
    """
    known = collections.defaultdict[str, list[Path]](list)
    for path in paths:
        known[_key(path.relative_to(root))].append(path)
    names = [_name(line.strip(), known) for line in text.splitlines() if line.strip()]
    if not names:
        raise UserError("it is empty: unpack or download it again")
    once = {_key(Path(name)): name for name in reversed(names)}.values()
    listed = sorted(once, key=lambda name: (name.casefold(), name))
    found = {name: _best(name, root, known.get(_key(Path(name)), [])) for name in listed}
    if not any(found.values()):
        near = not_found(root / listed[0], first_files(root))
        raise UserError(
            f"not one of the {len(found)} listed videos is in {root}: {near}; give the folder that "
            "the paths of the list start from"
        )
    return found


def _name(line: str, known: dict[str, list[Path]]) -> str:
    """What a line calls a video: the line without its label, which is a number or a word."""
    names = line, _LABELS.sub("", line), line.split()[0]
    known_names = (name for name in names if _key(Path(name)) in known)
    return composed(next((n for n in known_names if " " not in Path(n).suffix), names[-1]))


def _key(path: Path) -> str:
    """What the places and formats of one video have in common."""
    is_ucf101 = _UCF101.fullmatch(path.stem)
    return path.stem.casefold() if is_ucf101 else composed(path.with_suffix("").as_posix())


def _best(name: str, root: Path, paths: list[Path]) -> Path | None:
    """The file of a video among its copies."""
    listed = PurePosixPath(name.casefold())

    def rank(path: Path) -> tuple[int, bool]:
        at = PurePosixPath(composed(path.relative_to(root).as_posix()).casefold())
        places = [PurePosixPath(VIDEOS.casefold()) / listed.parent, listed.parent]
        place = places.index(at.parent) if at.parent in places else len(places)
        return place, at.suffix != listed.suffix

    ranks = {path: rank(path) for path in paths}
    best = list(same_clip.once(path for path in paths if ranks[path] == min(ranks.values())))
    if len(best) > 1:
        copies = ", ".join(map(str, best))
        raise UserError(
            f"there are {len(best)} copies of {PurePosixPath(name).name}: {copies}; keep one, or "
            f"put the right ones into {VIDEOS}/CLASS"
        )
    return best[0] if best else None
