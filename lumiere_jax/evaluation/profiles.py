"""How published tools compute FVD, as named options."""

import dataclasses
from typing import Any

from lumiere_jax.metrics.preprocessing import CROPS, RESIZES
from lumiere_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """What a tool does between frames and FVD."""

    resize: str = "tf1"  # to I3D's 224×224; a name of `preprocessing.RESIZES`
    crop: str = "squash"  # "squash" or "center", see `preprocessing.prepare`
    ddof: int = 1  # of the covariances: 1 divides by N - 1, 0 by N
    bn_epsilon: float = 1e-3  # of I3D's batch normalization
    aspect: str = ""  # to which the tool's own loader crops clips ("1:1"); "" for not at all
    repeats: int = 1  # how many sets of videos are scored, for a mean and a deviation
    source: str = ""  # where this is to be seen

    def __post_init__(self) -> None:
        for name, known in (("resize", tuple(RESIZES)), ("crop", CROPS), ("ddof", (0, 1))):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"--{name}={value} is unknown; use one of {known}.")
        if not 0 < self.bn_epsilon < 1:
            raise UserError(f"--bn_epsilon={self.bn_epsilon} must be between 0 and 1, as 0.001.")


PROFILES = {
    "unterthiner": Profile(source="1812.01717, google-research/frechet_video_distance"),
    "magvit": Profile(
        repeats=4, source="google-research/magvit: the same figure, of 10,000 videos four times"),
    "stylegan-v": Profile(resize="torch", ddof=0, aspect="1:1",
        source="universome/stylegan-v: 2,048 videos, centrally cropped, N in the covariance"),
    "cd-fvd": Profile(resize="torch", ddof=0, bn_epsilon=1e-5, aspect="1:1",
        source="PyPI cd-fvd 0.1.1: an I3D with another epsilon, N in the covariance"),
    "tats": Profile(
        resize="torch", bn_epsilon=1e-5, source="songweige/TATS, as LaVie and ConsistI2V use it"),
}  # fmt: skip


def profile(name: str, **changes: Any) -> Profile:
    """A profile by its name, with those changes that are not None."""
    if name not in PROFILES:
        raise UserError(f"--profile={name} is unknown; use one of {', '.join(PROFILES)}.")
    given = {key: value for key, value in changes.items() if value is not None}
    return dataclasses.replace(PROFILES[name], **given)
