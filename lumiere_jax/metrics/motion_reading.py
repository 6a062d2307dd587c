"""Reads the motion of an object from its track, and compares it with one of `data.motions`.

Two kinds of paths are fitted by least squares: one to three straight parts that join at free
turning points, and waves, which are a sine and a cosine of one free frequency on each axis. Of all
these, the Bayesian information criterion chooses, so that a turn or a frequency is seen only where
the track needs it.
"""

import dataclasses
import functools
import itertools

import numpy as np
from jaxtyping import Float

from lumiere_jax.data.motions import (
    CYCLES,
    MOTIONS,
    OPPOSITE,
    SIDES,
    TURNS,
    Bounce,
    Circle,
    Half,
    Phases,
    Swing,
)
from lumiere_jax.data.scene import DIRECTIONS

_LEAST_FRAMES = 5
_SPARE = 4  # numbers that a track has beyond those that are fitted, at least
_RESOLVED = 0.004  # of the frame's width: what no track is better than
_TOLERANCE = 0.06  # root mean square of a track from its path; more is no motion that has a name
_STILL = 0.2  # way of a single phase; true ones are 0.43 or longer
_STILL_PHASE = 0.07  # way of one of several; true ones are 0.12 or longer
_KNOTS = np.linspace(0.2, 0.8, 25)  # where turning points may be
_LEAST_PART = 0.2  # of the clip, between two of them
_FREQUENCIES = np.arange(0.8, 14.01, 0.05)  # cycles in a clip
_NYQUIST = 0.45  # cycles a frame, a little less than the theorem's
_SIZES = (4, 8, 12, 8)  # numbers that are fitted, turning points and frequencies as two each
_LEAST_AMPLITUDE = 0.05
_ROUND = 0.5  # shorter over longer half axis: above, a wave is a circle, below a swing
_AXIS = np.cos(np.radians(25.0))  # a swing may lean so much
_AGREEMENT = 0.3  # of the way that phases in some order go must lead where they say
_FREQUENCY_TOLERANCE = 0.15

Times = Float[np.ndarray, " frames"]
Centres = Float[np.ndarray, "frames 2"]


@dataclasses.dataclass(frozen=True, eq=False)
class SeenMotion:
    """What is seen of a motion; None, or nothing in a tuple, where it is of another kind."""

    directions: tuple[str, ...] = ()  # of the phases, in order; neighbours are different
    turns: tuple[float, ...] = ()  # when one phase ends and the next begins, in [0, 1]
    side: str | None = None  # the direction in which it meets the border, and comes back
    sense: str | None = None  # of a circle
    axis: str | None = None  # of a swing
    cycles: float | None = None  # of a circle or a swing, in the clip
    error: float = np.inf  # root mean square distance of the track from the fitted path
    points: tuple[Times, Centres] | None = None  # the fitted path, at times in [0, 1]


def read(times: Times, centres: Centres, half: Half, contact: float) -> SeenMotion:
    """Reads a track.

    Args:
      times: of the frames that show the object, in [0, 1] and increasing.
      centres: of the object, (x, y).
      half: half its width and height.
      contact: distance from the border, in frame widths, that still counts as touching it.
    """
    if len(times) < _LEAST_FRAMES or np.ptp(times) < 0.5:
        return SeenMotion()
    mean = centres.mean(axis=0)
    fits = [(*_best(basis, centres - mean), knots) for knots, basis in _polylines(tuple(times))]
    frequencies, bases = _waves(tuple(times))
    place, left = _best(bases, centres - mean)
    wave = _read_wave(times, centres, float(frequencies[place]))
    scores = [
        2 * len(times) * np.log(rest / (2 * len(times)) + _RESOLVED**2)
        + size * np.log(2 * len(times))
        for rest, size in zip([*(fit[1] for fit in fits), left], _SIZES, strict=True)
    ]
    known = np.array(_SIZES) + _SPARE <= 2 * len(times)
    allowed = known & [True, True, True, wave is not None]
    chosen = int(np.where(allowed, scores, np.inf).argmin())
    if chosen == 3 and wave is not None:
        return wave if wave.error <= _TOLERANCE else SeenMotion(error=wave.error)
    place, _, knots = fits[chosen]
    return _read_polyline(times, centres, knots[place], half, contact)


@functools.lru_cache(maxsize=32)
def _polylines(times: tuple[float, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Turning points `[paths, turns]` and orthonormal bases of the paths, by number of turns."""
    two = [pair for pair in itertools.combinations(_KNOTS, 2) if np.ptp(pair) > 0.99 * _LEAST_PART]
    every = [np.zeros((1, 0)), _KNOTS[:, None], np.array(two)]
    return [(knots, np.linalg.qr(_hinges(np.array(times), knots))[0]) for knots in every]


def _hinges(times: Times, knots: Float[np.ndarray, "*paths turns"]) -> np.ndarray:
    """Functions that all such paths are sums of: 1, t, and (t - turn) after each turn."""
    line = np.stack([np.ones_like(times), times], axis=-1)
    after = np.maximum(times[:, None] - knots[..., None, :], 0.0)
    return np.concatenate([np.broadcast_to(line, (*after.shape[:-1], 2)), after], axis=-1)


@functools.lru_cache(maxsize=32)
def _waves(times: tuple[float, ...]) -> tuple[Times, np.ndarray]:
    """Frequencies below Nyquist's, of those that are looked for, and orthonormal bases of each."""
    most = max(_NYQUIST / float(np.median(np.diff(times))), _FREQUENCIES[0])
    frequencies = _FREQUENCIES[_FREQUENCIES <= most]
    return frequencies, np.linalg.qr(_harmonics(np.array(times), frequencies))[0]


def _harmonics(times: Times, frequencies: Float[np.ndarray, " waves"]) -> np.ndarray:
    angle = 2.0 * np.pi * frequencies[:, None] * times
    return np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=-1)


def _best(bases: Float[np.ndarray, "paths frames size"], centres: Centres) -> tuple[int, float]:
    """The basis that leaves the least of the centres, and how much that is."""
    parts = np.einsum("pfs,fc->psc", bases, centres)
    left = (centres**2).sum() - (parts**2).sum(axis=(1, 2))
    place = int(left.argmin())
    return place, max(float(left[place]), 0.0)


def _read_wave(times: Times, centres: Centres, frequency: float) -> SeenMotion | None:
    """What a wave about that frequency is; None where it is hardly a motion."""
    step = _FREQUENCIES[1] - _FREQUENCIES[0]
    near = frequency + step * np.linspace(-1.0, 1.0, 21)
    frequency = float(near[_best(np.linalg.qr(_harmonics(times, near))[0], centres)[0]])
    basis = _harmonics(times, np.array([frequency]))[0]
    weights = np.linalg.lstsq(basis, centres, rcond=None)[0]
    # Columns: where the cosine and the sine point to, (x, y).
    axes, amplitudes, _ = np.linalg.svd(weights[1:].T)
    if amplitudes[0] < _LEAST_AMPLITUDE:
        return None
    sense = axis = None
    if amplitudes[1] >= _ROUND * amplitudes[0]:
        # From cosine to sine by the shorter way; y points down.
        turning = weights[1, 0] * weights[2, 1] - weights[1, 1] * weights[2, 0]
        sense = "clockwise" if turning > 0 else "counterclockwise"
    else:
        lean = np.abs(axes[:, 0])
        names = [name for name, part in zip(_AXES, lean, strict=True) if part >= _AXIS]
        axis = names[0] if names else None
    grid = np.linspace(0.0, 1.0, 161)
    fitted = _harmonics(grid, np.array([frequency]))[0] @ weights
    return SeenMotion(
        sense=sense, axis=axis, cycles=frequency, error=_distance(centres, basis @ weights),
        points=(grid, fitted),
    )  # fmt: skip


_AXES = ("left and right", "up and down")


def _read_polyline(
    times: Times, centres: Centres, knots: Float[np.ndarray, " turns"], half: Half, contact: float
) -> SeenMotion:
    weights = np.linalg.lstsq(_hinges(times, knots), centres, rcond=None)[0]
    error = _distance(centres, _hinges(times, knots) @ weights)
    if error > _TOLERANCE:
        return SeenMotion(error=error)
    ends = np.array([0.0, *knots, 1.0])
    points = _hinges(ends, knots) @ weights
    least = _STILL if not len(knots) else _STILL_PHASE
    names = [_direction(step, least) for step in np.diff(points, axis=0)]
    kept = [n for n in range(len(names)) if n == 0 or names[n] != names[n - 1]]
    directions, turns = tuple(names[n] for n in kept), tuple(float(ends[n]) for n in kept[1:])
    side = None
    if len(directions) == 2 and directions[0] in SIDES and directions[1] == OPPOSITE[directions[0]]:
        unit = np.array(DIRECTIONS[directions[0]])
        edge = points[kept[1]] @ unit + np.abs(unit) @ half
        border = max(float(unit.sum()), 0.0)
        side = directions[0] if border - edge <= contact else None
    return SeenMotion(directions, turns, side, error=error, points=(ends, points))


def _direction(step: Float[np.ndarray, " 2"], least: float) -> str:
    if np.linalg.norm(step) < least:
        return "still"
    return max(DIRECTIONS, key=lambda name: float(step @ np.asarray(DIRECTIONS[name])))


def _distance(centres: Centres, fitted: Centres) -> float:
    return float(np.sqrt(((centres - fitted) ** 2).sum(axis=1).mean()))


def has_direction(name: str, seen: SeenMotion) -> bool:
    """Whether every phase, or the side, the sense, the axis is that of a motion of `MOTIONS`."""
    match MOTIONS[name]:
        case Phases(directions):
            return seen.directions == directions
        case Bounce(direction):
            return seen.side == direction
        case Circle(sense, _):
            return seen.sense == sense
        case Swing(axis, _):
            return seen.axis == axis


def has_order(name: str, times: Times, centres: Centres) -> bool | None:
    """Whether the phases of a motion are in their order: more so than in any other, and at all.

    A phase is seen as the way in its part of the clip. None where a motion has only one.
    """
    motion = MOTIONS[name]
    if not isinstance(motion, Phases) or len(motion.directions) == 1:
        return None
    if len(times) < _LEAST_FRAMES:
        return False
    ends = np.linspace(0.0, 1.0, len(motion.directions) + 1)
    weights = np.linalg.lstsq(_hinges(times, ends[1:-1]), centres, rcond=None)[0]
    steps = np.diff(_hinges(ends, ends[1:-1]) @ weights, axis=0)
    agreement = {
        order: float((steps * [DIRECTIONS[name] for name in order]).sum())
        for order in itertools.permutations(motion.directions)
    }
    right = agreement.pop(motion.directions)
    least = float(_AGREEMENT * np.linalg.norm(steps, axis=1).sum())
    return right > least and all(right > other + 1e-6 for other in agreement.values())


def stated_cycles(name: str) -> float | None:
    """How often in a clip a motion of `MOTIONS` comes back; None where it says nothing of it."""
    match MOTIONS[name]:
        case Circle(_, turns):
            return TURNS[turns]
        case Swing(_, speed):
            return CYCLES[speed]
    return None


def frequency_error(name: str, seen: SeenMotion) -> float | None:
    """The seen frequency over the stated one, less 1; None where none is stated, NaN if unseen."""
    stated = stated_cycles(name)
    if stated is None:
        return None
    return float("nan") if seen.cycles is None else seen.cycles / stated - 1.0


def has_frequency(name: str, seen: SeenMotion) -> bool | None:
    """Whether the frequency is within 15% of the stated one; None where none is stated."""
    error = frequency_error(name, seen)
    return None if error is None else bool(abs(error) <= _FREQUENCY_TOLERANCE)
