"""`moving_digits`: real handwritten digits that bounce, one or two a clip, without a download.

The handwriting is that of scikit-learn's `load_digits` (the test part of UCI's "Optical Recognition
of Handwritten Digits", 1797 digits of 8×8 pixels, CC BY 4.0). Clips and captions are of the kind
that text-to-video models were first measured on ("digit 7 is moving left and right": Sync-DRAW,
arXiv 1611.10314; TGANs-C, arXiv 1804.08264), and `lumiere_jax.metrics.digit_oracle` reads them.
Every tenth handwriting is in the test split alone. In clips of five seconds (`motions="long"`), the
digits have the motions of `lumiere_jax.data.motions`: "digit 7 is moving right then up".
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import ndimage

from lumiere_jax.data import motions
from lumiere_jax.data.pixels import Video
from lumiere_jax.data.procedural import ProceduralSource
from lumiere_jax.data.source import fingerprint
from lumiere_jax.runtime.errors import UserError

MOTIONS = ("left and right", "up and down")
SIDE = 0.45
"""Width and height of a digit, of the frame's width."""

_HELD_OUT_ONE_IN = 10
_TRAVEL = (0.9, 1.4)  # way of a digit in a clip, of the free width: it bounces once or twice
_CAPTION = re.compile(r"digit (\d) is (.*)")
_PHRASES = {f"moving {motion}": motion for motion in MOTIONS} | {
    wording: name for name, wordings in motions.WORDINGS.items() for wording in wordings
}
_WORDS_OF_TWO = 16  # that captions of two digits can say of motions
_INK = 0.25  # of full; paler pixels are no part of a digit's outline
_SUPERSAMPLING = 2
_APART = 0.7
_PLACEMENTS = 8  # tries at keeping two digits apart
_LEAST_APART = 0.6  # of the clip, in the long world
_GAP = 0.03  # of the frame's width, between the ink of two digits that are apart there


@dataclasses.dataclass(frozen=True)
class DigitAttributes:
    """What a caption says of one digit: 0 to 9, and one of `MOTIONS` or of `motions.MOTIONS`."""

    digit: int
    motion: str


@dataclasses.dataclass(frozen=True)
class MovingDigit:
    """One digit and its path."""

    handwriting: int  # number of its image in `load_digits`
    digit: int  # 0 to 9
    motion: str  # one of `MOTIONS` or of `motions.MOTIONS`
    begin: float = 0.0  # where it is on its way at first, in [0, 2): there in [0, 1), and back
    travel: float = 0.0  # its way in the clip, of the free width
    across: float = 0.0  # its place on the other axis, in [0, 1]
    path: motions.Path | None = None  # of the middle of its ink; the three above mean nothing then

    def corner(self, times: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time 2"]:
        """Left and upper border at times in [0, 1], as fractions of the frame."""
        if self.path is not None:
            return self.path(times) - ink(self.handwriting)[0]
        way = np.mod(self.begin + self.travel * times, 2.0)
        along = np.minimum(way, 2.0 - way)
        across = np.full_like(along, self.across)
        pair = (along, across) if self.motion == MOTIONS[0] else (across, along)
        return (1.0 - SIDE) * np.stack(pair, axis=-1)


@functools.cache
def handwritings() -> tuple[Float32[np.ndarray, "1797 8 8"], Int[np.ndarray, "1797"]]:
    """Images, in [0, 1], and which digit each is."""
    from sklearn.datasets import load_digits  # a second of import that others need not wait for

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target


@functools.cache
def ink(handwriting: int) -> tuple[motions.Half, motions.Half]:
    """Middle of a digit's ink, from the digit's left and upper border, and half the ink's size."""
    rows, columns = np.nonzero(handwritings()[0][handwriting] > _INK)
    ends = [(places.min(), places.max() + 1) for places in (columns, rows)]
    (left, right), (top, bottom) = (np.asarray(pair) * SIDE / 8 for pair in ends)
    return ((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2)


def is_held_out(handwriting: int) -> bool:
    """Tells whether an image of `handwritings` belongs to the test split."""
    return handwriting % _HELD_OUT_ONE_IN == 0


def parse_caption(caption: str) -> tuple[DigitAttributes, ...]:
    """What a caption says of its digits; a `UserError` if it is none of `moving_digits`."""
    matches = [_CAPTION.fullmatch(part) for part in re.split(" and (?=digit )", caption)]
    found = [
        DigitAttributes(int(match[1]), _PHRASES[match[2]])
        for match in matches
        if match and match[2] in _PHRASES
    ]
    if len(found) != len(matches) or len(found) > 2:
        raise UserError(
            f"{caption!r} is no caption of moving_digits; write, for example, 'digit 7 is moving "
            "left and right and digit 2 is moving up and down'"
        )
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class MovingDigits(ProceduralSource):
    """Procedural clips of bouncing digits, each a pure function of its index.

    Digits are white on black, and the brighter one wins where two overlap. As with `MovingShapes`,
    a path does not depend on resolution or frame count, and one frame shows a random moment.
    """

    name: ClassVar[str] = "moving_digits"
    least_resolution: ClassVar[int] = 16

    @functools.cached_property
    def _handwritings(self) -> list[int]:
        """The images of the split."""
        count, held_out = len(handwritings()[1]), self.split == "test"
        return [n for n in range(count) if is_held_out(n) == held_out]

    @property
    def fingerprint(self) -> str:
        """Names the clips, which depend on the settings alone (`fps` changes none of them)."""
        two, seed = self.share_of_two, self.seed
        settings = (self.num_frames, self.resolution, self.split, self.size, two, seed)
        world = (self.motions,) if self.motions != "straight" else ()
        return fingerprint("moving_digits", settings=(*settings, *world))

    def digits(self, index: int) -> tuple[MovingDigit, ...]:
        """The truth about clip `index`."""
        return self._draw(self.generator(index, 1))

    def example(self, index: int, seed: int = 0) -> tuple[Video, str]:
        """Draws clip `index` and its caption; `seed` is ignored."""
        generator = self.generator(index, 1)
        digits = self._draw(generator)
        said = [self._say(item.motion, len(digits) > 1, generator) for item in digits]
        times = np.linspace(0.0, 1.0, self.num_frames)
        if self.num_frames == 1:
            times = generator.uniform(size=1)
        sentences = zip(digits, said, strict=True)
        caption = " and ".join(f"digit {item.digit} is {motion}" for item, motion in sentences)
        return render(digits, times, self.resolution), caption

    def _say(self, motion: str, short: bool, generator: np.random.Generator) -> str:
        if self.motions == "straight":
            return f"moving {motion}"
        wordings = motions.WORDINGS[motion]
        return wordings[0 if short else int(generator.integers(len(wordings)))]

    def _draw(self, generator: np.random.Generator) -> tuple[MovingDigit, ...]:
        """One digit; or, of several draws of two, the one in which they overlap the least."""
        if self.motions == "long":
            return self._draw_long(generator)
        if generator.uniform() >= self.share_of_two:
            return (self._draw_digit(generator),)
        draws = [
            (self._draw_digit(generator), self._draw_digit(generator)) for _ in range(_PLACEMENTS)
        ]
        return max(draws, key=_time_apart)

    def _draw_long(self, generator: np.random.Generator) -> tuple[MovingDigit, ...]:
        """The same for the motions of the long world; other ones where two overlap for long."""
        if generator.uniform() >= self.share_of_two:
            return (self._draw_moving(motions.draw_motion(generator), generator),)
        while True:
            drawn = [motions.draw_motion(generator) for _ in range(2)]
            if sum(motions.shortest(motion.name) for motion in drawn) > _WORDS_OF_TWO:
                continue
            draws = [
                tuple(self._draw_moving(motion, generator) for motion in drawn)
                for _ in range(2 * _PLACEMENTS)
            ]
            digits = max(draws, key=_ink_apart)
            if _ink_apart(digits) >= _LEAST_APART:
                return digits

    def _draw_moving(self, motion: motions.Motion, generator: np.random.Generator) -> MovingDigit:
        number = self._handwritings[int(generator.integers(len(self._handwritings)))]
        return MovingDigit(
            handwriting=number,
            digit=int(handwritings()[1][number]),
            motion=motion.name,
            path=motion.draw(ink(number)[1], generator),
        )

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


def _ink_apart(digits: tuple[MovingDigit, ...]) -> float:
    """Share of the clip in which a gap is between the ink of two digits of the long world."""
    times, reach = np.linspace(0.0, 1.0, 33), np.zeros(2)
    places = []
    for item in digits:
        middle, half = ink(item.handwriting)
        places.append(item.corner(times) + middle)
        reach += half
    return float(((np.abs(places[0] - places[1]) - reach).max(axis=1) >= _GAP).mean())


def render(
    digits: Sequence[MovingDigit], times: Float[np.ndarray, " time"], resolution: int
) -> Video:
    """Draws digits at times in [0, 1]."""
    fine = resolution * _SUPERSAMPLING
    pixels = (np.arange(fine) + 0.5) / fine
    frames = np.zeros((len(times), fine, fine), np.float32)
    for item in digits:
        image = handwritings()[0][item.handwriting]
        for frame, (left, top) in zip(frames, item.corner(times), strict=True):
            axes = [8 * (pixels - border) / SIDE - 0.5 for border in (top, left)]
            # From a pixel outside the image on, interpolation gives 0.
            inside = [np.flatnonzero(np.abs(axis - 3.5) < 4.5) for axis in axes]
            grid = np.meshgrid(*(a[i] for a, i in zip(axes, inside, strict=True)), indexing="ij")
            drawn = ndimage.map_coordinates(image, grid, order=1, mode="grid-constant")
            frame[np.ix_(*inside)] = np.maximum(frame[np.ix_(*inside)], drawn)
    shape = (len(times), resolution, _SUPERSAMPLING, resolution, _SUPERSAMPLING)
    levels = frames.reshape(shape).mean(axis=(2, 4))
    return np.repeat(2.0 * levels[..., None] - 1.0, 3, axis=-1)
