"""`config.data`: where clips come from, and how they are handed to training."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lumiere_jax.runtime.config_section import ConfigSection


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(ConfigSection):
    """The fields of `config.data`, with their defaults.

    A field is the argument of the same name of every source that has one, and means nothing to the
    other sources, so that one config can hold all.

    Attributes:
      name: of the source, see `sources.SOURCES`.
      num_frames: frames of a clip.
      resolution: side of a square clip in pixels.
      fps: frames per second of a clip.
      max_objects: moving_shapes, moving_digits: 2 allows two objects in a clip.
      two_object_probability: share of clips with two where `max_objects` is 2.
      textured_probability: moving_shapes: share of backgrounds that are not plain.
      size: moving_shapes, moving_digits: clips of an epoch.
      segments: moving_shapes: into how many parts a path is cut, of which a clip shows one.
      seed: moving_shapes, moving_digits: of the whole source.
      folder: of all other sources.
      captions: folders: CSV or JSONL file; empty looks into the folder.
      clip: of longer videos: "random" or "center" part.
      cache_bytes: video_folder: memory that decoded videos may take.
      fold: ucf101: 1, 2 or 3.
      backend: ucf101: "files", "tfds", or "auto", whichever the folder holds.
      mixture: mixture: of each source a mapping with `name`, `weight` and what differs from these
        fields.
      flip: mirrors every second clip whose caption says nothing of a side.
      allow_small: a source smaller than a batch repeats its clips.
      allow_other: resumes although the source is not the one of the checkpoint.
      fingerprint: of the source; training notes it.
      num_threads: batches that are prepared at once.
    """

    name: str = "moving_shapes"
    num_frames: int = 8
    resolution: int = 16
    fps: float = 8
    max_objects: int = 1
    two_object_probability: float = 0.5
    textured_probability: float = 0.5
    size: int = 1_000_000
    segments: int = 1
    seed: int = 0
    folder: str = ""
    captions: str = ""
    clip: str = "random"
    cache_bytes: int = 2**29
    fold: int = 1
    backend: str = "auto"
    mixture: tuple[Mapping[str, Any], ...] = ()
    flip: bool = False
    allow_small: bool = False
    allow_other: bool = False
    fingerprint: str = ""
    num_threads: int = 1

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "DataConfig":
        """The typed form of `config.data`; fields that no source knows are left alone."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})
