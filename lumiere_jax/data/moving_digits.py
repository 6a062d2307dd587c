"""`moving_digits`: real handwritten digits that bounce, one or two a clip, without a download.

The handwriting is that of scikit-learn's `load_digits` (the test part of UCI's "Optical Recognition
of Handwritten Digits", 1797 digits of 8×8 pixels, CC BY 4.0). Clips and captions are of the kind
that text-to-video models were first measured on ("digit 7 is moving left and right": Sync-DRAW,
arXiv 1611.10314; TGANs-C, arXiv 1804.08264), and `lumiere_jax.metrics.digit_oracle` reads them.
Every tenth handwriting is in the test split alone.
"""

import dataclasses
import functools
import re

import numpy as np
from scipy import ndimage

from lumiere_jax.data.fingerprint import fingerprint
from lumiere_jax.runtime.errors import UserError

MOTIONS = ("left and right", "up and down")
SIDE = 0.45
"""Width and height of a digit, of the frame's width."""

_HELD_OUT_ONE_IN = 10
_TRAVEL = (0.9, 1.4)  # way of a digit in a clip, of the free width: it bounces once or twice
_CAPTION = re.compile(r"digit (\d) is moving (left and right|up and down)")
_SUPERSAMPLING = 2
_APART = 0.7
_PLACEMENTS = 8  # tries at keeping two digits apart


@dataclasses.dataclass(frozen=True)
class DigitAttributes:
    """What a caption says of one digit: 0 to 9, and one of `MOTIONS`."""

    digit: int
    motion: str


@dataclasses.dataclass(frozen=True)
class MovingDigit:
    """One digit and its path.

    Attributes:
      handwriting: number of its image in `load_digits`.
      digit: 0 to 9.
      motion: one of `MOTIONS`.
      begin: where it is on its way at first, in [0, 2): there in [0, 1), and back.
      travel: its way in the clip, of the free width.
      across: its place on the other axis, in [0, 1].
    """

    handwriting: int
    digit: int
    motion: str
    begin: float
    travel: float
    across: float

    def corner(self, times: np.ndarray) -> np.ndarray:
        """Left and upper border at times in [0, 1], as fractions of the frame, [time, 2]."""
        way = np.mod(self.begin + self.travel * times, 2.0)
        along = np.minimum(way, 2.0 - way)
        across = np.full_like(along, self.across)
        pair = (along, across) if self.motion == MOTIONS[0] else (across, along)
        return (1.0 - SIDE) * np.stack(pair, axis=-1)


@functools.cache
def handwritings() -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 [1797, 8, 8] in [0, 1], and which digit each is, int [1797]."""
    from sklearn.datasets import load_digits  # a second of import that others need not wait for

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target


def is_held_out(handwriting: int) -> bool:
    """Tells whether an image of `handwritings` belongs to the test split."""
    return handwriting % _HELD_OUT_ONE_IN == 0


def parse_caption(caption: str) -> tuple[DigitAttributes, ...]:
    """What a caption says of its digits.

    Raises:
      UserError: the caption is not one of `moving_digits`.
    """
    parts = caption.split(" and digit ")
    matches = [_CAPTION.fullmatch(part if n == 0 else f"digit {part}") for n, part in
               enumerate(parts)]  # fmt: skip
    if not all(matches) or len(matches) > 2:
        raise UserError(
            f"{caption!r} is no caption of moving_digits; write, for example, 'digit 7 is moving "
            "left and right and digit 2 is moving up and down'"
        )
    return tuple(DigitAttributes(int(match[1]), match[2]) for match in matches)


class MovingDigits:
    """Procedural clips of bouncing digits, each a pure function of its index.

    Digits are white on black, and the brighter one wins where two overlap. As with `MovingShapes`,
    a path does not depend on resolution or frame count, and one frame shows a random moment.
    """

    def __init__(
        self,
        num_frames: int = 8,
        resolution: int = 16,
        fps: float = 8,
        split: str = "train",
        size: int = 1_000_000,
        max_objects: int = 1,
        two_object_probability: float = 0.5,
        seed: int = 0,
    ):
        """Checks the settings.

        Args:
          num_frames: frames of a clip, at least 1.
          resolution: pixels along each side, at least 16.
          fps: frames per second at which the clip is meant to be played.
          split: "train" or "test".
          size: how many clips an epoch has.
          max_objects: 1, or 2 to allow two digits in a clip.
          two_object_probability: share of clips with two digits where `max_objects` is 2.
          seed: seed of the whole source.

        Raises:
          UserError: a setting is out of range.
        """
        for is_right, problem in (
            (split in ("train", "test"), f"split={split!r} must be 'train' or 'test'"),
            (num_frames >= 1, f"num_frames={num_frames} must be 1 or more"),
            (resolution >= 16, f"resolution={resolution} must be 16 or more"),
            (fps > 0, f"fps={fps} must be above 0"),
            (size >= 1, f"size={size} must be 1 or more"),
            (max_objects in (1, 2), f"max_objects={max_objects} must be 1 or 2"),
            (
                0 <= two_object_probability <= 1,
                f"two_object_probability={two_object_probability} must be between 0 and 1",
            ),
        ):
            if not is_right:
                raise UserError(f"moving_digits: {problem}")
        self.num_frames, self.resolution, self.fps, self.split = num_frames, resolution, fps, split
        self._size, self._seed = size, seed
        self._two = two_object_probability if max_objects == 2 else 0.0
        held_out = split == "test"
        count = len(handwritings()[1])
        self._handwritings = [n for n in range(count) if is_held_out(n) == held_out]

    def __len__(self) -> int:
        return self._size

    @property
    def fingerprint(self) -> str:
        """Names the clips, which depend on the settings alone (`fps` changes none of them)."""
        settings = (self.num_frames, self.resolution, self.split, self._size, self._two, self._seed)
        return fingerprint("moving_digits", settings=settings)

    def digits(self, index: int) -> tuple[MovingDigit, ...]:
        """The truth about clip `index`.

        Raises:
          IndexError: `index` is outside [0, len(self)).
        """
        return self._draw(self._generator(index))

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """Draws clip `index`; `seed` is ignored.

        Returns:
          The video, float32 [time, height, width, 3] in [-1, 1], and its caption.

        Raises:
          IndexError: `index` is outside [0, len(self)).
        """
        generator = self._generator(index)
        digits = self._draw(generator)
        times = np.linspace(0.0, 1.0, self.num_frames)
        if self.num_frames == 1:
            times = generator.uniform(size=1)
        caption = " and ".join(f"digit {item.digit} is moving {item.motion}" for item in digits)
        return render(digits, times, self.resolution), caption

    def _generator(self, index: int) -> np.random.Generator:
        if not 0 <= index < self._size:
            raise IndexError(f"moving_digits has {self._size} clips; there is no clip {index}")
        return np.random.default_rng((self._seed, int(index), 1))

    def _draw(self, generator: np.random.Generator) -> tuple[MovingDigit, ...]:
        """One digit; or, of several draws of two, the one in which they overlap the least."""
        if generator.uniform() >= self._two:
            return (self._draw_digit(generator),)
        draws = [
            (self._draw_digit(generator), self._draw_digit(generator)) for _ in range(_PLACEMENTS)
        ]
        return max(draws, key=_time_apart)

    def _draw_digit(self, generator: np.random.Generator) -> MovingDigit:
        handwriting = self._handwritings[int(generator.integers(len(self._handwritings)))]
        return MovingDigit(
            handwriting=handwriting,
            digit=int(handwritings()[1][handwriting]),
            motion=MOTIONS[int(generator.integers(2))],
            begin=generator.uniform(0.0, 2.0),
            travel=generator.uniform(*_TRAVEL),
            across=generator.uniform(),
        )


def _time_apart(digits: tuple[MovingDigit, ...]) -> float:
    """Share of the clip in which two digits, which are narrower than their squares, are apart."""
    times = np.linspace(0.0, 1.0, 17)
    offset = digits[0].corner(times) - digits[1].corner(times)
    return float((np.abs(offset).max(axis=1) >= _APART * SIDE).mean())


def render(digits: tuple[MovingDigit, ...], times: np.ndarray, resolution: int) -> np.ndarray:
    """Draws digits at times in [0, 1].

    Returns:
      float32 [time, resolution, resolution, 3] in [-1, 1].
    """
    fine = resolution * _SUPERSAMPLING
    pixels = (np.arange(fine) + 0.5) / fine
    frames = np.zeros((len(times), fine, fine), np.float32)
    for item in digits:
        image = handwritings()[0][item.handwriting]
        for frame, (left, top) in zip(frames, item.corner(times), strict=True):
            rows, columns = (8 * (pixels - border) / SIDE - 0.5 for border in (top, left))
            grid = np.meshgrid(rows, columns, indexing="ij")
            drawn = ndimage.map_coordinates(image, grid, order=1, mode="grid-constant")
            np.maximum(frame, drawn, out=frame)
    shape = (len(times), resolution, _SUPERSAMPLING, resolution, _SUPERSAMPLING)
    levels = frames.reshape(shape).mean(axis=(2, 4))
    return np.repeat(2.0 * levels[..., None] - 1.0, 3, axis=-1)
