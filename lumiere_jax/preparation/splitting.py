"""Which split each video of a source belongs to: as that says it, or by a hash of its path."""

import collections
import hashlib
import os
from collections.abc import Iterable

from lumiere_jax.data import splits
from lumiere_jax.data.finding import composed
from lumiere_jax.data.source import SPLITS

ENOUGH = 64
"""Clips (of 64 videos, at best) that a held-out loss needs at least, to be worth reading."""


def choose_split(path: str, test_fraction: float) -> str:
    """The split of a video: "test" for the share of all paths whose hash is lowest."""
    number = int.from_bytes(hashlib.sha256(os.fsencode(composed(path))).digest()[:8], "big")
    return "test" if number < test_fraction * 2**64 else "train"


class Splitting:
    """Chooses splits; as a text it says by what they were chosen, and how many videos each got."""

    def __init__(self, test_fraction: float, root: str, bases: Iterable[str] = ()):
        """Takes the share for "test" of those videos of which nothing else is said.

        Args:
          test_fraction: see `choose_split`.
          root: folder that relative paths start from, which may be in a bucket. The name of a
            folder directly in it says the split of all that is in there.
          bases: other folders of which the same holds.
        """
        self._fraction, self._root = test_fraction, root
        self._bases = [os.path.join(os.path.normpath(base), "") for base in (root, *bases)]
        self._counts = collections.Counter[tuple[str, str]]()
        self._told: dict[str, str] = {}  # of whole videos
        self._divided: dict[str, None] = {}  # videos with parts in both splits
        self._deeper: list[str] = []  # in a folder whose name is not asked for

    def choose(self, path: str, told: str = "") -> str:
        """The split of the video at a path; `told` is what a table says of it, if anything."""
        place = resolved(self._root, path)
        inside = [place.removeprefix(base) for base in self._bases if place.startswith(base)]
        firsts = (rest.split("/")[0] for rest in inside if "/" in rest)
        by_folder = next(filter(None, map(splits.split_named, firsts)), None)
        if split := told or by_folder:
            means = "the column split" if told else "folders"
        else:
            split, means = choose_split(path, self._fraction), "a hash of the path"
            folders = min(inside, key=len, default=place).split("/")[:-1]
            if any(map(splits.split_named, folders)):
                self._deeper.append(path)
        if told and self._told.setdefault(path, told) != told:
            self._divided[path] = None
        self._counts[means, split] += 1
        return split

    def __str__(self) -> str:
        """For example "split: by folders (train 90, test 10)"."""
        means = dict.fromkeys(name for name, _ in self._counts)
        found = [
            f"by {name} ({', '.join(f'{s} {self._counts[name, s]}' for s in SPLITS)})"
            for name in means
        ]
        text = f"split: {'; '.join(found)}"
        for paths, what in [
            (self._deeper, "below a folder named as a split that is not the first of their path"),
            (list(self._divided), "with parts in both splits"),
        ]:
            text += f"\nnote: videos {what}: {len(paths)} ({paths[0]} …)" if paths else ""
        return text


def resolved(root: str, path: str) -> str:
    """A path, which may be in a bucket, to be compared with others."""
    return os.path.normpath(path if "://" in path else os.path.join(root, path))


def common_folder(root: str, paths: Iterable[str]) -> str:
    """The folder that all of these are in, at whatever depth; all may be in buckets."""
    places = [resolved(root, path) for path in paths]
    shared = os.path.commonprefix([min(places), max(places)])  # of all between these as well
    return shared[: shared.rfind("/") + 1] or root


def note_of_few(count: int, what: str, test_fraction: float) -> str:
    """Says that a split "test" of so many "videos" or "clips" is small, or "" if it is not.

    It is nobody's mistake if there is none, and none was asked for.
    """
    if count >= ENOUGH or (count == 0 and test_fraction == 0):
        return ""
    return (
        f"note: the split test has few {what} ({count}; for a held-out loss 64 clips are a start): "
        f"raise --test_fraction ({test_fraction:g}), or give folders train/ and test/, or a column "
        "split, with another --output"
    )
