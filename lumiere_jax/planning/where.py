"""Where the cycles of a compiled program go: by kind of work, and by module.

Cycles, and thus times, are the compiler's estimates for each fusion, loops with their trips.
Floating-point operations are counted as everywhere here. Bytes are those of operands and results,
of an array that is read or written in part only the part; those of HBM are of arrays that do not
lie in the fast memory of a core. What is fetched ahead of its use, beside other work, costs no
cycles, and is not in the table.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator

from lumiere_jax.planning.hlo import Computation, Instruction, Program, Run, num_bytes

OTHERS = "all others"
OUTSIDE = "outside of the network"
MODULES = 40
"""Modules that are told one by one, the largest first."""

_DEPTH = 2  # of a module's path, below the network
_BOUND = 0.5  # of a run's time, from which on it waits for HBM

_PLAIN = {
    "bitcast", "bitcast-convert", "constant", "get-tuple-element", "parameter", "reshape", "tuple",
}  # fmt: skip
_COPIES = {"copy", "transpose"}
_SLICES = {
    "concatenate", "dynamic-slice", "dynamic-update-slice", "pad", "reverse", "slice",
}  # fmt: skip
_PARTS = {"dynamic-slice", "dynamic-update-slice", "slice"}
_BROADCASTS = {"broadcast", "iota"}
_REDUCTIONS = {"reduce", "reduce-window"}
_OTHERS = {"custom-call", "gather", "rng-bit-generator", "scatter", "sort"}

# What JAX's names of operations have beside names of modules.
_CONTROL = re.compile(
    r"(while|body|cond|scan|closed_call|checkpoint|remat\d*|rematted_computation|branch_\d+_fun|"
    r"custom_\w*|shard_map|pjit|xla_call|core_call|.*\..*)$"  # the last: a method of a module
)
_WRAPPED = re.compile(r"^(\w+)\((.*)\)$")
_STATE = re.compile(r"^\w+(\.\w+)?(\[\\?'|\[\d)")


@dataclasses.dataclass
class Row:
    """Runs of one kind, or of one module, on one device."""

    name: str
    part: str  # of the step: forward, backward, recomputed, update
    runs: int = 0
    cycles: int = 0
    flops: int = 0
    repeated: int = 0  # of them, what a forward pass had computed already
    bytes: int = 0
    hbm_bytes: int = 0
    waiting: int = 0  # cycles of runs that HBM keeps busy for most of their time

    def add(self, run: Run, flops: int, again: bool, size: int, hbm: int, waits: bool) -> None:
        """Counts one more instruction."""
        times, cycles = run.times, run.line.cycles
        self.runs += times
        self.cycles += cycles * times
        self.flops += flops * times
        self.repeated += flops * times * again
        self.bytes += size * times
        self.hbm_bytes += hbm * times
        self.waiting += cycles * times * waits


def table(program: Program, bytes_a_cycle: float, flops_a_cycle: float) -> dict[str, list[Row]]:
    """The rows of kinds and of modules, each sorted by cycles; they add up to the program.

    `bytes_a_cycle` are what HBM gives a device, `flops_a_cycle` what its matrix units can do.
    """
    kinds: dict[tuple[str, str], Row] = {}
    modules: dict[str, Row] = {}
    trained = any(  # an update stands beside gradients
        "jvp(" in line.attributes
        for lines in program.computations.values()
        for line in lines.values()
    )
    for run in program.runs():
        cycles = run.line.cycles
        if not cycles or program.inside(run.line):
            continue
        flops = program.flops(run)
        size, hbm = _traffic(program, run)
        waits = hbm / bytes_a_cycle > max(_BOUND * cycles, flops / flops_a_cycle)
        name = _name(program, run)
        kind, part = _kind(program, run, name, flops), _part(name, trained)
        if part == "update":
            kind = kind.removeprefix(_OF_LAYERS)
        if kind == _PRODUCTS:
            kind, part = _product(program, run, name, part)
        module = _module(name)
        for row in (
            kinds.setdefault((kind, part), Row(kind, part)),
            modules.setdefault(module, Row(module, "")),
        ):
            row.add(run, flops, part == "recomputed", size, hbm, waits)
    return {"kinds": _sorted(kinds.values()), "modules": _folded(_sorted(modules.values()))}


def bytes_without_estimate(program: Program) -> int:
    """What moves between HBM and instructions of which the compiler cannot tell how long they take.

    They are not in the table.
    """
    runs = (run for run in program.runs() if run.line.has_no_estimate)
    return sum(_traffic(program, run)[1] * run.times for run in runs)


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row.cycles)


def _folded(rows: list[Row]) -> list[Row]:
    """The largest rows, and the sum of all others."""
    rest = rows[MODULES:]
    numbers = {
        field.name: sum(getattr(row, field.name) for row in rest)
        for field in dataclasses.fields(Row)
        if field.name not in ("name", "part")
    }
    return rows[:MODULES] + ([Row(OTHERS, "", **numbers)] if rest else [])


_PRODUCTS = "convolutions and products"
_ATTENTION = "products of attention"
_OF_LAYERS = "norms and activations: "
_OF_INPUTS, _OF_KERNELS = "gradients of inputs", "gradients of kernels"


def _kind(program: Program, run: Run, name: str, flops: int) -> str:
    if flops:
        return _ATTENTION if re.search("attention|pooling", name) else _PRODUCTS
    found = {
        line.opcode for line, _ in program.with_fused(run.line, run.place)
    } - _PLAIN - {"fusion"}  # fmt: skip
    if found & _OTHERS:
        return "gathers, sorts and others"
    if found & _REDUCTIONS:
        return f"{_OF_LAYERS}reductions"
    if found <= _COPIES:
        return "copies and layouts"
    if found <= _BROADCASTS:
        return "broadcasts that are written out"
    if found <= _SLICES | _COPIES | _BROADCASTS:
        return "slices and joins"
    return f"{_OF_LAYERS}elementwise"


def _part(name: str, trained: bool) -> str:
    if "rematted_computation" in name:
        return "recomputed"
    if "transpose(" in name:
        return "backward"
    return "update" if trained and "jvp(" not in name else "forward"


def _product(program: Program, run: Run, name: str, part: str) -> tuple[str, str]:
    """Kind and part of a convolution or product: that of kernels contracts all but channels."""
    if part != "backward":
        return _PRODUCTS, part
    for line, _ in program.with_fused(run.line, run.place):
        labels = re.search(r"dim_labels=(\w+)_(\w+)->", line.attributes)
        if line.opcode == "convolution" and labels:
            left, right = labels[1], labels[2]
            of_kernels = left.index("f") < left.index("b") and right.index("i") < right.index("o")
            return (_OF_KERNELS if of_kernels else _OF_INPUTS), part
    return _OF_INPUTS, part


def _name(program: Program, run: Run) -> str:
    """Where in the source an instruction comes from; a copy of what it copies, or else its user."""
    siblings, line = program.siblings(run), run.line
    for _ in range(12):
        for part, _ in program.with_fused(line, run.place):
            if name := _op_name(part):
                return name
        earlier = [siblings[x] for x in line.operands if x in siblings]
        if not earlier:
            break
        line = earlier[0]
    users = (line for line in siblings.values() if run.line.name in line.operands)
    return next((name for name in map(_op_name, users) if name), "")


def _op_name(line: Instruction) -> str:
    match = re.search(r'op_name="([^"]*)"', line.attributes)
    return match[1] if match else ""


def _module(name: str) -> str:
    """The module's path, to a depth of two, of the name that JAX gives to an operation."""
    if _STATE.match(name):  # a parameter, of which something is computed
        path = re.findall(r"\[\\?'([^'\\]+)", name)
        return "/".join(path[:_DEPTH]) or OUTSIDE
    name = name.split(";")[0]
    *parts, _ = list(_parts(name)) or [""]
    network = next((part for part in parts if re.match("[A-Z]", part)), None)
    if network is None:
        return OUTSIDE
    at = len(parts) - 1 - parts[::-1].index(network)  # rematerialization names it twice
    path = [part for part in parts[at + 1 :] if not _CONTROL.match(part)]
    return "/".join(path[:_DEPTH]) or network


def _parts(name: str) -> Iterator[str]:
    """The parts of a path, without the transformations around them: transpose(jvp(Net)) is Net."""
    depth, part = 0, ""
    for character in f"{name}/":
        depth += (character == "(") - (character == ")")
        if character != "/" or depth:
            part += character
            continue
        while match := _WRAPPED.match(part):
            part = "" if match[1] in ("jit", "pjit") else match[2]
        if part:
            yield part
        part = ""


def _traffic(program: Program, run: Run) -> tuple[int, int]:
    """Bytes of operands and results, and those of them in HBM."""
    line, siblings = run.line, program.siblings(run)
    body = program.computations[line.called["calls"][0]] if line.opcode == "fusion" else None
    types = [siblings[name].type for name in line.operands if name in siblings]
    shares = [_share_read(type_, body, index) for index, type_ in enumerate(types)]
    types.append(line.type)
    shares.append(_share_written(line, body))
    both = list(zip(types, shares, strict=True))
    return (
        round(sum(num_bytes(type_) * share for type_, share in both)),
        round(sum(num_bytes(type_, in_hbm=True) * share for type_, share in both)),
    )


def _share_read(type_: str, body: Computation | None, operand: int) -> float:
    """How much of an operand is read: a part, if nothing but slices of it are used."""
    if body is None:
        return 1.0
    name = next(
        (x.name for x in body.values() if (x.opcode, x.operands) == ("parameter", (str(operand),))),
        None,
    )  # fmt: skip
    users = [x for x in body.values() if name in x.operands]
    if not users or not all(x.opcode in _PARTS and x.operands[0] == name for x in users):
        return 1.0
    read = sum(num_bytes(x.type) for x in users if x.opcode != "dynamic-update-slice")
    return min(read / max(num_bytes(type_), 1), 1.0)


def _share_written(line: Instruction, body: Computation | None) -> float:
    """How much of the result is written: what is updated, if it takes an operand's place."""
    last = line if body is None else list(body.values())[-1]
    if body is None or last.opcode != "dynamic-update-slice":
        return 1.0
    return num_bytes(body[last.operands[1]].type) / max(num_bytes(line.type), 1)
