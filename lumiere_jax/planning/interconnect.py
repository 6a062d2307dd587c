"""The time of collectives, by a simple model of a slice's links.

Chips of a slice are neighbours along the axes of a torus, with one link in each direction
(`Chip.link`, bytes/s each way). An axis closes to a ring if it is a whole side of the pod, 16 chips
on v5e and v6e, or if the slice is made of whole cubes of 4×4×4 on the others; else it is a line
("How to Scale Your Model", jax-ml.github.io/scaling-book, part 2). For a group of m chips that
fills a box, with B the sum over its axes of two links for a ring and one for a line, V bytes of the
whole array, and k chips along an axis:

- all-gather and reduce-scatter take V (m - 1)/m / B, the array in as many parts as there are axes;
- all-reduce takes twice that, as one after the other;
- all-to-all, V on each device, takes V floor(k²/4)/k / (links of the axis), for the slowest axis;
- collective-permute takes V times the pairs that the busiest link carries, by the shortest ways.

A group that fills no box is a ring over its chips in their order, whose ways may share links.
Nothing is faster than 1 µs for each hop. Devices of a chip (v4, tpu7x) share its links, and what
they give each other takes no time. Between slices, every chip has `Chip.dcn` bytes/s, and a sum
over s slices moves 2 (s - 1)/s times its bytes.

The model knows no other traffic, no protocol and no start-up, so its times are bounds from below.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lumiere_jax.planning.hlo import Collective
from lumiere_jax.planning.topology import Chip

HOP = 1e-6
"""Seconds from a chip to its neighbour at least (How to Scale Your Model, part 3)."""

Place = tuple[int, ...]
"""The coordinates of a chip in its slice."""

_CUBE, _POD = 4, 16


@dataclasses.dataclass(frozen=True)
class Interconnect:
    """The links of a slice, with a chip's place for each device of a program.

    Each slice has a program of its own, which sends to the others.
    """

    chip: Chip
    places: tuple[Place, ...]  # by the number of a device in the program's mesh
    slices: int = 1

    @classmethod
    def of(cls, chip: Chip, devices: Iterable[Any]) -> "Interconnect":
        """Those between the devices of a mesh, in its order."""
        by_slice: dict[int, list[Place]] = {}
        for device in devices:
            number = getattr(device, "slice_index", 0)
            by_slice.setdefault(number, []).append(tuple(device.coords))
        first, *others = by_slice.values()
        return cls(chip, tuple(first), 1 + len(others))

    @functools.cached_property
    def sides(self) -> tuple[int, ...]:
        """Chips along each axis."""
        return tuple(len(set(column)) for column in zip(*self.places, strict=True))

    @functools.cached_property
    def sharing(self) -> float:
        """Devices of a chip, which share its links."""
        return len(self.places) / len(set(self.places))

    def is_ring(self, axis: int) -> bool:
        """Whether an axis of the slice closes."""
        if self.chip.sides == 2:
            return self.sides[axis] == _POD
        return all(side % _CUBE == 0 for side in self.sides)

    def seconds(self, collective: Collective) -> float:
        """Time of one collective if nothing else uses the links."""
        kind, size, attributes = collective.kind, collective.bytes, collective.devices
        if kind == "send":
            factor = 2 * (1 - 1 / self.slices) if '"ALL_REDUCE"' in attributes else 1
            return size * factor * self.sharing / self.chip.dcn
        if kind == "collective-permute":
            return self._permute(_pairs(attributes), size)
        groups = replica_groups(attributes, len(self.places))
        chips = list(dict.fromkeys(self.places[device] for device in groups[0]))
        cores = len(groups[0]) / len(chips)
        if "all-to-all" in kind:
            return self._all_to_all(chips, size * cores, self.sharing / cores, groups)
        times = 2 if kind == "all-reduce" else 1
        return times * self._gather(chips, size, self.sharing / cores, groups)

    def _gather(
        self, chips: list[Place], size: float, sharing: float, groups: Sequence[Sequence[int]]
    ) -> float:
        count = len(chips)
        if count == 1:
            return 0.0
        share = size * (count - 1) / count
        box = self._box(chips)
        if box is None:  # half of it goes around each way
            ring = [(a, b) for group in groups for a, b in _ring([self.places[d] for d in group])]
            load = self._load([*ring, *((b, a) for a, b in ring)])
            return max(share / 2 * load / self.chip.link, HOP * (count - 1))
        lanes = sum(links for _, links in box)
        hops = sum((k - 1) / links for k, links in box)
        return max(share * sharing / (lanes * self.chip.link), HOP * hops)

    def _all_to_all(
        self, chips: list[Place], size: float, sharing: float, groups: Sequence[Sequence[int]]
    ) -> float:
        count = len(chips)
        if count == 1:
            return 0.0
        box = self._box(chips)
        if box is None:
            pairs = [
                pair
                for group in groups
                for pair in itertools.permutations([self.places[d] for d in group], 2)
            ]
            return max(size / count * self._load(pairs) / self.chip.link, HOP * (count - 1))
        crossing = max(k**2 // 4 / k / links for k, links in box)
        hops = sum(k - 1 if links == 1 else k // 2 for k, links in box)
        return max(size * crossing * sharing / self.chip.link, HOP * hops)

    def _permute(self, pairs: Sequence[tuple[int, int]], size: int) -> float:
        ways = [(self.places[a], self.places[b]) for a, b in pairs]
        hops = max((len(self._way(a, b)) for a, b in ways), default=0)
        return max(size * self._load(ways) / self.chip.link, HOP * hops)

    def _box(self, chips: list[Place]) -> list[tuple[int, int]] | None:
        """Chips along each axis of a box, with its links; None if they fill no box."""
        box = []
        for axis, column in enumerate(zip(*chips, strict=True)):
            k = len(set(column))
            if max(column) - min(column) + 1 != k:
                return None
            if k > 1:
                closed = k == self.sides[axis] and k > 2 and self.is_ring(axis)
                box.append((k, 2 if closed else 1))
        return box if math.prod(k for k, _ in box) == len(chips) else None

    def _load(self, pairs: Iterable[tuple[Place, Place]]) -> int:
        """How many of the pairs the busiest link carries."""
        used = Counter(link for a, b in pairs for link in self._way(a, b))
        return max(used.values(), default=0)

    def _way(self, a: Place, b: Place) -> list[tuple[Place, int, int]]:
        """The links from a chip to another of its slice, axis after axis, the shorter way round."""
        here, links = list(a), []
        for axis, side in enumerate(self.sides):
            distance = b[axis] - here[axis]
            if self.is_ring(axis) and abs(distance) > side / 2:
                distance -= int(math.copysign(side, distance))
            step = 1 if distance > 0 else -1
            for _ in range(abs(distance)):
                links.append((tuple(here), axis, step))
                here[axis] = (here[axis] + step) % side  # no line is left at its end
        return links


def _ring(places: Sequence[Place]) -> Iterable[tuple[Place, Place]]:
    return zip(places, [*places[1:], places[0]], strict=True)


def replica_groups(attributes: str, devices: int) -> list[list[int]]:
    """Who takes part together, by number of device, in any of the ways that XLA writes it."""
    if match := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)+)\}", attributes):
        return [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", match[1])]
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=(\S*?)(?:, |$)", attributes):
        return _iota(match[2]).reshape(_numbers(match[1])).tolist()
    if match := _MESH.search(attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        order = _iota(match[2]) if match[2] else np.arange(math.prod(sizes.values()))
        return _along(order.reshape(tuple(sizes.values())), list(sizes), match[3])
    return [list(range(devices))]


_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")


def _along(mesh: np.ndarray, names: list[str], axes: str) -> list[list[int]]:
    """The groups along some axes of a mesh, or along parts of axes, such as 'x':(2)4."""
    wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)
    shape: list[int] = []
    grouped: dict[tuple[str, str], int] = {}
    for name, side in zip(names, mesh.shape, strict=True):
        parts = sorted((int(pre), int(size)) for n, pre, size in wanted if n == name and pre)
        at = 1  # the product of the sizes before
        for pre, size in parts:
            shape += [pre // at, size]
            grouped[name, str(pre)] = len(shape) - 1
            at = pre * size
        shape.append(side // at)
        if not parts:
            grouped[name, ""] = len(shape) - 1
    moved = [grouped[name, pre] for name, pre, _ in wanted]
    rest = [axis for axis in range(len(shape)) if axis not in moved]
    whole = mesh.reshape(shape).transpose(rest + moved)
    return whole.reshape(-1, math.prod(shape[axis] for axis in moved)).tolist()


def _iota(text: str) -> np.ndarray:
    """Numbers from 0 on, "[4,2]" or turned "[4,2]T(1,0)"; or those of a list "3,1"."""
    match = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if match is None:
        return np.array(_numbers(text))
    shape = _numbers(match[1])
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return (numbers.transpose(_numbers(match[2])) if match[2] else numbers).reshape(-1)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.replace(" ", "").split(",") if number]


def _pairs(attributes: str) -> list[tuple[int, int]]:
    match = re.search(r"source_target_pairs=\{((?:\{[\d,]*\},?)*)\}", attributes)
    found = re.findall(r"\{(\d+),(\d+)\}", match[1]) if match else []
    return [(int(a), int(b)) for a, b in found]
