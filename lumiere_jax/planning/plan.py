"""One plan: a step compiled for a slice, and everything that the compiler says of it."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.models.layers import REMAT_POLICIES
from lumiere_jax.planning import hlo, schedule, steps, where
from lumiere_jax.planning.interconnect import Interconnect
from lumiere_jax.planning.steps import Mode, Step
from lumiere_jax.planning.topology import GIB, Chip, Target
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.program_key import package_digest
from lumiere_jax.runtime.progress import announced
from lumiere_jax.runtime.sharding import batch_parts, create_mesh

_LARGE_SHARE = 0.25  # of the memory: a larger state is worth splitting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What one step needs. All figures of memory, work and traffic are for one chip."""

    config: str  # its name, with the fields that were changed
    mode: Mode
    topology: str  # name of the slice, or of the devices that are there
    num_slices: int
    chips: int  # of all slices
    mesh: dict[str, int]  # size of each axis
    remat: str  # what is recomputed in training
    batch: int  # clips (or prompts), all chips together
    repeats: int  # steps for a batch: 1, or the number of denoising steps
    trainable: int  # trained parameters
    frozen: int  # all other parameters
    fits: bool  # whether the compiler found room
    hbm: int | None  # bytes there are; None where that is not known
    needed: int | None  # bytes; None where the compiler does not say
    arguments: int  # bytes of state and batch
    temporaries: int | None = None  # bytes of activations, gradients and all else in between
    outputs: int | None = None  # bytes of results that do not take the place of arguments
    program: int | None = None  # bytes of code
    reason: str = ""  # the beginning of the compiler's message where it does not fit
    advice: list[str] = dataclasses.field(default_factory=list)  # what helps there
    model_flops: float  # what mathematics needs
    # Of convolutions and matrix products; the compiler's own count runs every loop once.
    compiled_flops: float | None = None
    cycles: int | None = None  # the compiler's estimate for everything that computes
    seconds: float | None = None  # the same; None where the clock is not known
    utilization: float | None = None  # `model_flops` by what the chip could do in `seconds` (MFU)
    # The same two with what is waited for collectives, by the model of `interconnect`.
    seconds_with_collectives: float | None = None
    utilization_with_collectives: float | None = None
    clock_note: str = ""  # how the clock is known, where it is not published
    # By kind: how many, bytes, and where the links are known seconds on them and waited for them.
    collectives: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    # "kinds" and "modules", rows of `where.table` with seconds in place of cycles.
    where: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    unknown_loops: list[str] = dataclasses.field(default_factory=list)  # they count once
    unknown_cycles: list[str] = dataclasses.field(default_factory=list)  # they count as nothing
    unknown_seconds: float = 0.0  # what the bandwidth of HBM makes them take at least
    compile_seconds: float
    versions: dict[str, str]  # of the libraries
    date: str  # of the compilation

    @property
    def clips_a_second(self) -> float | None:
        """Of all chips together; whole clips, after all denoising steps, for sampling."""
        return self.seconds and self.batch / (self.seconds * self.repeats)

    def hours(self, clips: int) -> float | None:
        """Time for a number of clips."""
        return self.clips_a_second and clips / self.clips_a_second / 3600

    def to_json(self, clips: int) -> dict[str, Any]:
        """All figures, with those that follow for a number of clips."""
        hours = self.hours(clips)
        derived = {
            "clips_a_second": self.clips_a_second,
            "clips": clips,
            "hours": hours,
            "chip_hours": hours and hours * self.chips,
        }
        return dataclasses.asdict(self) | derived


def make_plan(
    config: ConfigDict,
    target: Target,
    *,
    mode: Mode = "train",
    name: str = "",
    num_frames: int | None = None,
    cache: str | Path | None = None,
    keep: Callable[[Step, jax.stages.Compiled], None] | None = None,
) -> Plan:
    """Compiles a step for a slice, or finds the plan in `cache`, a folder of earlier ones.

    `name` is that of the config, for the reader; all else goes to `steps.create`. With `keep`, the
    step is always compiled, and given to it.

    Raises:
      UserError: if the config does not make sense on these devices.
    """
    versions = library_versions()
    key = [
        config.to_dict(),
        target.name,
        target.num_slices,
        mode,
        num_frames,
        versions,
        package_digest(),
    ]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=list).encode()).hexdigest()
    place = Path(cache).expanduser() / f"{digest[:32]}.json" if cache else None
    if place is not None and place.exists() and keep is None:
        return dataclasses.replace(Plan(**json.loads(place.read_text())), config=name)
    step = steps.create(config, target, mode, num_frames)
    plan = _compile(step, config, target, mode, name, versions, keep)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(dataclasses.asdict(plan)) + "\n")
    return plan


def _compile(
    step: Step, config: ConfigDict, target: Target, mode: Mode, name: str, versions: dict,
    keep: Callable[[Step, jax.stages.Compiled], None] | None,
) -> Plan:  # fmt: skip
    chip, cores = target.chip, target.devices_per_chip
    fields = {
        "config": name,
        "mode": mode,
        "topology": target.name,
        "num_slices": target.num_slices,
        "chips": target.chips,
        "mesh": dict(step.mesh.shape),
        "remat": config.model.get("remat", "none"),
        "batch": step.batch,
        "repeats": step.repeats,
        "trainable": step.trainable,
        "frozen": step.frozen,
        "hbm": chip.hbm if chip else None,
        "model_flops": step.model_flops / target.chips,
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    begin = time.monotonic()
    try:
        with announced(f"compiling for {target.name}, this can take minutes"):
            compiled = step.compile()
    except Exception as error:
        if not re.search("RESOURCE_EXHAUSTED|[Rr]an out of memory", str(error)):
            raise
        arguments = round(step.held * cores)
        return Plan(
            **fields,
            fits=False,
            needed=_needed(str(error), arguments, cores),
            arguments=arguments,
            reason=str(error)[:2000],
            advice=_advise(config, step, mode, chip.hbm / cores if chip else None),
            compile_seconds=time.monotonic() - begin,
        )
    seconds = time.monotonic() - begin
    if keep is not None:
        keep(step, compiled)
    return Plan(**fields, fits=True, compile_seconds=seconds, **_figures(compiled, step, target))


def _advise(config: ConfigDict, step: Step, mode: Mode, hbm: float | None) -> list[str]:
    """What helps a step that did not fit, the most promising first; `hbm`: bytes of a device."""
    if mode in ("features", "text"):
        return [f"take fewer {'clips' if mode == 'features' else 'prompts'} per device: --batches"]
    mesh, advice, parts = step.mesh.shape, [], batch_parts(step.mesh)
    if mode == "train" and config.model.get("remat", "none") != "full":
        policies = ", ".join(REMAT_POLICIES)
        advice.append(f"recompute more: --config.model.remat=full (policies: {policies})")
    if mode == "train" and step.batch > parts:
        advice.append(
            f"take fewer than {step.batch // parts} clips per device: "
            f"--config.train.batch_size={parts} at least"
        )
    if hbm is not None and step.held > _LARGE_SHARE * hbm:
        advice.append(
            f"split parameters and optimizer state, {step.held / 2**30:.1f} GiB per device, over "
            f"more devices: --config.mesh.fsdp={_next_split(mesh['fsdp'], parts)}"
        )
    if mode == "train" and step.frozen and config.train.get("frozen_dtype") == "float32":
        advice.append("keep frozen parameters in half: --config.train.frozen_dtype=bfloat16")
    advice.append(f"share a clip between more devices: --config.mesh.space={2 * mesh['space']}")
    if "sample" in mode and "ssr" in config and config.ssr.chunk > 1:
        advice.append("predict fewer windows at once: --config.ssr.chunk=1")
    return advice


def _next_split(fsdp: int, parts: int) -> int:
    """Four times the present split, or what else divides the devices of a batch."""
    larger = [n for n in range(fsdp + 1, parts + 1) if parts % n == 0 and n % fsdp == 0]
    return next((n for n in larger if n >= 4 * fsdp), larger[-1] if larger else fsdp)


def _figures(compiled: jax.stages.Compiled, step: Step, target: Target) -> dict[str, Any]:
    """What the compiler says of a step, for one chip."""
    chip, cores = target.chip, target.devices_per_chip
    memory: Any = compiled.memory_analysis()  # XLA's own, which has no public type
    program = hlo.Program(compiled.as_text() or "")
    summary = hlo.summarize(program)
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    parts = {part: round(size * cores) for part, size in parts.items()}
    figures = parts | {
        "needed": sum(parts.values()),
        "compiled_flops": summary.flops * cores,
        "unknown_loops": list(summary.unknown_loops),
        "unknown_cycles": list(summary.unknown_cycles),
        "collectives": {
            kind: {"count": round(traffic.count * cores), "bytes": round(traffic.bytes * cores)}
            for kind, traffic in summary.collectives.items()
        },
    }
    if chip is None:
        return figures
    links = Interconnect.of(chip, step.mesh.devices.flat)
    timeline = schedule.run(program, chip.clock, links.seconds)
    seconds = summary.cycles / chip.clock
    figures |= {
        "cycles": summary.cycles,
        "seconds": seconds,
        "seconds_with_collectives": timeline.seconds,
        "clock_note": chip.clock_note,
        "unknown_seconds": where.bytes_without_estimate(program) * cores / chip.hbm_bandwidth,
        "where": _where(program, chip, cores),
    }
    for kind, traffic in figures["collectives"].items():
        traffic |= {"seconds": timeline.on_links[kind], "waited": timeline.waited[kind]}
    if seconds:
        used = step.model_flops / target.chips / chip.peak
        figures["utilization"] = used / seconds
        figures["utilization_with_collectives"] = used / timeline.seconds
    return figures


def _where(program: hlo.Program, chip: Chip, cores: float) -> dict[str, list[dict[str, Any]]]:
    """Where the time of a chip goes, in seconds, FLOPs and bytes of the chip."""
    a_cycle = 1 / chip.clock / cores
    tables = where.table(program, chip.hbm_bandwidth * a_cycle, chip.peak * a_cycle)
    return {
        name: [
            {
                "name": row.name,
                "part": row.part,
                "runs": row.runs,
                "seconds": row.cycles / chip.clock,
                "waiting": row.waiting / chip.clock,
                "flops": round(row.flops * cores),
                "repeated": round(row.repeated * cores),
                "bytes": round(row.bytes * cores),
                "hbm_bytes": round(row.hbm_bytes * cores),
            }
            for row in rows
        ]
        for name, rows in tables.items()
    }


def _needed(message: str, arguments: int, cores: float) -> int | None:
    """How many bytes per chip the compiler would have needed, from its error message."""
    match = re.search(r"([Uu]sed |for HLO temporaries \()([\d.]+)([KMGT])", message)
    if match is None:
        return None
    size = float(match[2]) * GIB * 1024 ** ("KMGT".index(match[3]) - 2) * cores
    return round(size) + (arguments if "temporaries" in match[1] else 0)


def search(
    config: ConfigDict,
    target: Target,
    plan: Callable[[ConfigDict], Plan],
    batches: Sequence[int] = (1, 2, 4, 8),
) -> list[Plan]:
    """Plans for every remat policy and batch size, the fastest first, then those that do not fit.

    `plan` makes one from a config. `batches` are clips per device: once one does not fit, larger
    ones are not tried.
    """
    parts = batch_parts(create_mesh(config.mesh, target.devices))
    plans = []
    for remat in REMAT_POLICIES:
        for batch in sorted(batches):
            tried = config.copy_and_resolve_references()
            with tried.unlocked():
                tried.model.remat = remat
                tried.train.batch_size = batch * parts
            plans.append(plan(tried))
            if not plans[-1].fits:
                break
    return sorted(plans, key=rank)


def rank(plan: Plan) -> tuple[bool, float, float]:
    """What plans are sorted by: whether they fit, speed, and memory where no speed is known."""
    return not plan.fits, -(plan.clips_a_second or 0.0), plan.needed or math.inf


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what is compiled; "" where one is missing."""
    versions = {}
    for library in ("jax", "libtpu", "flax", "optax"):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = ""
    return versions
