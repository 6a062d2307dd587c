"""The world of `moving_shapes`: its vocabulary, the record of one clip, and how it is drawn.

Everything here is independent of resolution, frame count and frame rate: lengths are fractions of
the frame's width, x points right, y points down, and time runs from 0 (first frame) to 1 (last).
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32

from lumiere_jax.data.pixels import Video

SHAPES = ("circle", "square", "triangle", "diamond", "ring", "cross")

# Colours as RGB in [0, 1]. Objects are saturated and backgrounds are not, so that no object can be
# mistaken for a background and no name appears in both tables.
OBJECT_COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.05, 0.08),
    "orange": (1.00, 0.55, 0.00),
    "yellow": (1.00, 0.95, 0.10),
    "green": (0.08, 0.70, 0.15),
    "cyan": (0.10, 0.88, 0.92),
    "blue": (0.10, 0.30, 1.00),
    "purple": (0.58, 0.08, 0.80),
    "pink": (1.00, 0.45, 0.75),
}
BACKGROUND_COLOURS: dict[str, tuple[float, float, float]] = {
    "black": (0.08, 0.08, 0.08),
    "gray": (0.50, 0.50, 0.50),
    "white": (0.92, 0.92, 0.92),
    "brown": (0.42, 0.25, 0.12),
    "navy": (0.10, 0.12, 0.42),
}
BACKGROUND_KINDS = ("plain", "striped", "checkered")
SIZES: dict[str, float] = {"small": 0.28, "large": 0.40}  # width of the object

# Unit steps (x, y); the y axis points down.
_DIAGONAL = 0.5**0.5
DIRECTIONS: dict[str, tuple[float, float]] = {
    "still": (0.0, 0.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "upper left": (-_DIAGONAL, -_DIAGONAL),
    "upper right": (_DIAGONAL, -_DIAGONAL),
    "lower left": (-_DIAGONAL, _DIAGONAL),
    "lower right": (_DIAGONAL, _DIAGONAL),
}
PATH_LENGTH = (0.45, 0.55)  # of the frame's width, over the whole clip, whatever its frame count

TEXTURE_AMPLITUDE = 0.08  # each tone's distance from the named colour, RGB in [0, 1]
_TEXTURE_PERIOD = 0.25  # of the frame's width: four pixels at 16x16
_POINTS_PER_CHUNK = 2**21  # bounds the memory of long, large clips


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One object and its path."""

    shape: str  # one of `SHAPES`
    colour: str  # a key of `OBJECT_COLOURS`
    size: str  # a key of `SIZES`
    direction: str  # a key of `DIRECTIONS`, or of `motions.MOTIONS`
    start: tuple[float, float]  # centre (x, y) in the first frame, fractions of the frame's width
    end: tuple[float, float]  # centre (x, y) in the last frame; `start` when standing still
    path: Callable[[np.ndarray], np.ndarray] | None = None  # centres at times; None: a straight one

    @property
    def radius(self) -> float:
        """Half the object's width, a fraction of the frame's width."""
        return SIZES[self.size] / 2

    def centers(self, times: Float[np.ndarray, " time"]) -> Float32[np.ndarray, "time 2"]:
        """The centres (x, y) at times in [0, 1]."""
        if self.path is not None:
            return self.path(np.asarray(times)).astype(np.float32)
        start, end = np.asarray(self.start), np.asarray(self.end)
        return (start + np.asarray(times)[:, None] * (end - start)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """The truth about one clip."""

    objects: tuple[SceneObject, ...]  # one or two objects; later ones are drawn over earlier ones
    background_colour: str  # a key of `BACKGROUND_COLOURS`
    background_kind: str  # one of `BACKGROUND_KINDS`
    passing: bool = False  # whether the first object passes behind the second


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 1.0


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slanted = (2.0 * np.abs(x) - 1.0 - y) * np.float32(5**-0.5)
    return np.maximum(slanted, y - 1.0)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Diagonal arms: an upright cross of five pixels can hardly be told from a diamond.
    rising, falling = np.abs(x + y), np.abs(x - y)
    arms = np.minimum(rising, falling) * np.float32(_DIAGONAL) - np.float32(0.33)
    return np.maximum(arms, _square(x, y))


# Signed distance to the outline, negative inside, of shapes that fill [-1, 1] x [-1, 1].
SIGNED_DISTANCE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: np.sqrt(x * x + y * y) - 1.0,
    "square": _square,
    "triangle": _triangle,
    "diamond": lambda x, y: (np.abs(x) + np.abs(y) - 1.0) * np.float32(_DIAGONAL),
    "ring": lambda x, y: np.abs(np.sqrt(x * x + y * y) - 0.75) - 0.25,
    "cross": _cross,
}


def coverage(
    shape: str, centers: Float[np.ndarray, "time 2"], radius: float, resolution: int
) -> Float32[np.ndarray, "time height width"]:
    """How much of each pixel a shape covers, in [0, 1]: its anti-aliased mask.

    A linear ramp, one sample wide, over the signed distance is exact for straight edges along an
    axis and close elsewhere; small frames, where a corner is a large part of the object, also
    average several samples in a pixel. The centers (x, y) and the radius, half the object's width,
    are fractions of the frame's width.
    """
    samples = max(1, min(4, 128 // resolution))  # along each side of a pixel
    side = resolution * samples
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    centers = np.asarray(centers, np.float32)
    scale = np.float32(1.0 / radius)
    x = (grid[None, None, :] - centers[:, 0, None, None]) * scale
    y = (grid[None, :, None] - centers[:, 1, None, None]) * scale
    mask = SIGNED_DISTANCE[shape](x, y)
    mask *= np.float32(-side * radius)
    mask += np.float32(0.5)
    np.clip(mask, 0.0, 1.0, out=mask)
    if samples > 1:
        rows = functools.reduce(np.add, (mask[:, i::samples] for i in range(samples)))
        total = functools.reduce(np.add, (rows[:, :, i::samples] for i in range(samples)))
        mask = total * np.float32(samples**-2)
    return mask


def _square_wave(resolution: int) -> np.ndarray:
    """A wave of -1 and 1 averaged exactly over each pixel, [width]: differences of its integral."""
    edges = np.arange(resolution + 1) / resolution
    integral = _TEXTURE_PERIOD / 2 - np.abs(edges % _TEXTURE_PERIOD - _TEXTURE_PERIOD / 2)
    return np.diff(integral) * resolution


def render_background(
    colour: str, kind: str, resolution: int
) -> Float32[np.ndarray, "height width 3"]:
    """Draws a background in [-1, 1], whose texture is two tones about the named colour."""
    wave = _square_wave(resolution)[None, :]
    pattern = {"plain": np.zeros((1, 1)), "striped": wave, "checkered": wave.T * wave}[kind]
    tones = np.broadcast_to(pattern * TEXTURE_AMPLITUDE, (resolution, resolution))[..., None]
    return (2.0 * (np.asarray(BACKGROUND_COLOURS[colour]) + tones) - 1.0).astype(np.float32)


def render(scene: Scene, times: Float[np.ndarray, " time"], resolution: int) -> Video:
    """Draws a scene at times in [0, 1]; 0 is the start of every path and 1 its end."""
    times = np.asarray(times)
    background = render_background(scene.background_colour, scene.background_kind, resolution)
    video = np.empty((len(times), *background.shape), np.float32)
    video[:] = background
    frames = max(1, _POINTS_PER_CHUNK // resolution**2)
    for first in range(0, len(times), frames):
        chunk = video[first : first + frames]
        for item in scene.objects:
            colour = 2.0 * np.asarray(OBJECT_COLOURS[item.colour], np.float32) - 1.0
            centers = item.centers(times[first : first + frames])
            mask = coverage(item.shape, centers, item.radius, resolution)
            # Rows of interleaved channels: NumPy is several times slower on an inner axis of 3.
            mask = np.repeat(mask, 3, axis=2)
            rows = chunk.reshape(mask.shape)
            rows += mask * (np.tile(colour, resolution) - rows)
    return video
