"""Where captioned clips come from."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import ml_collections
import numpy as np

from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.moving_digits import MovingDigits
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.prepared import Prepared
from lumiere_jax.data.ucf101 import Ucf101
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.runtime.errors import UserError


class Source(Protocol):
    """Captioned clips that can be reached by index."""

    def __len__(self) -> int:
        """How many clips an epoch has."""

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """A clip, float32 [time, height, width, 3] in [-1, 1], and its caption.

        A pure function of (index, seed); the seed picks a random part of a longer video.
        """

    @property
    def fingerprint(self) -> str:
        """A name for all that `example` depends on, see `fingerprint.fingerprint`."""


@runtime_checkable
class HoldsFrames(Protocol):
    """A source whose clips are bytes, which are moved in a quarter of the memory."""

    def frames(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """What `example` gives, as uint8 [time, height, width, 3]."""


@runtime_checkable
class StoresText(Protocol):
    """A source that has its captions' embeddings at hand.

    Attributes:
      text_fingerprint: of the encoder that made them; None if there are none after all.
    """

    text_fingerprint: str | None

    def stored_text(self, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
        """The encoder's answer to the caption of that example: float32 [L, D] and bool [L]."""


def _in_folder(cls: Callable[..., Source]) -> Callable[..., Source]:
    """Makes sources of a class whose data is in a folder."""

    def create(folder: str = "", captions: str = "", **settings: Any) -> Source:
        if not folder:
            raise UserError("this data source is a folder; say where: --config.data.folder=FOLDER")
        return cls(folder, **(settings | ({"captions": captions} if captions else {})))

    return create


_SOURCES: dict[str, tuple[Callable[..., Source], type]] = {
    "image_folder": (_in_folder(ImageFolder), ImageFolder),
    "moving_digits": (MovingDigits, MovingDigits),
    "moving_shapes": (MovingShapes, MovingShapes),
    "prepared": (_in_folder(Prepared), Prepared),
    "ucf101": (_in_folder(Ucf101), Ucf101),
    "video_folder": (_in_folder(VideoFolder), VideoFolder),
}


def create_source(config_data: ml_collections.ConfigDict, split: str) -> Source:
    """The data source that a config describes.

    Args:
      config_data: `name` of the source, and its settings under the names of the arguments of its
        class, such as `VideoFolder` (whose root is `folder` here). Settings that belong to another
        source, or to none, are left alone, so that one config can hold all. "mixture" mixes those
        in `mixture`: of each a dict with `name`, `weight` and what differs from the other settings.
      split: "train" or "test".

    Raises:
      UserError: no source of that name, or the source cannot use its settings.
    """
    if config_data.name == "mixture":
        return _mixture(config_data, split)
    if config_data.name not in _SOURCES:
        known = ", ".join(sorted([*_SOURCES, "mixture"]))
        raise UserError(f"no data source {config_data.name!r}; there are: {known}")
    create, cls = _SOURCES[config_data.name]
    accepted = {*inspect.signature(cls).parameters}
    accepted |= {"folder"} & {*inspect.signature(create).parameters}
    settings = {key: value for key, value in config_data.items() if key in accepted}
    return create(**(settings | {"split": split}))


def _mixture(config_data: ml_collections.ConfigDict, split: str) -> Mixture:
    common = dict(config_data.items())
    sources, weights = [], []
    for number, entry in enumerate(common.pop("mixture", ())):
        place = f"config.data.mixture[{number}]"
        if not isinstance(entry, dict | ml_collections.ConfigDict) or "name" not in entry:
            raise UserError(f"{place} is {entry!r}; use a dict with name, weight and settings")
        settings = dict(entry.items())
        weights.append(settings.pop("weight", 1))
        unknown = sorted(set(settings) - set(common))
        if unknown or settings["name"] == "mixture":
            raise UserError(
                f"{place} sets {', '.join(unknown) or 'another mixture'}; it can set what "
                "config.data has, and name any other source"
            )
        sources.append(create_source(ml_collections.ConfigDict(common | settings), split))
    return Mixture(sources, weights)


def check_size(source: Source, batch_size: int) -> None:
    """Refuses a source that cannot fill one global batch.

    Raises:
      UserError: naming both numbers.
    """
    if len(source) < batch_size:
        raise UserError(
            f"the data source has {len(source)} clips, fewer than the global batch of "
            f"{batch_size}: add videos, make the batch smaller, or allow clips to repeat within a "
            "batch (allow_small)"
        )


def check_text(source: Source, text_encoder: Callable) -> None:
    """Refuses a source whose embeddings are another encoder's.

    Raises:
      UserError: naming both encoders.
    """
    for part in getattr(source, "sources", [source]):
        stored = part.text_fingerprint if isinstance(part, StoresText) else None
        if stored is not None and stored != text_encoder.fingerprint:
            raise UserError(
                f"the data source stores text embeddings of {stored}, but this run's text encoder "
                f"is {text_encoder.fingerprint}; set config.text as it was when the data was "
                "prepared, or prepare it again"
            )
