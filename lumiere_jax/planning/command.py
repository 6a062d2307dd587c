"""What `lumiere_jax.plan` does with its flags."""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Literal

import jax

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.planning import gpus, report, roofline, topology
from lumiere_jax.planning.cascade import CascadePlan, plan_cascade
from lumiere_jax.planning.check_up import finding
from lumiere_jax.planning.check_up.report import without_data
from lumiere_jax.planning.plan import Plan, make_plan, search
from lumiere_jax.planning.steps import Mode, Step
from lumiere_jax.runtime import executables
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.made_ahead import MadeAhead
from lumiere_jax.runtime.program_key import key_parts
from lumiere_jax.runtime.sharding import use_mesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The flags, see `lumiere_jax.plan`."""

    config: ConfigDict | None  # of the stage; None for "features" and "text"
    name: str  # of the config, for the reader
    ssr: ConfigDict | None = None  # what refines the clips of the stage, for "cascade"
    ssr_name: str = ""
    topology: str
    num_slices: int = 1
    mode: Mode | Literal["cascade"] = "train"
    num_frames: int | None = None
    clips: int = 30_000_000
    prompts: int = 1  # at once, of "cascade"
    distilled_steps: tuple[str, ...] = ("4", "2")  # of its stages' students
    batches: list[str] | None = None  # of a search, of "features" or "text"; None for one plan
    where: bool = False  # whether to tell where the time goes
    as_json: bool = False
    output: str | None = None
    cache: str | None = None
    save: str | None = None


def run(options: Options) -> None:
    """Makes one plan, those of a search, or that of a cascade, and prints them."""
    sizes, output = _batches(options.batches, options.mode), options.output
    if output is not None and not Path(output).parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {Path(output).parent}; create it.")
    if options.save is not None and (options.mode != "train" or sizes):
        raise UserError("--save keeps one training step; leave out --mode and --search.")
    plans: list[Plan] = []
    if gpu := gpus.parse(options.topology):
        bound = _bound(options, *gpu)
        lines, told = [json.dumps(dataclasses.asdict(bound))], [roofline.text(bound)]
    elif options.mode == "cascade":
        whole = _cascade(options)
        plans, lines = list(whole.plans.values()), [json.dumps(whole.to_json())]
        told = [report.cascade(whole)]
    else:
        plans = _plans(options, options.mode, sizes)
        lines = [json.dumps(plan.to_json(options.clips)) for plan in plans]
        told = [report.table(plans) if sizes else report.text(plans[0], options.clips)]
    if output is not None:
        with Path(output).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    if options.as_json:
        print("\n".join(lines))
        return
    if options.where:
        told += [
            (f"{plan.config}, {plan.mode}: " if len(plans) > 1 else "") + report.where(plan)
            for plan in plans
        ]
    if options.mode == "train" and plans and not sizes and options.config is not None:
        stage = Stage.from_config(options.config, shapes_only=True)
        told.append(finding.table(without_data(stage, plans[0])))
    print("\n".join(told))


def _bound(options: Options, gpu: gpus.Gpu, number: int) -> roofline.Roofline:
    """What a step costs on GPUs at the least."""
    if options.config is None or options.batches or options.save is not None or options.where:
        raise UserError(
            f"--topology={options.topology}: nothing is compiled for GPUs, so nothing is saved, "
            "searched for or taken apart; give --config and --mode=train or sample."
        )
    jax.config.update("jax_num_cpu_devices", number)  # they stand in for the GPUs
    devices, frames = jax.devices("cpu"), options.num_frames
    return roofline.create(options.config, gpu, devices, options.mode, options.name, frames)


def _plans(options: Options, mode: Mode, sizes: list[int]) -> list[Plan]:
    target = topology.describe_slice(options.topology, options.num_slices)
    plan = functools.partial(
        make_plan,
        target=target,
        mode=mode,
        name=options.name,
        num_frames=options.num_frames,
        cache=options.cache,
    )
    if options.config is None:
        return [plan(ConfigDict({"clips_a_device": size, "model": {}})) for size in sizes]
    if sizes:
        return search(options.config, target, plan, sizes)
    if options.save is None:
        return [plan(options.config)]
    with executables.without_own_cache_of_jax():
        return [plan(options.config, keep=functools.partial(_save, MadeAhead(options.save)))]


def _save(folder: MadeAhead, step: Step, compiled: jax.stages.Compiled) -> None:
    """Keeps a step where `lumiere_jax.main --programs` finds it."""
    with use_mesh(step.mesh):
        parts = key_parts(step.about, step.arguments)
    path = folder.save(step.name, parts, compiled)
    size = f"{path.stat().length / 1e6:.1f} MB"
    print(f"the {step.name} for {parts['devices']}, {size}, is in {path}", file=sys.stderr)


def _cascade(options: Options) -> CascadePlan:
    if options.config is None or options.ssr is None:
        raise UserError("--mode=cascade needs --config of the base and --ssr of what refines it.")
    steps = [int(text) for text in options.distilled_steps if text.strip().isdecimal()]
    if len(steps) != 2 or min(steps) < 1:
        given = ",".join(options.distilled_steps)
        raise UserError(f"--distilled_steps={given} must be two numbers, as in 4,2.")
    target = topology.describe_slice(options.topology, options.num_slices)

    def plan(config: ConfigDict, mode: Mode, num_frames: int | None) -> Plan:
        name = "T5 v1.1 XXL" if mode == "text" else options.name
        name = options.ssr_name if "ssr" in config else name
        return make_plan(
            config, target, mode=mode, name=name, num_frames=num_frames, cache=options.cache
        )

    first, second = steps
    return plan_cascade(
        options.config, options.ssr, target, plan,
        prompts=options.prompts, distilled_steps=(first, second),
    )  # fmt: skip


def _batches(batches: list[str] | None, mode: str) -> list[int]:
    if batches is None:
        return []
    if mode not in ("train", "features", "text"):
        raise UserError(f"--search tries ways to train; leave out --mode={mode}.")
    if not batches or not all(text.strip().isdecimal() and int(text) > 0 for text in batches):
        raise UserError(f"--batches={','.join(batches)} must be numbers of clips, as in 1,2,4.")
    return [int(text) for text in batches]
