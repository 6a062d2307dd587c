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
    """

    name: str = "moving_shapes"  # of the source, see `sources.SOURCES`
    num_frames: int = 8  # frames of a clip
    resolution: int = 16  # side of a square clip in pixels
    fps: float = 8  # frames per second of a clip
    max_objects: int = 1  # moving_shapes, moving_digits: 2 allows two objects in a clip
    two_object_probability: float = 0.5  # share of clips with two where `max_objects` is 2
    textured_probability: float = 0.5  # moving_shapes: share of backgrounds that are not plain
    size: int = 1_000_000  # moving_shapes, moving_digits: clips of an epoch
    motions: str = "straight"  # moving_shapes, moving_digits: or "long", for clips of five seconds
    segments: int = 1  # moving_shapes: parts of a path; a clip shows one, captioned as the whole
    seed: int = 0  # moving_shapes, moving_digits: of the whole source
    folder: str = ""  # of all other sources; those of a mixture may be relative to it
    captions: str = ""  # folders: CSV or JSONL file; empty looks into the folder
    min_size: int = 0  # folders: shorter side of a file in pixels; 0: as asked, so none is enlarged
    min_rate: float = 0.9  # folders: least frame rate of a video, as share of `fps`; 0 takes any
    max_repeats: float = 0.25  # folders: share of a clip's frames that repeat the last; 1 takes any
    clip: str = "random"  # of longer videos: "random" or "center" part
    cache_bytes: int = 2**29  # video_folder: memory that decoded videos may take
    fold: int = 1  # ucf101: 1, 2 or 3
    backend: str = "auto"  # ucf101: "files", "tfds", or "auto", whichever the folder holds
    mixture: tuple[Mapping[str, Any], ...] = ()  # mixture: dicts of `name`, `weight`, other fields
    flip: bool = False  # mirrors every second clip whose caption says nothing of a side
    allow_small: bool = False  # a source smaller than a batch repeats its clips
    allow_other: bool = False  # resumes although the source is not the one of the checkpoint
    fingerprint: str = ""  # of the source; training notes it
    num_threads: int = 0  # that read clips; 0: one for each core, or one where they are drawn

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "DataConfig":
        """The typed form of `config.data`; fields that no source knows are left alone."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})
