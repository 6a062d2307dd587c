"""A folder of files with captions: which of them can be used, and why the others cannot."""

import collections
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from lumiere_jax.data.captions import FILE_NAMES
from lumiere_jax.data.file_kinds import usual
from lumiere_jax.data.finding import stored
from lumiere_jax.data.listing import SUFFIXES, Listing
from lumiere_jax.data.splits import split_folders
from lumiere_jax.runtime.errors import UserError

_PROGRESS_SECONDS = 5.0
_MOST_NAMED = 20

In = TypeVar("In")
Out = TypeVar("Out")
Facts = TypeVar("Facts")


@dataclasses.dataclass
class FolderReport:
    """What a folder held; printed in words."""

    folder: str  # that was searched
    kind: str = "video"  # of its files, or "image"
    used: int = 0  # how many files are used
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)  # reason by file
    treated: dict[str, str] = dataclasses.field(default_factory=dict)  # what is done to a file
    others: int = 0  # how many are of the other split, by a column of the captions file
    note: str = ""  # what else there is to say, as the limits that files must keep

    def __str__(self) -> str:
        head = f"{self.folder}: {self.used} {self.kind}s used, {len(self.skipped)} skipped"
        if self.skipped:
            head += f": {self._counts()}"
        if self.others:
            head += f"; {self.others} of the other split by the column split of the captions file"
        if self.note:
            head += f" ({self.note})"
        skipped = [f"  {name}: {why}" for name, why in self.skipped.items()]
        treated = [f"  {name}: used, {how}" for name, how in self.treated.items()]
        return "\n".join([head, *skipped, *treated])

    def summary(self) -> str:
        """One line: how many were skipped for which kind of reason, and one of them."""
        example = "".join(f", as {name}: {why}" for name, why in list(self.skipped.items())[:1])
        return f"{self._counts()}{example}" or "none found"

    def _counts(self) -> str:
        kinds = collections.Counter(reason.split(":")[0] for reason in self.skipped.values())
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def grouped(reasons: dict[str, str]) -> dict[str, str]:
    """Reasons by name; where there are many of a kind (before the colon), one stands for all."""
    kinds = collections.defaultdict[str, dict[str, str]](dict)
    for name, reason in reasons.items():
        kinds[reason.split(":")[0]][name] = reason
    told: dict[str, str] = {}
    for alike in kinds.values():
        if len(alike) > _MOST_NAMED:
            first, reason = next(iter(alike.items()))
            alike = {f"{len(alike)} files, as {first}": reason}
        told |= alike
    return told


@dataclasses.dataclass(frozen=True)
class CaptionedFile(Generic[Facts]):
    """A file that can be used: where, what was found out about it, and its captions."""

    path: Path
    facts: Facts
    captions: tuple[str, ...]
    num_bytes: int


class CaptionedFolder(Generic[Facts]):
    """The files of one kind in a folder or below it, each examined once.

    `files` are those that can be used, sorted by path, so that an index means one file; `report`
    names the others, each with its reason.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        captions: str | os.PathLike | None,
        kind: str,
        examine: Callable[[Path], Facts | str],
    ):
        """Finds and examines the files; a `UserError` if there is no such folder.

        Args:
          root: the folder. If it has folders that are named as splits, see `splits`, a split is the
            folders of its name; else what the captions file's column `split` says, if it holds any
            file out; else every split is the whole folder. `is_held_out` says whether there is any
            such difference.
          split: "train" or "test".
          captions: CSV or JSONL file; if empty the first of `captions.FILE_NAMES` in the folder and
            in those of the split. Files that none lists may have a `.txt` file beside them.
          kind: "video" or "image".
          examine: what is to be known about a file, or the reason why it cannot be used.
        """
        whole = stored(Path(root).expanduser())
        given = Path(captions).expanduser() if captions else None
        folders = _folders_of(whole, split)
        self._listing = Listing(whole, kind, folders, given)
        self.folder, self._kind = self._listing.folder, kind
        self.report = FolderReport(str(self.folder), kind)
        self.files = list(self._usable(examine, self._of_split(split, bool(folders))))
        self.report.used = len(self.files)
        self.report.skipped |= self._listing.left_out
        self.report.skipped |= self._listing.reasons_missing()

    def _of_split(self, split: str, has_folders: bool) -> list[Path]:
        """The files that belong to a split; those of the other one go into the report."""
        found, splits = list(self._listing.captions), self._listing.splits
        told = {path: splits[path] for path in found if path in splits}
        others = [path for path in told if told[path] != split]
        self.is_held_out = has_folders or "test" in told.values()
        if has_folders and others:
            raise UserError(
                f"{self._listing.name(others[0])} is in a folder of the split {split}, but the "
                f"captions file says {told[others[0]]} in its column split (of {len(others)} such "
                f"{self._kind}s); move them, or remove the column"
            )
        if has_folders or not self.is_held_out:
            return found
        # What is not told to be held out may be trained on.
        chosen = [path for path in found if told.get(path, "train") == split]
        self.report.others = len(found) - len(chosen)
        return chosen

    def _usable(
        self, examine: Callable[[Path], Facts | str], paths: list[Path]
    ) -> Iterator[CaptionedFile[Facts]]:
        """The files of use; the others go into the report."""
        listed = self._listing.captions
        for path, facts in zip(paths, examine_all(examine, paths), strict=True):
            if not isinstance(facts, str) and listed[path]:
                if treated := getattr(facts, "treated", ()):
                    self.report.treated[self._listing.name(path)] = ", ".join(treated)
                yield CaptionedFile(path, facts, listed[path], path.stat().st_size)
            else:
                reason = facts if isinstance(facts, str) else "without a caption"
                self.report.skipped[self._listing.name(path)] = reason

    def check_not_empty(self, needs: str) -> None:
        """Refuses a folder without any file of use."""
        if not self.files:
            kind, suffixes = self._kind, usual(SUFFIXES[self._kind])
            nothing_listed = self._listing.nothing_listed()
            raise UserError(
                f"no usable {kind} in {self.folder} ({self.report.summary()}"
                f"{'; ' * bool(nothing_listed)}{nothing_listed}); it needs {kind}s ({suffixes}) of "
                f"at least {needs}, with captions in one of {', '.join(FILE_NAMES)} or in .txt "
                "files beside them"
            )

    def names(self) -> list[list[object]]:
        """Path, size and captions of each file: what a fingerprint needs."""
        return [
            [str(file.path.relative_to(self.folder)), file.num_bytes, file.captions]
            for file in self.files
        ]


def _folders_of(root: Path, split: str) -> list[Path]:
    """The folders of a split, where there are such; none for the whole folder."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder that holds the videos")
    folders = split_folders(root)
    if folders and split not in folders:
        (other, *_), *_ = folders.values()
        raise UserError(f"{root} has a folder {other.name} but none named {split}; make one")
    return folders.get(split, [])


def examine_all(examine: Callable[[In], Out], items: Sequence[In]) -> Iterator[Out]:
    """Calls a function for each of many items, a few at once; says on stderr how far it is."""
    told = time.monotonic()
    with ThreadPoolExecutor(max_workers=4) as pool:
        for count, result in enumerate(pool.map(examine, items), start=1):
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"looking at videos: {count} of {len(items)}", file=sys.stderr, flush=True)
            yield result
