"""What the sources that draw their clips have in common."""

import dataclasses
from typing import ClassVar

import numpy as np

from lumiere_jax.data.source import SPLITS, check_choice
from lumiere_jax.runtime.errors import UserError

WORLDS = ("straight", "long")


@dataclasses.dataclass(frozen=True)
class ProceduralSource:
    """Endless clips, each a pure function of its index; `fps` says how fast to play them."""

    num_frames: int = 8  # frames of a clip. One frame shows a random moment of it
    resolution: int = 16  # pixels along each side
    fps: float = 8  # frames per second at which a clip is meant to be played
    split: str = "train"  # "train" or "test"
    size: int = 1_000_000  # how many clips an epoch has
    max_objects: int = 1  # 1, or 2 to allow two objects in a clip
    two_object_probability: float = 0.5  # share of clips with two objects where `max_objects` is 2
    seed: int = 0  # of the whole source
    motions: str = "straight"  # or "long": those of `motions.KINDS`, for clips of five seconds

    name: ClassVar[str]
    least_resolution: ClassVar[int]

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"{self.name}: split={self.split!r} must be 'train' or 'test'")
        if self.max_objects not in (1, 2):
            raise UserError(f"{self.name}: max_objects={self.max_objects} must be 1 or 2")
        check_choice(self.name, motions=(self.motions, WORLDS))
        if self.fps <= 0:
            raise UserError(f"{self.name}: fps={self.fps} must be above 0")
        least = {"num_frames": 1, "size": 1, "segments": 1, "resolution": self.least_resolution}
        for field, value in vars(self).items():
            if field in least and value < least[field]:
                raise UserError(f"{self.name}: {field}={value} must be {least[field]} or more")
            if field.endswith("_probability") and not 0 <= value <= 1:
                raise UserError(f"{self.name}: {field}={value} must be between 0 and 1")

    def __len__(self) -> int:
        return self.size

    @property
    def share_of_two(self) -> float:
        """Share of clips with two objects."""
        return self.two_object_probability if self.max_objects == 2 else 0.0

    def generator(self, index: int, *stream: int) -> np.random.Generator:
        """What clip `index` is drawn with; an `IndexError` outside [0, len(self))."""
        if not 0 <= index < self.size:
            raise IndexError(f"{self.name} has {self.size} clips; there is no clip {index}")
        return np.random.default_rng((self.seed, int(index), *stream))
