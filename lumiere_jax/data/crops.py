"""Random space-time crops of training clips, cut before anything is sent to a device."""

import dataclasses

import numpy as np
from jaxtyping import Num


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A part of a clip, of one size, that begins anywhere in time and at multiples in space."""

    size: tuple[int, int, int]  # (time, height, width)
    multiple: int = 1  # of the first row and column: the factor of super-resolution

    def __call__(
        self, clip: Num[np.ndarray, "time height width channels"], seed: int
    ) -> Num[np.ndarray, "crop_time crop_height crop_width channels"]:
        """A view of the clip, a function of the seed; every place is as likely as any other."""
        generator = np.random.default_rng([seed, 2])
        part: list[slice] = []
        multiples = 1, self.multiple, self.multiple
        for length, size, multiple in zip(clip.shape[:3], self.size, multiples, strict=True):
            start = multiple * int(generator.integers((length - size) // multiple + 1))
            part.append(slice(start, start + size))
        return clip[tuple(part)]
