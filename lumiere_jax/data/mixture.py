"""Several sources as one, each with its share of every stretch of training."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumiere_jax.data.pixels import Frames, Video
from lumiere_jax.data.source import Embedding, HoldsFrames, Source, StoresText, fingerprint
from lumiere_jax.runtime.errors import UserError

SLOTS = 1000
"""Positions of a cycle, among which the shares are exact; see `order.batch_order`."""


class Mixture:
    """Examples of several sources, counted through: those of the first come first.

    How often each comes is decided by `sizes`, the examples of each, and `slots`, the positions of
    each in a cycle of `SLOTS`, see `order.batch_order`.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
        """Takes sources and their weights, of any sum; a `UserError` if one is not positive."""
        if not sources:
            raise UserError("a mixture needs at least one source, in config.data.mixture")
        for weight in weights:
            if not (isinstance(weight, int | float) and 0 < weight < math.inf):
                raise UserError(f"mixture: a weight is {weight!r}; use a number above 0")
        self.sources, self.sizes = tuple(sources), tuple(len(source) for source in sources)
        self.slots = _slots(weights)
        if all(isinstance(source, HoldsFrames) for source in sources):
            self.frames = self._frames

    def __len__(self) -> int:
        return sum(self.sizes)

    def example(self, index: int, seed: int = 0) -> tuple[Video, str]:
        """See `Source`."""
        source, index = self._locate(index)
        return source.example(index, seed)

    def stored_text(self, index: int, seed: int = 0) -> Embedding | None:
        """See `StoresText`; None for a source that stores none."""
        source, index = self._locate(index)
        return source.stored_text(index, seed) if isinstance(source, StoresText) else None

    @property
    def fingerprint(self) -> str:
        """Of all sources and their shares."""
        parts = [source.fingerprint for source in self.sources]
        return fingerprint("mixture", sources=parts, slots=self.slots)

    def _frames(self, index: int, seed: int = 0) -> tuple[Frames, str]:
        source, index = self._locate(index)
        assert isinstance(source, HoldsFrames)
        return source.frames(index, seed)

    def _locate(self, index: int) -> tuple[Source, int]:
        """The source of an index, and the index in it."""
        for source, size in zip(self.sources, self.sizes, strict=True):
            if index < size:
                return source, index
            index -= size
        raise IndexError("the mixture has no such example")


def places_of(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where each source of a mixture is below one folder of all; "" for one without its own.

    A relative folder stays as it is. Of others, that is the end of the path, of as many parts as
    tell them apart.
    """
    told = [str(entry.get("folder", "")) for entry in entries]
    folders = [path if not path or "://" in path else os.path.normpath(path) for path in told]
    longest = max((len(Path(folder).parts) for folder in folders), default=0)
    for length in range(1, longest + 1):
        places = [_end(folder, length) for folder in folders]
        if len(set(places)) == len(set(folders)):
            return places
    return [_end(folder, longest) for folder in folders]


def _end(folder: str, length: int) -> str:
    """The last parts of a folder that stands for itself; another one as it is."""
    path = Path(folder)
    if not (path.is_absolute() or folder.startswith("~") or "://" in folder):
        return folder
    return "/".join(path.relative_to(path.anchor).parts[-length:])


def _slots(weights: Sequence[float]) -> tuple[int, ...]:
    """Shares of `SLOTS` by largest remainders."""
    exact = np.array(weights, np.float64) / sum(weights) * SLOTS
    slots = np.floor(exact).astype(int)
    for index in np.argsort(slots - exact, kind="stable")[: SLOTS - slots.sum()]:
        slots[index] += 1
    if slots.min() == 0:
        raise UserError(
            f"mixture: the weights {list(weights)} leave a source less than one clip of {SLOTS}; "
            "make its weight larger or leave it out"
        )
    return tuple(int(count) for count in slots)
