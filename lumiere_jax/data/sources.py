"""The source of captioned clips that a config names."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sized
from typing import Any, Protocol

import numpy as np
from etils import epath
from jaxtyping import Bool, Float32

from lumiere_jax.data.config import DataConfig
from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.moving_digits import MovingDigits
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.prepared import Prepared
from lumiere_jax.data.source import HoldsFrames, Source, StoresText
from lumiere_jax.data.ucf101 import Ucf101
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.runtime.distributed import is_primary, say
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text

DATA_REPORT = "data_report.txt"
_MOST_LINES = 20  # of a report that are said


class TextEncoder(Protocol):
    """What `text.TextEncoder` promises, as far as data needs it."""

    @property
    def fingerprint(self) -> str:
        """Names the function from captions to embeddings."""

    def __call__(
        self, captions: list[str], /
    ) -> tuple[Float32[np.ndarray, "batch token channel"], Bool[np.ndarray, "batch token"]]:
        """Embeddings of captions, and which of their tokens are not padding."""


SOURCES: dict[str, Callable[..., Source]] = {
    "image_folder": ImageFolder,
    "moving_digits": MovingDigits,
    "moving_shapes": MovingShapes,
    "prepared": Prepared,
    "ucf101": Ucf101,
    "video_folder": VideoFolder,
}
"""By the name in `config.data.name`, which may also be "mixture", of several of them."""


def create_source(config: DataConfig | Mapping[str, Any], split: str) -> Source:
    """The source for the split "train" or "test"; a `UserError` if it cannot use its settings."""
    data = config if isinstance(config, DataConfig) else DataConfig.from_config(config)
    if data.name == "mixture":
        return _mixture(data, split)
    if data.name not in SOURCES:
        known = ", ".join(sorted([*SOURCES, "mixture"]))
        raise UserError(f"no data source {data.name!r}; there are: {known}")
    if is_folder(data.name) and not data.folder:
        raise UserError("this data source is a folder; say where: --config.data.folder=FOLDER")
    accepted = inspect.signature(SOURCES[data.name]).parameters
    settings = {name: value for name, value in vars(data).items() if name in accepted}
    return SOURCES[data.name](**settings, split=split)


def names(data: DataConfig | Mapping[str, Any]) -> tuple[str, ...]:
    """The sources of a config."""
    if data["name"] != "mixture":
        return (data["name"],)
    return tuple(str(dict(entry).get("name")) for entry in data["mixture"])


def hold_bytes(data: DataConfig | Mapping[str, Any]) -> bool:
    """Whether a batch has its clips as bytes, which a mixture has if all of its sources do."""
    found = map(SOURCES.get, names(data))
    return all(inspect.isclass(source) and issubclass(source, HoldsFrames) for source in found)


def is_folder(name: str) -> bool:
    """Whether the source of that name has a folder; a mixture's sources have their own."""
    return name in SOURCES and "folder" in inspect.signature(SOURCES[name]).parameters


def _mixture(data: DataConfig, split: str) -> Mixture:
    known = {field.name for field in dataclasses.fields(data)} - {"mixture"}
    sources, weights = [], []
    for number, entry in enumerate(data.mixture):
        place = f"config.data.mixture[{number}]"
        if not hasattr(entry, "items") or "name" not in entry:
            raise UserError(f"{place} is {entry!r}; use a dict with name, weight and settings")
        settings = dict(entry.items())
        if not settings.get("folder"):
            settings["folder"] = data.folder
        elif data.folder:
            settings["folder"] = str(epath.Path(data.folder) / settings["folder"])
        weights.append(settings.pop("weight", 1))
        unknown = sorted(set(settings) - known)
        if unknown or settings["name"] == "mixture":
            raise UserError(
                f"{place} sets {', '.join(unknown) or 'another mixture'}; it can set what "
                "config.data has, and name any other source"
            )
        sources.append(create_source(dataclasses.replace(data, **settings), split))
    return Mixture(sources, weights)


def report(source: Source) -> str:
    """Which files a source leaves out, each with the reason; empty where it has no files."""
    if isinstance(source, Mixture):
        return "\n".join(filter(None, map(report, source.sources)))
    if isinstance(source, VideoFolder | ImageFolder | Ucf101):
        return str(source.report)
    return ""


def not_held_out(source: Source) -> list[str]:
    """Names of the parts of a source of the split "test" whose clips are trained on as well."""
    parts = source.sources if isinstance(source, Mixture) else [source]
    folders = [p for p in parts if isinstance(p, VideoFolder | ImageFolder | Prepared)]
    names = {source: name for name, source in SOURCES.items()}
    # All other sources have test clips of their own.
    return [names[type(folder)] for folder in folders if not folder.is_held_out]


def say_report(source: Source, folder: epath.PathLike) -> None:
    """Says which files a source leaves out; all of them in `FOLDER/data_report.txt`."""
    if not (told := report(source)):
        return
    place, lines = epath.Path(folder) / DATA_REPORT, told.splitlines()
    say("\n".join(lines[:_MOST_LINES]))
    if len(lines) > _MOST_LINES:
        say(f"  and {len(lines) - _MOST_LINES} more in {place}")
    if is_primary():
        write_text(place, told + "\n")


def spread(source: Sized, count: int) -> list[int]:
    """Numbers of so many examples, or of all if there are fewer, from all parts of a source."""
    count = min(count, len(source))
    return [number * len(source) // count for number in range(count)]


def check_size(source: Source, batch_size: int) -> None:
    """Refuses a source that cannot fill one global batch."""
    if len(source) < batch_size:
        raise UserError(
            f"the data source has {len(source)} clips, fewer than the global batch of "
            f"{batch_size}: add videos, make the batch smaller, or allow clips to repeat within a "
            "batch (allow_small)"
        )


def check_text(source: Source, encoder: TextEncoder) -> None:
    """Refuses a source whose embeddings are another encoder's."""
    for part in source.sources if isinstance(source, Mixture) else [source]:
        stored = part.text_fingerprint if isinstance(part, StoresText) else None
        if stored is not None and stored != encoder.fingerprint:
            raise UserError(
                f"the data source stores text embeddings of {stored}, but this run's text encoder "
                f"is {encoder.fingerprint}; set config.text as it was when the data was prepared, "
                "or prepare it again"
            )
