"""What a source of captioned clips is, and what every source has in common."""

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from lumiere_jax.data.pixels import Frames, Video, to_float
from lumiere_jax.runtime.errors import UserError

SPLITS = ("train", "test")


class Source(Protocol):
    """Captioned clips that can be reached by index."""

    def __len__(self) -> int:
        """How many clips an epoch has."""

    def example(self, index: int, seed: int = 0) -> tuple[Video, str]:
        """A clip and its caption.

        A pure function of (index, seed); the seed picks a random part of a longer video, and one of
        several captions.
        """

    @property
    def fingerprint(self) -> str:
        """A name for all that `example` depends on, see `fingerprint`."""


@runtime_checkable
class HoldsFrames(Protocol):
    """A source whose clips are bytes, which are moved in a quarter of the memory."""

    def frames(self, index: int, seed: int = 0) -> tuple[Frames, str]:
        """What `example` gives, as bytes."""

    def example(self, index: int, seed: int = 0) -> tuple[Video, str]:
        """A clip and its caption, see `Source`."""
        frames, caption = self.frames(index, seed)
        return to_float(frames), caption


Embedding = tuple[Float32[np.ndarray, "token channel"], Bool[np.ndarray, " token"]]
"""A text encoder's answer to a caption, and which of its tokens are not padding."""


@runtime_checkable
class StoresText(Protocol):
    """A source that stores its captions' embeddings."""

    @property
    def text_fingerprint(self) -> str | None:
        """Of the encoder that made them; None if there are none after all."""

    def stored_text(self, index: int, seed: int = 0) -> Embedding | None:
        """The encoder's answer to the caption of that example."""


def fingerprint(kind: str, **facts: object) -> str:
    """A short name for what a source holds, to see whether a run continues with the same data.

    `facts`, in terms of JSON, are whatever changes the clips if it changes: settings, names and
    sizes of files, captions. The name is "KIND-" and 16 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=list)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def check_choice(kind: str, **choices: tuple[object, Sequence[object]]) -> None:
    """Refuses settings of a source that are not among those known: `name=(value, known)`."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise UserError(
                f"{kind}: {name} is {value!r}; use {', '.join(map(str, known[:-1]))} or {known[-1]}"
            )


def check_clip(kind: str, split: str, clip: str = "random") -> None:
    """Refuses settings that most sources share."""
    check_choice(kind, split=(split, SPLITS), clip=(clip, ("random", "center")))


def choose_start(generator: np.random.Generator, spare: int, clip: str) -> int:
    """The first frame of a clip with `spare` frames around it: at random, or in the centre."""
    return int(generator.integers(spare + 1)) if clip == "random" else spare // 2


def choose_caption(generator: np.random.Generator, captions: Sequence[str]) -> str:
    """One of the captions of a clip."""
    return captions[int(generator.integers(len(captions)))]
