"""One plan: a step compiled for a slice, and everything that the compiler says of it."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import re
import time
from pathlib import Path
from typing import Any

import jax

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.planning import compile as steps
from lumiere_jax.planning import hlo
from lumiere_jax.planning.advice import advise
from lumiere_jax.planning.features import FVD_FRAMES, feature_step
from lumiere_jax.planning.text import embedding_step
from lumiere_jax.planning.topology import GIB, Target
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import Announcement

PACKAGE = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What one step needs. All figures of memory, work and traffic are for one chip.

    Attributes:
      config: its name, with the fields that were changed.
      mode: "train", "sample" for one denoising step, "features" for a batch of I3D's, or "text" for
        a batch of prompts.
      topology: name of the slice, or of the devices that are there.
      num_slices: how many of them.
      chips: of all slices.
      mesh: size of each axis.
      remat: what is recomputed in training.
      batch: clips (or prompts), all chips together.
      repeats: steps for a batch: 1, or the number of denoising steps.
      trainable: number of trained parameters.
      frozen: number of all others.
      fits: whether the compiler found room.
      hbm: bytes there are; None where that is not known.
      needed: bytes that are needed; None where the compiler does not say.
      arguments: bytes of state and batch.
      temporaries: bytes of activations, gradients and all else in between.
      outputs: bytes of results that do not take the place of arguments.
      program: bytes of code.
      reason: the beginning of the compiler's message where it does not fit.
      advice: what helps there.
      model_flops: what mathematics needs.
      compiled_flops: those of convolutions and matrix products in the compiled program; the
        compiler's own count takes every loop for one turn.
      cycles: the compiler's estimate for everything that computes.
      seconds: the same in seconds; None where the clock is not known.
      utilization: `model_flops` by what the chip could do in `seconds` (MFU).
      collectives: count and bytes by kind.
      unknown_loops: loops whose length the compiler does not tell; they count once.
      compile_seconds: how long the compiler took.
      versions: of the libraries.
      date: of the compilation.
    """

    config: str
    mode: str
    topology: str
    num_slices: int
    chips: int
    mesh: dict[str, int]
    remat: str
    batch: int
    repeats: int
    trainable: int
    frozen: int
    fits: bool
    hbm: int | None
    needed: int | None
    arguments: int
    temporaries: int | None = None
    outputs: int | None = None
    program: int | None = None
    reason: str = ""
    advice: list[str] = dataclasses.field(default_factory=list)
    model_flops: float
    compiled_flops: float | None = None
    cycles: int | None = None
    seconds: float | None = None
    utilization: float | None = None
    collectives: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    unknown_loops: list[str] = dataclasses.field(default_factory=list)
    compile_seconds: float
    versions: dict[str, str]
    date: str

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
    mode: str = "train",
    name: str = "",
    num_frames: int | None = None,
    cache: str | Path | None = None,
) -> Plan:
    """Compiles a step for a slice, or finds in the cache what came of it.

    Args:
      config: of the stage; for "features" and "text", the field "clips_a_device" alone, of
        clips or prompts.
      target: the devices.
      mode: "train", "sample", "features" or "text".
      name: of the config, for the reader.
      num_frames: of a sampled clip, see `sampling_step`; 16 of one that I3D takes.
      cache: folder of former plans; None for none.

    Raises:
      UserError: if the config does not make sense on these devices.
    """
    versions = library_versions()
    key = [config.to_dict(), target.name, target.num_slices, mode, num_frames, versions, sources()]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=list).encode()).hexdigest()
    place = Path(cache) / f"{digest[:32]}.json" if cache else None
    if place is not None and place.exists():
        return dataclasses.replace(Plan(**json.loads(place.read_text())), config=name)
    if mode == "train":
        step = steps.training_step(config, target)
    elif mode == "sample":
        step = steps.sampling_step(config, target, num_frames)
    elif mode == "features":
        step = feature_step(config.clips_a_device, target, num_frames or FVD_FRAMES)
    else:
        step = embedding_step(config.clips_a_device, target)
    plan = _compile(step, config, target, mode, name, versions)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(dataclasses.asdict(plan)) + "\n")
    return plan


def _compile(
    step: steps.Step, config: ConfigDict, target: Target, mode: str, name: str, versions: dict
) -> Plan:
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
        "hbm": chip and chip.hbm,
        "model_flops": step.model_flops / target.chips,
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    begin = time.monotonic()
    try:
        with Announcement(f"compiling for {target.name}, this can take minutes"):
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
            advice=advise(config, step, mode, chip and chip.hbm / cores),
            compile_seconds=time.monotonic() - begin,
        )
    seconds = time.monotonic() - begin
    return Plan(**fields, fits=True, compile_seconds=seconds, **_figures(compiled, step, target))


def _figures(compiled: jax.stages.Compiled, step: steps.Step, target: Target) -> dict[str, Any]:
    """What the compiler says of a step, for one chip."""
    chip, cores = target.chip, target.devices_per_chip
    memory = compiled.memory_analysis()
    summary = hlo.summarize(compiled.as_text())
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
        "collectives": {
            kind: {"count": round(traffic.count * cores), "bytes": round(traffic.bytes * cores)}
            for kind, traffic in summary.collectives.items()
        },
    }
    if chip is not None and chip.clock is not None:
        seconds = summary.cycles / chip.clock
        figures |= {"cycles": summary.cycles, "seconds": seconds}
        if seconds:
            needed = step.model_flops / target.chips
            figures["utilization"] = needed / (seconds * chip.peak)
    return figures


def _needed(message: str, arguments: int, cores: float) -> int | None:
    """How many bytes a chip the compiler would have needed, from its error message."""
    match = re.search(r"([Uu]sed |for HLO temporaries \()([\d.]+)([KMGT])", message)
    if match is None:
        return None
    size = float(match[2]) * GIB * 1024 ** ("KMGT".index(match[3]) - 2) * cores
    return round(size) + (arguments if "temporaries" in match[1] else 0)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what is compiled; "" where one is missing."""
    versions = {}
    for library in ("jax", "libtpu", "flax", "optax"):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = ""
    return versions


def sources() -> str:
    """A digest of the package: any of its files may decide what is compiled."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
