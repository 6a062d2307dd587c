"""Motions for clips of five seconds: straight lines, phases, bounces, circles and swings.

Shared by `moving_shapes` and `moving_digits` where `data.motions` is "long". As in `scene`, lengths
are fractions of the frame's width, x points right and y down, and time runs from 0 to 1; here that
means 5 s, so that a frequency in cycles a clip is five times that in Hz. Five key frames a clip,
one each second, can tell up to 0.5 Hz: slow swings are below that, quick ones above.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from lumiere_jax.data.scene import DIRECTIONS, PATH_LENGTH

Times = Float[np.ndarray, " time"]
Centres = Float[np.ndarray, "time 2"]

SECONDS = 5.0  # of a clip, which time from 0 to 1 stands for
CYCLES = {"slowly": 2.0, "quickly": 6.0}  # of a swing, in a clip: 0.4 and 1.2 Hz
TURNS = {"once": 1.0, "twice": 2.0}  # of a circle, in a clip
OPPOSITE = {
    name: other
    for name, step in DIRECTIONS.items()
    for other, back in DIRECTIONS.items()
    if np.allclose(step, np.negative(back))
}
SIDES = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
"""Which side of the frame is met on the way in a direction."""

_SPREAD = 0.05  # of a frequency, on either side
_STRAIGHT_MARGIN = 0.02  # of the frame's width, between object and border
_TURN_MARGIN = 0.05  # the same where the object turns without touching the border
_STEP = (0.4, 0.45)  # of one of several phases, where there is room
_UNEVEN = 0.04  # how much earlier or later a phase ends than equal parts would
_BOUNCE_WAY = (0.3, 0.5)  # from the border to the end that is further from it
_RADIUS = (0.17, 0.28)  # of a circle
_AMPLITUDE = (0.15, 0.24)  # of a swing: at 32 pixels, it goes 10 pixels or more to and fro


@dataclasses.dataclass(frozen=True)
class Polyline:
    """A path from point to point, at constant speed between two of them."""

    times: tuple[float, ...]  # from 0 to 1
    points: tuple[tuple[float, float], ...]  # of the centre (x, y)

    def __call__(self, times: Times) -> Centres:
        """The centres at `times`."""
        x, y = np.asarray(self.points).T
        return np.stack([np.interp(times, self.times, x), np.interp(times, self.times, y)], axis=-1)


@dataclasses.dataclass(frozen=True)
class Wave:
    """A circle, or its shadow on one axis, which is a sine."""

    middle: tuple[float, float]
    reach: tuple[float, float]  # (r, r) circles clockwise on the screen, (r, -r) counterclockwise
    cycles: float  # in the clip
    begin: float  # part of a cycle that is over at time 0

    def __call__(self, times: Times) -> Centres:
        """The centres at `times`."""
        angle = 2.0 * np.pi * (self.cycles * np.asarray(times) + self.begin)
        return np.asarray(self.middle) + np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (
            self.reach
        )


Path = Polyline | Wave
Half = tuple[float, float]
"""Half the width and height of an object, which is to stay inside the frame as a whole."""


def _inside(half: Half, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a centre may be: the least and the greatest (x, y)."""
    low = np.asarray(half) + margin
    return low, 1.0 - low


def _way(steps: np.ndarray) -> np.ndarray:
    """Where steps lead to from (0, 0), which is the first of its points."""
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _polyline(
    times: tuple[float, ...], steps: np.ndarray, half: Half, margin: float, rng: np.random.Generator
) -> Polyline:
    """A path of these steps, begun where all of it is inside."""
    way = _way(steps)
    low, high = _inside(half, margin)
    start = rng.uniform(low - way.min(axis=0), high - way.max(axis=0))
    return Polyline(times, tuple((x, y) for x, y in (start + way).tolist()))


def _wave(reach: np.ndarray, cycles: float, half: Half, rng: np.random.Generator) -> Wave:
    low, high = _inside(half, _STRAIGHT_MARGIN)
    x, y = rng.uniform(low + np.abs(reach), high - np.abs(reach)).tolist()
    cycles *= rng.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)
    return Wave((x, y), (float(reach[0]), float(reach[1])), cycles, rng.uniform())


def _room(half: Half, axes: np.ndarray) -> float:
    """The largest amplitude along the axes that are not 0."""
    low, high = _inside(half, _STRAIGHT_MARGIN)
    return float(((high - low) / 2)[axes != 0].min())


@dataclasses.dataclass(frozen=True)
class Phases:
    """One to three phases, neighbours different, each straight or still; one fills the clip."""

    directions: tuple[str, ...]  # keys of `DIRECTIONS`

    @property
    def name(self) -> str:
        """As in `MOTIONS`; one phase has the name of its direction."""
        return " then ".join(self.directions)

    @property
    def wordings(self) -> tuple[str, ...]:
        """What captions say, the shortest first."""
        if len(self.directions) == 1:
            return _STRAIGHT[self.directions[0]]
        joiners = (" then ", " and then ")[: 4 - len(self.directions)]  # captions have an end
        return tuple(self._say(verb, joiner) for joiner in joiners for verb in ("moving", "going"))

    def _say(self, verb: str, joiner: str) -> str:
        said, moved = [], False
        for direction in self.directions:
            adverb = _ADVERBS[direction]
            said.append(adverb if moved or direction == "still" else f"{verb} {adverb}")
            moved = direction != "still"
        return joiner.join(said)

    def draw(self, half: Half, rng: np.random.Generator) -> Path:
        """A path: of one phase as in the straight world, of several as long as there is room."""
        count = len(self.directions)
        margin = _STRAIGHT_MARGIN if count == 1 else _TURN_MARGIN
        turns = np.arange(1, count) / count + rng.uniform(-_UNEVEN, _UNEVEN, count - 1)
        lengths = rng.uniform(*(PATH_LENGTH if count == 1 else _STEP), count)
        steps = lengths[:, None] * [DIRECTIONS[direction] for direction in self.directions]
        low, high = _inside(half, margin)
        room = (high - low) / np.maximum(np.ptp(_way(steps), axis=0), 1e-9)
        steps *= min(1.0, room.min() * rng.uniform(0.85, 1.0))
        return _polyline((0.0, *turns.tolist(), 1.0), steps, half, margin, rng)


@dataclasses.dataclass(frozen=True)
class Bounce:
    """To one side of the frame until the object touches it, and back, at constant speed."""

    direction: str  # on the way there: a key of `SIDES`

    @property
    def name(self) -> str:
        """As in `MOTIONS`."""
        return f"bounce {self.direction}"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What captions say, the shortest first."""
        side = SIDES[self.direction]
        return tuple(
            f"{said} the {side} {border}"
            for said in ("bouncing off", "bouncing back from")
            for border in ("side", "edge")
        )

    def draw(self, half: Half, rng: np.random.Generator) -> Path:
        """A path that touches the border in the middle of the clip, or nearly so."""
        unit = np.array(DIRECTIONS[self.direction])
        axis = int(np.abs(unit).argmax())
        low, high = _inside(half, _STRAIGHT_MARGIN)
        contact = rng.uniform(low, high)
        contact[axis] = half[axis] if unit[axis] < 0 else 1.0 - half[axis]
        time = rng.uniform(0.5 - _UNEVEN, 0.5 + _UNEVEN)
        room = min(_BOUNCE_WAY[1], float(high[axis]) - half[axis])
        speed = rng.uniform(_BOUNCE_WAY[0], room) / max(time, 1.0 - time)
        points = np.stack(
            [contact - unit * speed * time, contact, contact - unit * speed * (1 - time)]
        )
        return Polyline((0.0, time, 1.0), tuple((x, y) for x, y in points.tolist()))


@dataclasses.dataclass(frozen=True)
class Circle:
    """Round and round, from anywhere on the circle."""

    sense: str  # "clockwise" or "counterclockwise", as seen on the screen
    turns: str  # a key of `TURNS`

    @property
    def name(self) -> str:
        """As in `MOTIONS`."""
        return f"circle {self.sense} {self.turns}"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What captions say, the shortest first."""
        verbs = ("circling", "going around", "moving in a circle")
        return tuple(f"{verb} {self.sense} {self.turns}" for verb in verbs)

    def draw(self, half: Half, rng: np.random.Generator) -> Path:
        """A circle; its frequency is within 5% of what is said."""
        signs = np.array([1.0, 1.0 if self.sense == "clockwise" else -1.0])
        radius = rng.uniform(_RADIUS[0], min(_RADIUS[1], _room(half, signs)))
        return _wave(signs * radius, TURNS[self.turns], half, rng)


@dataclasses.dataclass(frozen=True)
class Swing:
    """A sine along one axis."""

    axis: str  # "left and right" or "up and down"
    speed: str  # a key of `CYCLES`

    @property
    def name(self) -> str:
        """As in `MOTIONS`."""
        return f"swing {self.axis} {self.speed}"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What captions say, the shortest first."""
        return (
            f"swinging {self.axis} {self.speed}",
            f"{self.speed} swinging {self.axis}",
            f"swaying {self.axis} {self.speed}",
        )

    def draw(self, half: Half, rng: np.random.Generator) -> Path:
        """A sine; its frequency is within 5% of what is said."""
        axes = np.array([1.0, 0.0] if self.axis == "left and right" else [0.0, 1.0])
        amplitude = rng.uniform(_AMPLITUDE[0], min(_AMPLITUDE[1], _room(half, axes)))
        return _wave(axes * amplitude, CYCLES[self.speed], half, rng)


Motion = Phases | Bounce | Circle | Swing

_STRAIGHT = {
    "still": ("standing still", "not moving"),
    "left": ("moving left", "going left", "moving to the left"),
    "right": ("moving right", "going right", "moving to the right"),
    "up": ("moving up", "going up"),
    "down": ("moving down", "going down"),
    "upper left": ("going up and left", "moving to the upper left"),
    "upper right": ("going up and right", "moving to the upper right"),
    "lower left": ("going down and left", "moving to the lower left"),
    "lower right": ("going down and right", "moving to the lower right"),
}
_ADVERBS = {
    "still": "standing still",
    **{name: name for name in SIDES},
    "upper left": "up and left",
    "upper right": "up and right",
    "lower left": "down and left",
    "lower right": "down and right",
}


def _sequences(count: int) -> list[Phases]:
    return [
        Phases(directions)
        for directions in itertools.product(DIRECTIONS, repeat=count)
        if all(a != b for a, b in itertools.pairwise(directions))
    ]


KINDS: Mapping[str, tuple[float, list[Motion]]] = {
    "straight": (0.15, [*_sequences(1)]),
    "two phases": (0.25, [*_sequences(2)]),
    "three phases": (0.15, [*_sequences(3)]),
    "bounce": (0.10, [Bounce(direction) for direction in SIDES]),
    "circle": (
        0.10,
        [Circle(s, t) for s in ("clockwise", "counterclockwise") for t in TURNS],
    ),
    "swing": (0.25, [Swing(a, s) for a in ("left and right", "up and down") for s in CYCLES]),
}
"""Share of the objects that move so, and the motions, all equally often."""
MOTIONS: Mapping[str, Motion] = {
    motion.name: motion for _, motions in KINDS.values() for motion in motions
}
WORDINGS: Mapping[str, tuple[str, ...]] = {
    name: motion.wordings for name, motion in MOTIONS.items()
}
"""What captions say of each motion, the shortest first."""


def draw_motion(rng: np.random.Generator) -> Motion:
    """Draws a motion with the shares of `KINDS`."""
    shares = [share for share, _ in KINDS.values()]
    motions = [*KINDS.values()][int(rng.choice(len(shares), p=shares))][1]
    return motions[int(rng.integers(len(motions)))]


def shortest(name: str) -> int:
    """Words of the shortest wording of a motion."""
    return len(WORDINGS[name][0].split())


def clearance(paths: tuple[Path, ...]) -> float:
    """The least distance between two objects' centres over the clip, in frame widths."""
    times = np.linspace(0.0, 1.0, 41)
    first, second = (path(times) for path in paths)
    return float(np.linalg.norm(first - second, axis=-1).min())
