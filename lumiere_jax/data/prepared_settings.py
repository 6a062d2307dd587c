"""What decides which records are made, whatever engine makes them and wherever it runs."""

import dataclasses
from typing import Any

from lumiere_jax.runtime.errors import UserError

FORMAT_VERSION = 1  # of the records and files; another one means other fingerprints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Below or above which a clip is of no use. All are in levels of 0 to 255; 0 turns one off.

    Attributes:
      brightness: least mean luma of a clip.
      motion: least mean change between neighbouring frames.
      cut: least score of a step between frames that may be a cut, see `filters.find_cuts`.
    """

    brightness: float = 16.0
    motion: float = 0.5
    cut: float = 40.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 255:
                raise UserError(f"the {name} threshold is {value:g}; it is a level of 0 to 255")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What records are made of, besides the videos.

    Attributes:
      num_frames: frames of a clip.
      resolution: (height, width) of a clip in pixels.
      fps: frames per second of a clip.
      max_clips_per_video: clips from one video, the first ones; 0 for all.
      test_fraction: share of the videos that goes into the split "test".
      videos_per_shard: videos whose clips share a file; 0 chooses by their number.
      thresholds: of the filters.
      text_fingerprint: of the text encoder whose embeddings of the captions are stored; None where
        none are.
    """

    num_frames: int
    resolution: tuple[int, int]
    fps: float
    max_clips_per_video: int = 0
    test_fraction: float = 0.01
    videos_per_shard: int = 0
    thresholds: Thresholds = Thresholds()
    text_fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1 or min(self.resolution) < 1 or self.fps <= 0:
            raise UserError(
                f"a clip of {self.num_frames} frames of {self.resolution} pixels at {self.fps:g} "
                "frames per second cannot be made; all must be positive"
            )
        if not 0 <= self.test_fraction < 1:
            raise UserError(
                f"test_fraction is {self.test_fraction:g}; it must be from 0 to below 1"
            )

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return dataclasses.asdict(self) | {"resolution": list(self.resolution)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """The settings of a plan."""
        return cls(
            **values
            | {
                "resolution": tuple(values["resolution"]),
                "thresholds": Thresholds(**values["thresholds"]),
            }
        )
