"""How long a program takes with its collectives, in the order in which the compiler put it.

An asynchronous collective runs beside what stands between its beginning and its end, and the
program waits for the rest of it at its end; a synchronous one runs beside nothing. Collectives
queue, those inside of a slice for its links, and those between slices for the network. A loop's
body is followed once, as if nothing else were under way, and what begins in it is waited for at its
end.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable

from lumiere_jax.planning.hlo import Collective, Program, Run


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Times of a program on one device, in seconds."""

    seconds: float  # of all of it
    on_links: dict[str, float]  # of collectives, by kind
    waited: dict[str, float]  # of the same: when nothing was computed


def run(program: Program, clock: float, seconds: Callable[[Collective], float]) -> Timeline:
    """Follows the program; `clock` is in Hz, `seconds` says how long a collective takes."""
    bodies: dict[str, Timeline] = {}

    def of(place: str) -> Timeline:
        if place not in bodies:
            bodies[place] = _run(program, place, clock, seconds, of)
        return bodies[place]

    return of(program.entry)


def _run(
    program: Program,
    place: str,
    clock: float,
    seconds: Callable[[Collective], float],
    inner: Callable[[str], Timeline],
) -> Timeline:
    now = 0.0
    free = {True: 0.0, False: 0.0}  # when the network between slices, and when the links
    ready: dict[str, tuple[str, float]] = {}  # kind and end, by token
    on_links: dict[str, float] = defaultdict(float)
    waited: dict[str, float] = defaultdict(float)

    def wait(kind: str, end: float) -> None:
        nonlocal now
        waited[kind] += max(end - now, 0.0)
        now = max(now, end)

    for line in program.computations[place].values():
        found = program.collective(Run(line, place, 1))
        if found is not None and found.begins:
            takes = seconds(found)
            on_links[found.kind] += takes
            between = found.kind == "send"
            free[between] = max(now, free[between]) + takes
            ready[found.token] = found.kind, free[between]
        if found is not None and found.ends and found.token in ready:
            wait(*ready.pop(found.token))
        now += line.cycles / clock
        if line.opcode in ("async-start", "call-start"):
            continue  # what it computes, it computes beside
        for body, trips in program.inside(line):
            once = inner(body)
            now += once.seconds * trips
            for kind in once.on_links:
                on_links[kind] += once.on_links[kind] * trips
                waited[kind] += once.waited[kind] * trips
    for kind, end in ready.values():
        wait(kind, end)
    return Timeline(now, dict(on_links), {kind: waited[kind] for kind in on_links})
