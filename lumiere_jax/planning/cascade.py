"""A cascade as a whole: from a prompt to the refined clip, of the plans of its stages.

The time of a step is that of `Plan.seconds_with_collectives`: the compiler's estimate and the model
of the links. It holds what is done but once for a clip, too: the noise that it starts from, and the
enlarging of what is refined. Between the steps nothing is lost, since the host issues each before
the last is done. What moves between host and chips takes as long as `Chip.pcie` needs for it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.inference.sampling import predictions
from lumiere_jax.planning.hlo import Collective
from lumiere_jax.planning.interconnect import Interconnect
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.steps import LUMIERE_FRAMES, PROMPT_TOKENS, Mode, bytes_a_device
from lumiere_jax.planning.topology import Chip, Target
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh, state_shardings, with_shardings
from lumiere_jax.text import t5_weights
from lumiere_jax.text.t5_network import T5_V1_1_XXL

REFERENCE_STEPS = (256, 128)
"""[C] Of the base and of super-resolution, where quality is all that counts."""

_WEIGHTS = 0.8  # of the memory, at most; the rest is for activations
_FLOAT, _BFLOAT = 4, 2  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds from the prompts of a batch to their clips in the memory of the host."""

    name: str  # of the steps
    steps: tuple[int, int]  # of the base and of super-resolution
    text: float
    base: float
    ssr: float
    transfers: float  # between host and chips and between stages; 0 where that is not known
    prompts: int  # of the batch

    @property
    def latency(self) -> float:
        """Seconds from one prompt, or a batch of them, to the end."""
        return self.text + self.base + self.ssr + self.transfers

    @property
    def prompts_an_hour(self) -> float:
        """Clips an hour if prompts come without end, one batch after the other."""
        return 3600 * self.prompts / self.latency


@dataclasses.dataclass(frozen=True, kw_only=True)
class CascadePlan:
    """The plans of a cascade on a slice, and what follows from them. Memory is for one chip."""

    topology: str
    chips: int
    frames: int
    side: int  # pixels, of the refined clip
    plans: dict[str, Plan]  # "base", "ssr", and "text" and "unguided base" where they differ
    times: list[Times]  # empty if a stage does not fit
    weights: int  # bytes of all stages, with the inputs of their programs
    programs: int  # bytes of code
    needed: int  # bytes if all of that stays, with the most that one program needs beside it
    hbm: int
    load: float | None  # seconds to bring weights and programs from the host; None: not known

    @property
    def fits(self) -> bool:
        """Whether all stages can stay in memory together."""
        return bool(self.times) and self.needed <= self.hbm

    def to_json(self) -> dict[str, Any]:
        """All figures, but for where the time of each plan goes."""
        times = [
            dataclasses.asdict(t) | {"latency": t.latency, "prompts_an_hour": t.prompts_an_hour}
            for t in self.times
        ]
        figures = dataclasses.asdict(self)
        for plan in figures["plans"].values():
            del plan["where"]
        return figures | {"fits": self.fits, "times": times}


def plan_cascade(
    base: ConfigDict,
    ssr: ConfigDict,
    target: Target,
    plan: Callable[[ConfigDict, Mode, int | None], Plan],
    *,
    prompts: int = 1,
    distilled_steps: tuple[int, int] = (4, 2),
) -> CascadePlan:
    """Plans a base and the super-resolution that follows it.

    Args:
      base: config of the base.
      ssr: of super-resolution.
      target: a slice.
      plan: makes the plan of a config, a mode and a number of frames.
      prompts: made at once; more, where the stages fit in memory together only so.
      distilled_steps: of students, base and super-resolution. They need no guidance.

    Raises:
      UserError: if the second does not refine what the first makes, or devices cannot share it.
    """
    if target.chip is None:
        raise UserError("--mode=cascade is for slices of TPUs, as in --topology=v6e:2x4.")
    first, second = (Stage.from_config(config, shapes_only=True) for config in (base, ssr))
    frames, side = base.data.num_frames, ssr.data.resolution
    if first.is_super_resolution or not second.is_super_resolution:
        raise UserError("--mode=cascade takes a base in --config, and in --ssr what refines it.")
    if base.data.resolution * ssr.ssr.factor != side:
        raise UserError(
            f"--ssr refines {side // ssr.ssr.factor}×{side // ssr.ssr.factor} pixels, and the base "
            f"makes {base.data.resolution}×{base.data.resolution}; give two that belong together."
        )
    asked = None if frames == LUMIERE_FRAMES else frames  # as `--mode=sample` asks for it
    for of_base, of_ssr in _on_meshes([(base, first), (ssr, second)], target, prompts):
        plans = {"base": plan(of_base, "sample", None)}
        if plans["base"].fits:
            plans["ssr"] = plan(of_ssr, "sample", asked)
        if all(made.fits for made in plans.values()):
            if base.sampling.guidance_scale != 1:
                plans["unguided base"] = plan(_unguided(of_base), "sample", None)
            if _has_t5(base):
                plans["text"] = plan(ConfigDict({"clips_a_device": 1, "model": {}}), "text", None)
        whole = _compose(base, ssr, target, plans, distilled_steps)
        if whole.fits:
            break
    return whole


def _has_t5(base: ConfigDict) -> bool:
    """Whether prompts are embedded by T5 XXL, which `--mode=text` plans."""
    return base.text.name == "t5" and base.text.dim == T5_V1_1_XXL.d_model


def _compose(
    base: ConfigDict, ssr: ConfigDict, target: Target, plans: dict[str, Plan],
    distilled_steps: tuple[int, int],
) -> CascadePlan:  # fmt: skip
    chip = target.chip
    assert chip is not None
    frames, side = base.data.num_frames, ssr.data.resolution
    is_whole = "ssr" in plans and all(plan.fits for plan in plans.values())
    stay = [plan for name, plan in plans.items() if name != "unguided base"]
    weights, programs = (
        sum(getattr(plan, field) or 0 for plan in stay) for field in ("arguments", "program")
    )
    beside = max((plan.temporaries or 0) + (plan.outputs or 0) for plan in plans.values())
    times = []
    if is_whole:
        alone = plans.get("unguided base", plans["base"])
        default = base.sampling.num_steps, ssr.sampling.num_steps
        for name, steps, of_base in (
            ("reference", REFERENCE_STEPS, plans["base"]),
            ("default", default, plans["base"]),
            ("distilled", distilled_steps, alone),
        ):
            asked = 0 if of_base is alone else _steps_with_both(base, steps[0])
            times.append(
                Times(
                    name=name,
                    steps=steps,
                    text=_batches(plans["text"], of_base.batch) if "text" in plans else 0.0,
                    base=asked * _seconds(of_base) + (steps[0] - asked) * _seconds(alone),
                    ssr=steps[1] * _batches(plans["ssr"], of_base.batch),
                    transfers=_transfers(base, ssr, target, chip, of_base.batch),
                    prompts=of_base.batch,
                )
            )
    return CascadePlan(
        topology=target.name,
        chips=target.chips,
        frames=frames,
        side=side,
        plans=plans,
        times=times,
        weights=weights,
        programs=programs,
        needed=weights + programs + beside,
        hbm=chip.hbm,
        load=(weights + programs) / chip.pcie if chip.pcie else None,
    )


def _steps_with_both(base: ConfigDict, steps: int) -> int:
    """How many of the base's steps ask the network with the text and without."""
    options = SamplingOptions.from_config(base, num_steps=steps)
    schedule = Stage.from_config(base, shapes_only=True).schedule
    return predictions(schedule, options) - steps


def _seconds(plan: Plan) -> float:
    return plan.seconds_with_collectives or plan.seconds or 0.0


def _batches(plan: Plan, prompts: int) -> float:
    """Seconds of as many batches as there must be for a number of prompts."""
    return -(-prompts // plan.batch) * _seconds(plan)


def _transfers(
    base: ConfigDict, ssr: ConfigDict, target: Target, chip: Chip, prompts: int
) -> float:
    """Of embeddings to the host and back, of clips between stages, and of results to the host."""
    frames, low, side = base.data.num_frames, base.data.resolution, ssr.data.resolution
    clip = prompts * frames * low**2 * 3 * _FLOAT
    links = Interconnect.of(chip, target.devices)
    between = links.seconds(Collective("all-gather", clip, "", ""))
    if chip.pcie is None:
        return between
    embedding = PROMPT_TOKENS * base.text.dim * _FLOAT
    # One comes from the host for the prompt, one for no text, to every chip for its share of clips.
    text = embedding * prompts * 3
    result = prompts * frames * side**2 * 3 * _FLOAT / target.chips
    return between + (text + result) / chip.pcie


def _unguided(config: ConfigDict) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.sampling.guidance_scale = 1.0
    return changed


def _on_meshes(
    stages: list[tuple[ConfigDict, Stage]], target: Target, prompts: int
) -> Iterator[list[ConfigDict]]:
    """The configs with meshes that split batch and weights over "fsdp", and a clip over "space".

    Those for the fewest prompts at once come first; those whose weights leave no room are left out.
    """
    devices, chip = len(target.devices) // target.num_slices, target.chip
    assert chip is not None
    fitting = [n for n in range(prompts, devices + 1) if devices % n == 0]
    if not fitting:
        raise UserError(f"--prompts={prompts}: there are {devices} devices; give a divisor.")
    shapes = [stage.param_shapes for _, stage in stages]
    text = _BFLOAT * t5_weights.count(T5_V1_1_XXL) / devices if _has_t5(stages[0][0]) else 0
    for parts in fitting:
        configs, held = [], text
        for (config, stage), params in zip(stages, shapes, strict=True):
            changed = config.copy_and_resolve_references()
            with changed.unlocked():
                changed.mesh.update({"data": -1, **_split(stage, devices, parts)})
            mesh = create_mesh(changed.mesh, target.devices)
            held += bytes_a_device(with_shardings(params, state_shardings(params, mesh)))
            configs.append(changed)
        if held <= _WEIGHTS * chip.hbm / target.devices_per_chip or parts == fitting[-1]:
            yield configs


def _split(stage: Stage, devices: int, parts: int) -> dict[str, int]:
    """Sizes of "fsdp" and "space": parts of the batch, or more if a clip cannot be split so far."""
    rows = stage.config.data.resolution
    for fsdp in range(parts, devices + 1):
        space = devices // fsdp
        # More devices than windows are of use: each has one window less than it would have.
        fits = rows % space == 0 if stage.is_super_resolution else stage.splits_into(space, 0)
        if devices % fsdp == 0 and fits:
            return {"fsdp": fsdp, "space": space}
    return {"fsdp": devices, "space": 1}
