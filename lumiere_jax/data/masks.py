"""Which pixels of a clip a conditional model is shown: masks of the tasks that it is trained for.

A mask is true where a pixel is known (Lumiere, arXiv 2401.12945, section 4: the input ⟨J, C, M⟩).
Every generator is a pure function of the clip's shape and a random generator. How often each comes
is this project's choice, and a field of the config; the paper does not say.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool

from lumiere_jax.runtime.errors import UserError

Shape = tuple[int, int, int]
"""Frames, height and width."""
Mask = Bool[np.ndarray, "time height width"]

_LARGEST = 0.9  # share of a side that an unknown part takes at most
_SMALLEST = 0.25


def first_frame(shape: Shape, generator: np.random.Generator) -> Mask:
    """Frame 0 is known: image-to-video."""
    mask = np.zeros(shape, bool)
    mask[0] = True
    return mask


def beginning(shape: Shape, generator: np.random.Generator) -> Mask:
    """One to half of the frames are known: a video to extend."""
    mask = np.zeros(shape, bool)
    mask[: generator.integers(1, max(shape[0] // 2, 1) + 1)] = True
    return mask


def between(shape: Shape, generator: np.random.Generator) -> Mask:
    """The first and the last frame are known: temporal super-resolution between key frames."""
    mask = np.zeros(shape, bool)
    mask[[0, -1]] = True
    return mask


def boxes(shape: Shape, generator: np.random.Generator) -> Mask:
    """One to three unknown boxes in space, each over some of the frames, which drift."""
    mask = np.ones(shape, bool)
    for _ in range(generator.integers(1, 4)):
        first, last = np.sort(generator.integers(0, shape[0] + 1, 2))
        first, last = (0, shape[0]) if generator.random() < 0.5 or first == last else (first, last)
        (top, bottom), (left, right) = (_span(side, generator) for side in shape[1:])
        drift = generator.uniform(-0.3, 0.3, 2) * shape[1:] / max(shape[0] - 1, 1)
        for frame in range(first, last):
            y, x = np.rint(drift * (frame - first)).astype(int)
            rows = slice(max(top + y, 0), max(bottom + y, 0))
            mask[frame, rows, max(left + x, 0) : max(right + x, 0)] = False
    return mask


def brushes(shape: Shape, generator: np.random.Generator) -> Mask:
    """One to three unknown strokes of a round brush, the same in all frames."""
    _, height, width = shape
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y, x], axis=-1) + 0.5
    unknown = np.zeros((height, width), bool)
    for _ in range(generator.integers(1, 4)):
        radius = generator.uniform(0.05, 0.15) * min(height, width)
        point = generator.uniform(0, (height, width))
        angle = generator.uniform(0, 2 * np.pi)
        for _ in range(generator.integers(2, 7)):
            angle += generator.normal(0, 0.8)
            step = generator.uniform(0.1, 0.4) * min(height, width)
            end = point + step * np.array([np.sin(angle), np.cos(angle)])
            unknown |= _distance(pixels, point, end) <= max(radius, 0.75)
            point = np.clip(end, 0, (height, width))
    return np.broadcast_to(~unknown, shape).copy()


def outpainting(shape: Shape, generator: np.random.Generator) -> Mask:
    """Borders are unknown: left and right, above and below, or on one side."""
    _, height, width = shape
    before, after = generator.uniform(0, 0.35, 2) * generator.permutation([[1, 1], [1, 0]])[0]
    axis = generator.integers(2)
    side = (height, width)[axis]
    known = np.zeros(side, bool)
    known[round(before * side) : max(side - round(after * side), round(before * side) + 1)] = True
    known[0 if before < after else -1] = False
    return np.broadcast_to(known[:, None] if axis == 0 else known, shape).copy()


def cinemagraph(shape: Shape, generator: np.random.Generator) -> Mask:
    """Frame 0 is known, and after it everything outside of one region: a box or an ellipse."""
    _, height, width = shape
    (top, bottom), (left, right) = (_span(side, generator) for side in shape[1:])
    region = np.zeros((height, width), bool)
    region[top:bottom, left:right] = True
    if generator.random() < 0.5:
        y, x = np.mgrid[:height, :width] + 0.5
        radii = (bottom - top) / 2, (right - left) / 2
        centre = (bottom + top) / 2, (right + left) / 2
        region &= ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    mask = np.broadcast_to(~region, shape).copy()
    mask[0] = True
    return mask


def nothing(shape: Shape, generator: np.random.Generator) -> Mask:
    """Nothing is known: text-to-video."""
    return np.zeros(shape, bool)


GENERATORS: dict[str, Callable[[Shape, np.random.Generator], Mask]] = {
    function.__name__: function
    for function in (
        first_frame, beginning, between, boxes, brushes, outpainting, cinemagraph, nothing,
    )
}  # fmt: skip


class MaskMix:
    """Draws the task of a clip by weights, and then its mask."""

    def __init__(self, weights: Mapping[str, float]):
        """Takes `config.masks`: weights of some of `GENERATORS`; a `UserError` for any others."""
        if unknown := sorted(set(weights) - set(GENERATORS)):
            raise UserError(f"masks.{unknown[0]} is unknown; there are {', '.join(GENERATORS)}.")
        values = np.array(list(weights.values()), np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
            raise UserError(
                f"config.masks={dict(weights)} must be numbers of 0 or more, and not all 0."
            )
        self._names, self._shares = list(weights), values / values.sum()

    def __call__(self, shape: Shape, seed: int) -> Bool[np.ndarray, "time height width 1"]:
        """The mask of a clip; a pure function of its arguments."""
        generator = np.random.default_rng([seed, 2])
        name = self._names[generator.choice(len(self._names), p=self._shares)]
        return GENERATORS[name](shape, generator)[..., None]


def _span(side: int, generator: np.random.Generator) -> tuple[int, int]:
    """First and last pixel of a part of a side."""
    length = max(round(generator.uniform(_SMALLEST, _LARGEST) * side), 1)
    begin = int(generator.integers(0, side - length + 1))
    return begin, begin + length


def _distance(pixels: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each pixel [height, width, 2] to a line segment."""
    along = end - start
    position = np.clip((pixels - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(pixels - start - position[..., None] * along, axis=-1)
