"""What a folder of captioned files holds: its videos or images, their captions, and the rest."""

import collections
import os
from collections.abc import Sequence
from pathlib import Path

from lumiere_jax.data import same_clip
from lumiere_jax.data.captions import (
    FILE_NAMES,
    Listed,
    find_captions_file,
    read_caption,
    read_captions_file,
)
from lumiere_jax.data.file_kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix, other_kind
from lumiere_jax.data.finding import all_files, composed, is_hidden, not_found, place
from lumiere_jax.data.splits import split_folders
from lumiere_jax.data.text_file import NotText

_MOST_NAMED = 8  # files of another kind that are named one by one
SUFFIXES = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}


class Listing:
    """The files of one kind in a folder or below it, before any of them is opened.

    `captions` has those that can be used as far as their names tell, sorted, with their captions,
    of which there may be none; `left_out` names the others and what else is in the folder, each
    with its reason; `missing` has the paths of the captions file that lead nowhere, and their
    captions. `splits` has the split of files, also missing ones, of which a captions file says it.
    """

    def __init__(
        self, whole: Path, kind: str, folders: Sequence[Path] = (), table: Path | None = None
    ):
        """Lists a folder; a `UserError` if it or a captions file cannot be read.

        Args:
          whole: the folder, with all splits.
          kind: "video" or "image".
          folders: those of a split in it, if only these are to be listed.
          table: the captions file; None looks for one of `captions.FILE_NAMES` in `whole`, and in
            each folder of a split that is listed, which counts before the one in `whole`.
        """
        self.whole, self.kind, self._folders = whole, kind, list(folders) or [whole]
        self.folder = self._folders[0] if len(self._folders) == 1 else whole
        self._read = [table] if table else self._find_tables()
        self._listed, self._tables = dict[str, Listed](), dict[str, Path]()
        for path in self._read:
            listed = read_captions_file(path)
            self._listed |= listed
            self._tables |= dict.fromkeys(listed, path)  # the one that a line is from
        # A link to a folder is not followed, unless that is one of a split.
        links = [f for part in split_folders(whole).values() for f in part if f.is_symlink()]
        walked = self._folders if folders else [whole, *links]
        self._paths = sorted(path for folder in walked for path in all_files(folder))
        self._texts = {self._stem(path): path for path in self._paths if _is_text(path)}
        found = [path for path in self._paths if has_suffix(path, SUFFIXES[kind])]
        self._places = {path: place(path) for path in found}
        self.captions: dict[Path, tuple[str, ...]] = {}
        self.splits: dict[Path, str] = {}
        self.left_out: dict[str, str] = {}
        clips = same_clip.once(found) if kind == "video" else dict.fromkeys(found, list[Path]())
        for path, copies in clips.items():
            self._take(path, copies)
        self._note_others(found)
        self.missing = self._note_listed()

    def name(self, path: Path) -> str:
        """A path as reports have it."""
        return str(path.relative_to(self.folder))

    def nothing_listed(self) -> str:
        """Says what was looked for if not one path of a captions file leads anywhere, or ""."""
        lost = self._first_lost()
        return f"{self._tables[lost].name}: {not_found(lost, self._paths)}" if lost else ""

    def reasons_missing(self) -> dict[str, str]:
        """The reason by path of those of the captions files that lead nowhere."""
        names = map(str, self.missing)
        reasons = {name: f"missing: listed in {self._tables[name].name}" for name in names}
        if lost := self._first_lost():
            reasons[lost] = f"missing: {self.nothing_listed()}"
        return reasons

    def _first_lost(self) -> str:
        """The first path of a captions file of which not one leads anywhere, or ""."""
        found = {self._tables[name] for name in self._listed if Path(name) not in self.missing}
        return next((name for name, table in self._tables.items() if table not in found), "")

    def _find_tables(self) -> list[Path]:
        """The captions file of the whole, then those of splits, which count before it."""
        parts = [folder for part in split_folders(self.whole).values() for folder in part]
        if self._folders != [self.whole]:
            parts = self._folders
        return list(filter(None, map(find_captions_file, (self.whole, *parts))))

    def _take(self, path: Path, copies: list[Path]) -> None:
        """Notes a file with its captions, and those that hold the same."""
        self.left_out |= {self.name(copy): same_clip.reason(path) for copy in copies}
        places = (self._places[same] for same in (path, *copies))
        listed = [self._listed[place] for place in places if place in self._listed]
        captions = next((line.captions for line in listed if line.captions), [])
        text = self._texts.get(self._stem(path))
        if split := next((line.split for line in listed if line.split), ""):
            self.splits[path] = split
        try:
            self.captions[path] = tuple(captions or (read_caption(text) if text else []))
        except NotText as error:
            self.left_out[self.name(path)] = f"unreadable caption: {error}"

    def _note_others(self, found: list[Path]) -> None:
        """Notes what is neither of the kind nor a caption; many of one ending together."""
        captioned = {self._stem(path) for path in found}
        kinds = collections.defaultdict[tuple[str, str], list[str]](list)
        for path in self._paths:
            is_caption = _is_text(path) and self._stem(path) in captioned
            if path not in self._places and not is_caption and not self._is_table(path):
                kinds[path.suffix.lower(), self._other_kind(path)].append(self.name(path))
        for (suffix, reason), names in kinds.items():
            if len(names) > _MOST_NAMED:
                ending = f"ending in {suffix}" if suffix else "without an ending"
                names = [f"{len(names)} files {ending} ({names[0]} …)"]
            self.left_out |= dict.fromkeys(names, reason)

    def _note_listed(self) -> dict[Path, tuple[str, ...]]:
        """Notes lines of captions files that belong to no file; gives those that are missing."""
        known = set(self._places.values())
        if self._folders != [self.whole]:
            known |= {place(path) for path in all_files(self.whole)}
        missing: dict[Path, tuple[str, ...]] = {}
        for name, line in self._listed.items():
            listed = Path(name)
            if name not in known and not os.path.exists(listed):
                missing[listed] = tuple(line.captions)
                self.splits |= {listed: line.split} if line.split else {}
            elif reason := self._reason_unused(listed, name in known):
                self.left_out[name] = f"{reason}: listed in {self._tables[name].name}"
        return missing

    def _reason_unused(self, listed: Path, is_known: bool) -> str:
        """Why a file of a captions file, which is there, is not read; "" if it is."""
        if not listed.is_relative_to(place(self.whole)):
            return "" if is_known else f"outside of {self.whole}"
        base = next((p for p in map(place, self._folders) if listed.is_relative_to(p)), None)
        if base is None:
            return ""  # of another split
        if not has_suffix(listed, SUFFIXES[self.kind]):
            return f"not a{'n' * (self.kind == 'image')} {self.kind}"
        parts = listed.relative_to(base).parts
        return "hidden, by its name or a folder's" if any(map(is_hidden, parts)) else ""

    def _other_kind(self, path: Path) -> str:
        if self._read and path.name.lower() in FILE_NAMES:
            return f"not read: the captions are in {', '.join(t.name for t in self._read)}"
        return other_kind(path, self.kind)

    def _is_table(self, path: Path) -> bool:
        return place(path) in map(place, self._read)

    def _stem(self, path: Path) -> str:
        return composed(path.with_suffix(""))


def _is_text(path: Path) -> bool:
    return has_suffix(path, (".txt",))
