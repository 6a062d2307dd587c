"""Where captioned clips come from."""

import inspect
from typing import Any, Protocol

import ml_collections
import numpy as np

from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.errors import UserError


class Source(Protocol):
    """Captioned clips that can be reached by index."""

    def __len__(self) -> int:
        """How many clips an epoch has."""

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """A clip, float32 [time, height, width, 3] in [-1, 1], and its caption.

        A pure function of (index, seed); the seed picks a random part of a longer video.
        """


def _moving_shapes(**settings: Any) -> Source:
    return MovingShapes(**settings)


def _video_folder(folder: str = "", captions: str = "", **settings: Any) -> Source:
    if not folder:
        raise UserError("data source video_folder: say where, with --config.data.folder=FOLDER")
    return VideoFolder(folder, captions=captions or None, **settings)


_SOURCES = {
    "moving_shapes": (_moving_shapes, MovingShapes),
    "video_folder": (_video_folder, VideoFolder),
}


def create_source(config_data: ml_collections.ConfigDict, split: str) -> Source:
    """The data source that a config describes.

    Args:
        config_data: `name` of the source, and its settings under the names of the arguments of its
            class: `MovingShapes` or `VideoFolder` (whose root is `folder` here). Settings that
            belong to another source, or to none, are left alone, so that one config can hold all.
        split: "train" or "test".

    Raises:
        UserError: no source of that name, or the source cannot use its settings.
    """
    name = config_data.name
    if name not in _SOURCES:
        raise UserError(f"no data source {name!r}; there are: {', '.join(sorted(_SOURCES))}")
    create, cls = _SOURCES[name]
    accepted = {*inspect.signature(cls).parameters, *inspect.signature(create).parameters}
    settings = {key: value for key, value in config_data.items() if key in accepted}
    return create(**(settings | {"split": split}))


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
