"""Reads a compiled program: the compiler's cycles, work, collectives and loops."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from lumiere_jax.planning.flops import valid_taps

_COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute",
    "ragged-all-to-all", "reduce-scatter", "send",  # to another slice, or to the host
)  # fmt: skip
_BYTES = {"pred": 1, "bf16": 2, "token": 0}  # all others end in their number of bits
_ARRAY = re.compile(r"\b([a-z]+[a-z0-9]*)\[([0-9,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(?:\{([^}]*)\}|%?([\w.\-]+))"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str  # of its result
    opcode: str  # such as "fusion"
    operands: tuple[str, ...]  # their names
    attributes: str  # everything after the operands

    @property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Names of the computations that it calls, by attribute."""
        return {
            kind: tuple(name.strip(" %") for name in (many or one).split(","))
            for kind, many, one in _CALLED.findall(self.attributes)
        }

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where there is none."""
        match = _CYCLES.search(self.attributes)
        return int(match[1]) if match else 0


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind."""

    count: int = 0  # how often one runs
    bytes: int = 0  # moved, on one device: the larger of what goes in and what comes out

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.count + other.count, self.bytes + other.bytes)

    def __mul__(self, times: int) -> "Traffic":
        return Traffic(self.count * times, self.bytes * times)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What one run of a program costs on one device."""

    cycles: int = 0  # the compiler's estimate for everything that computes
    flops: int = 0  # of convolutions and matrix products, without zeros of padding and dilation
    collectives: dict[str, Traffic] = dataclasses.field(default_factory=dict)  # by kind
    unknown_loops: tuple[str, ...] = ()  # loops of unknown length, which count once

    def __add__(self, other: "Summary") -> "Summary":
        kinds = sorted({*self.collectives, *other.collectives})
        none = Traffic()
        return Summary(
            self.cycles + other.cycles,
            self.flops + other.flops,
            {k: self.collectives.get(k, none) + other.collectives.get(k, none) for k in kinds},
            self.unknown_loops + other.unknown_loops,
        )

    def __mul__(self, times: int) -> "Summary":
        return Summary(
            self.cycles * times,
            self.flops * times,
            {kind: traffic * times for kind, traffic in self.collectives.items()},
            self.unknown_loops,
        )


def summarize(text: str) -> Summary:
    """Adds up a compiled program, loop bodies as often as they run.

    The text is the optimized HLO of one device, as `compiled.as_text()` returns it; a `ValueError`
    if it is not.
    """
    computations, entry = parse(text)

    @functools.cache
    def of_computation(name: str, inside_fusion: bool) -> Summary:
        lines = computations[name]
        parts = (of_instruction(line, name, inside_fusion) for line in lines.values())
        return sum(parts, Summary())

    def of_instruction(line: Instruction, place: str, inside_fusion: bool) -> Summary:
        siblings, called = computations[place], line.called
        cycles = 0 if inside_fusion else line.cycles
        cost = Summary(cycles, _flops(line, siblings), _traffic(line, place, siblings))
        if line.opcode == "while":
            trips = _trip_count(line, computations)
            unknown = Summary(unknown_loops=() if trips is not None else (line.name,))
            return cost + unknown + of_computation(called["body"][0], inside_fusion) * (trips or 1)
        if line.opcode == "conditional":  # the most expensive branch
            branches = [of_computation(n, inside_fusion) for n in called["branch_computations"]]
            return cost + max(branches, key=lambda branch: branch.cycles)
        if line.opcode == "fusion":  # its own estimate covers what is inside
            return cost + of_computation(called["calls"][0], True)
        if line.opcode in ("call", "async-start"):
            inner = called.get("calls", called.get("to_apply", ()))
            return sum((of_computation(name, inside_fusion) for name in inner), cost)
        return cost

    return of_computation(entry, False)


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


def num_bytes(type_: str) -> int:
    """Bytes of a type, such as "(bf16[2,3]{1,0:T(8,128)}, u32[])", without padding."""
    return sum(size for _, size in _arrays(type_))


def _arrays(type_: str) -> Iterator[tuple[str, int]]:
    """Of every array in a type: name of its elements, and bytes."""
    for dtype, shape in _ARRAY.findall(type_):
        bits = re.search(r"(\d+)", dtype)
        size = _BYTES.get(dtype, int(bits[1]) / 8 if bits else 0)
        yield dtype, math.ceil(size * math.prod(int(n) for n in shape.split(",") if n))


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at a position closes."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a parenthesis is never closed in {text[:200]!r}")


def _traffic(line: Instruction, place: str, siblings: Computation) -> dict[str, Traffic]:
    """The collective that an instruction starts, if it is one."""
    kind = line.opcode.removesuffix("-start")
    if kind not in _COLLECTIVES:
        return {}
    taken = sum(num_bytes(siblings[name].type) for name in line.operands if name in siblings)
    made = num_bytes(line.type)
    if line.opcode in ("all-gather-start", "collective-permute-start", "send"):
        made -= taken  # the result of these repeats the operands
    if place.startswith("all-reduce-scatter"):  # how the TPU's compiler writes it
        kind = "reduce-scatter"
    return {kind: Traffic(1, max(taken, made))}


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
