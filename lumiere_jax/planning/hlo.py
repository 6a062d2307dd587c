"""Reads a compiled program: the compiler's cycles, work, collectives and loops."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from lumiere_jax.planning.flops import valid_taps

_COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute",
    "ragged-all-to-all", "reduce-scatter", "send",  # to another slice, or to the host
)  # fmt: skip
_BYTES = {"pred": 1, "bf16": 2, "token": 0}  # all others end in their number of bits
_ARRAY = re.compile(r"\b([a-z]+[a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
_ELSEWHERE = re.compile(r"S\([1-9]\d*\)")  # in a layout: not in HBM
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CANNOT_TELL = 2**62  # on tpu7x, the largest integer stands for that
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations|"
    r"true_computation|false_computation)=(?:\{([^}]*)\}|%?([\w.\-]+))"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str  # of its result
    opcode: str  # such as "fusion"
    operands: tuple[str, ...]  # their names
    attributes: str  # everything after the operands

    @functools.cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Names of the computations that it calls, by attribute."""
        return {
            kind: tuple(name.strip(" %") for name in (many or one).split(","))
            for kind, many, one in _CALLED.findall(self.attributes)
        }

    @functools.cached_property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where there is none."""
        match = _CYCLES.search(self.attributes)
        return 0 if match is None or int(match[1]) >= _CANNOT_TELL else int(match[1])

    @property
    def has_no_estimate(self) -> bool:
        """Whether the compiler says that it cannot tell."""
        match = _CYCLES.search(self.attributes)
        return match is not None and int(match[1]) >= _CANNOT_TELL


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Collective:
    """Something that devices exchange; one that is asynchronous has a beginning and an end."""

    kind: str  # such as "all-gather"
    bytes: int  # moved, on one device: the larger of what goes in and what comes out
    devices: str  # the attributes, which say between whom
    token: str  # the same at its beginning and at its end
    begins: bool = True
    ends: bool = True


class Run(NamedTuple):
    """An instruction that takes time of its own: what is fused is no run, the fusion is one."""

    line: Instruction
    place: str  # the computation that it stands in
    times: int  # how often it runs: the trips of all loops around it


class Program:
    """A compiled program, on one device: what runs how often, and what it costs.

    The text is optimized HLO, as `compiled.as_text()` returns it; a `ValueError` if it is not. The
    instructions of a computation stand in the order in which they run.
    """

    def __init__(self, text: str):
        self.computations, self.entry = parse(text)
        self._cycles: dict[str, int] = {}

    def siblings(self, run: Run) -> Computation:
        """The instructions of the computation that one stands in."""
        return self.computations[run.place]

    def runs(self) -> Iterator[Run]:
        """All of the program, bodies of loops with their trips; of branches the dearest one."""
        yield from self._runs(self.entry, 1)

    def _runs(self, place: str, times: int) -> Iterator[Run]:
        for line in self.computations[place].values():
            yield Run(line, place, times)
            for inner, trips in self.inside(line):
                yield from self._runs(inner, times * trips)

    def inside(self, line: Instruction) -> list[tuple[str, int]]:
        """The computations that run in an instruction, and how often; none for a fusion."""
        called = line.called
        if line.opcode == "while":
            return [(called["body"][0], self.trips(line) or 1)]
        if line.opcode == "conditional":
            branches = called.get("branch_computations") or (
                *called["true_computation"], *called["false_computation"]
            )  # fmt: skip
            return [(max(branches, key=self.cycles), 1)]
        if line.opcode in ("call", "async-start", "call-start"):
            return [(name, 1) for name in called.get("calls", called.get("to_apply", ()))]
        return []

    def cycles(self, place: str) -> int:
        """The compiler's estimate for a computation."""
        if place not in self._cycles:
            self._cycles[place] = sum(run.line.cycles * run.times for run in self._runs(place, 1))
        return self._cycles[place]

    def trips(self, line: Instruction) -> int | None:
        """How often a loop runs; None where that is not known."""
        return _trip_count(line, self.computations)

    def flops(self, run: Run) -> int:
        """Of convolutions and products, also fused ones; without zeros of padding and dilation."""
        lines = self.with_fused(run.line, run.place)
        return sum(_flops(line, self.computations[place]) for line, place in lines)

    def with_fused(self, line: Instruction, place: str) -> Iterator[tuple[Instruction, str]]:
        """An instruction, and everything that is fused into it, with where each stands."""
        yield line, place
        if line.opcode == "fusion":
            inner = line.called["calls"][0]
            for fused in self.computations[inner].values():
                yield from self.with_fused(fused, inner)

    def collective(self, run: Run) -> Collective | None:
        """What an instruction exchanges, if it begins or ends that, or does all of it."""
        line, kind = run.line, run.line.opcode.removesuffix("-start")
        siblings = self.siblings(run)
        if line.opcode == "fusion":
            return self._fused_collective(line, run.place)
        if line.opcode in ("async-start", "call-start"):
            for inner, _ in self.inside(line):
                for nested in self.computations[inner].values():
                    if nested.opcode in _COLLECTIVES:
                        found = self._moved(nested, inner)
                        return dataclasses.replace(found, token=line.name, ends=False)
        if line.opcode.endswith("-done") and line.operands[0] in siblings:
            begin = siblings[line.operands[0]]
            while begin.opcode == "async-update":
                begin = siblings[begin.operands[0]]
            if begin.opcode == "recv":  # a send begins what a receipt ends
                return Collective("send", 0, "", _rendezvous(begin), begins=False)
            return Collective("", 0, "", begin.name, begins=False)
        if kind not in _COLLECTIVES or run.place in self._asynchronous:
            return None
        found = self._moved(line, run.place)
        if line.opcode == "send":
            return dataclasses.replace(found, token=_rendezvous(line), ends=False)
        return dataclasses.replace(found, token=line.name, ends=kind == line.opcode)

    def _fused_collective(self, line: Instruction, place: str) -> Collective | None:
        """That in a fusion: it begins it, ends it, computes beside it, or is all of it."""
        for fused, inner in self.with_fused(line, place):
            if fused.opcode in _COLLECTIVES:
                found, name = self._moved(fused, inner), line.name
                if channel := _CHANNEL.search(fused.attributes):
                    found = dataclasses.replace(found, token=f"channel {channel[1]}")
                if name.startswith("async-collective-start"):
                    return dataclasses.replace(found, ends=False)
                if name.startswith("async-collective-done"):
                    return dataclasses.replace(found, begins=False)
                return None if "async_collective_fusion_config" in fused.attributes else found
        return None

    @functools.cached_property
    def _asynchronous(self) -> set[str]:
        """Computations whose collective the instruction that calls them stands for."""
        return {
            inner
            for lines in self.computations.values()
            for line in lines.values()
            if line.opcode in ("async-start", "call-start")
            for inner, _ in self.inside(line)
        }

    def _moved(self, line: Instruction, place: str) -> Collective:
        siblings, kind = self.computations[place], line.opcode.removesuffix("-start")
        taken = sum(num_bytes(siblings[name].type) for name in line.operands if name in siblings)
        made = num_bytes(line.type)
        if line.opcode in ("all-gather-start", "collective-permute-start", "send"):
            made -= taken  # the result of these repeats the operands
        if place.startswith("all-reduce-scatter"):  # how the TPU's compiler writes it
            kind = "reduce-scatter"
        return Collective(kind, max(taken, made), line.attributes, line.name)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind."""

    count: int = 0  # how often one runs
    bytes: int = 0  # moved, on one device

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.count + other.count, self.bytes + other.bytes)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What one run of a program costs on one device."""

    cycles: int  # the compiler's estimate for everything that computes
    flops: int  # of convolutions and matrix products, without zeros of padding and dilation
    collectives: dict[str, Traffic]  # by kind
    unknown_loops: tuple[str, ...]  # loops of unknown length, which count once
    unknown_cycles: tuple[str, ...]  # instructions of which the compiler says that it cannot tell


def summarize(program: Program) -> Summary:
    """Adds up a compiled program, loop bodies as often as they run."""
    cycles = flops = 0
    collectives: dict[str, Traffic] = {}
    loops, unknown = [], []
    for run in program.runs():
        line, times = run.line, run.times
        cycles += line.cycles * times
        flops += program.flops(run) * times
        found = program.collective(run)
        if found and found.begins:
            more = Traffic(times, found.bytes * times)
            collectives[found.kind] = collectives.get(found.kind, Traffic()) + more
        if line.opcode == "while" and program.trips(line) is None:
            loops.append(line.name)
        if line.has_no_estimate:
            unknown.append(line.name)
    return Summary(cycles, flops, dict(sorted(collectives.items())), tuple(loops), tuple(unknown))


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by name, and the name of the first to run."""
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" ") and " = " not in line.split("(")[0]:
            if header := re.match(r"(ENTRY )?%?([\w.\-]+) ?\(", line):
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = parse_instruction(line)
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation: it is no compiled program")
    return computations, entry


def parse_instruction(line: str) -> Instruction:
    """Takes one line apart: `%name = type opcode(operands), attributes`."""
    name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    operands = rest[opening + 1 : closing]
    names = re.findall(r"%([\w.\-]+)", operands) or re.findall(r"([\w.\-]+)(?:,|$)", operands)
    return Instruction(
        name.removeprefix("%"), type_, rest[:opening], tuple(names), rest[closing + 1 :]
    )


def num_bytes(type_: str, *, in_hbm: bool = False) -> int:
    """Bytes of a type, such as "(bf16[2,3]{1,0:T(8,128)}, u32[])", without padding.

    With `in_hbm` those of its arrays count that do not lie in a core's fast memory.
    """
    return sum(
        size for size, layout in _arrays(type_) if not (in_hbm and _ELSEWHERE.search(layout))
    )


def _arrays(type_: str) -> Iterator[tuple[int, str]]:
    """Of every array in a type: bytes and layout."""
    for dtype, shape, layout in _ARRAY.findall(type_):
        bits = re.search(r"(\d+)", dtype)
        size = _BYTES.get(dtype, int(bits[1]) / 8 if bits else 0)
        yield math.ceil(size * math.prod(int(n) for n in shape.split(",") if n)), layout


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at a position closes."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a parenthesis is never closed in {text[:200]!r}")


def _shape(type_: str) -> tuple[int, ...]:
    """Of the first array in a type."""
    return tuple(int(n) for n in _found(_ARRAY, type_)[2].split(",") if n)


def _found(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.search(text)
    if match is None:
        raise ValueError(f"no {pattern.pattern!r} in {text:.200}: it is no instruction of XLA")
    return match


def _flops(line: Instruction, siblings: Computation) -> int:
    """Operations of a convolution or a matrix product; 0 for everything else."""
    if line.opcode == "dot":
        shape = _shape(siblings[line.operands[0]].type)
        contracted = _found(_CONTRACTED, line.attributes)[1]
        sizes = [shape[int(axis)] for axis in contracted.split(",") if axis]
        return 2 * math.prod(_shape(line.type)) * math.prod(sizes)
    if line.opcode != "convolution":
        return 0
    names = _found(_LABELS, line.attributes).groups()
    types = (*(siblings[name].type for name in line.operands[:2]), line.type)
    left, right, out = (
        dict(zip(axes, _shape(type_), strict=True))
        for axes, type_ in zip(names, types, strict=True)
    )
    windows = zip(sorted(set(out) - {"b", "f"}), _windows(line.attributes), strict=False)
    taps = math.prod(valid_taps(left[axis], right[axis], out[axis], *w) for axis, w in windows)
    return 2 * out["b"] * out["f"] * right["i"] * taps


def _windows(attributes: str) -> Iterator[tuple[int, int, int, int]]:
    """Stride, padding before, and the two dilations of every spatial axis of a convolution."""
    match = re.search(r"\bwindow=\{([^}]*)\}", attributes)
    parts = [part.split("=") for part in match[1].split()] if match else []
    fields = {name: value.split("x") for name, value in parts}
    for axis in range(len(fields.get("size", ()))):
        stride, low, left, right = (
            fields[name][axis] if name in fields else default
            for name, default in (
                ("stride", "1"), ("pad", "0_0"), ("lhs_dilate", "1"), ("rhs_dilate", "1"),
            )
        )  # fmt: skip
        yield int(stride), int(low.split("_")[0]), int(left), int(right)


def _rendezvous(line: Instruction) -> str:
    """What a send to another slice has in common with the receipt of its answer."""
    found = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', line.attributes)
    return found[1] if found else line.name


def _trip_count(line: Instruction, computations: dict[str, Computation]) -> int | None:
    """How often a loop runs: as annotated, or by its condition `i < constant`, from 0 in ones."""
    if annotated := _TRIPS.search(line.attributes):
        return int(annotated[1])
    condition = computations[line.called["condition"][0]]
    compared = [x for x in condition.values() if x.opcode == "compare"]
    if len(compared) == 1 and "direction=LT" in compared[0].attributes:
        for name in compared[0].operands:
            if name in condition and condition[name].opcode == "constant":
                return int(condition[name].operands[0])
    return None
