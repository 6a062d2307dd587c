"""What `lumiere_jax.plan` does with its flags."""

import dataclasses
import functools
import json
from pathlib import Path

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.planning import report, topology
from lumiere_jax.planning.check_up import finding
from lumiere_jax.planning.check_up.report import without_data
from lumiere_jax.planning.plan import Plan, make_plan, search
from lumiere_jax.planning.steps import Mode
from lumiere_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The flags, see `lumiere_jax.plan`."""

    config: ConfigDict | None  # of the stage; None for "features" and "text"
    name: str  # of the config, for the reader
    topology: str
    num_slices: int = 1
    mode: Mode = "train"
    num_frames: int | None = None
    clips: int = 30_000_000
    batches: list[str] | None = None  # of a search, of "features" or "text"; None for one plan
    where: bool = False  # whether to tell where the time goes
    as_json: bool = False
    output: str | None = None
    cache: str | None = None


def run(options: Options) -> None:
    """Makes one plan, or those of a search, and prints them."""
    sizes, output = _batches(options.batches, options.mode), options.output
    if output is not None and not Path(output).parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {Path(output).parent}; create it.")
    plans = _plans(options, sizes)
    lines = [json.dumps(plan.to_json(options.clips)) for plan in plans]
    if output is not None:
        with Path(output).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    if options.as_json:
        print("\n".join(lines))
        return
    print(report.table(plans) if sizes else report.text(plans[0], options.clips))
    if options.where:
        print("\n".join(report.where(plan) for plan in plans))
    if options.mode == "train" and not sizes and options.config is not None:
        stage = Stage.from_config(options.config, shapes_only=True)
        print(finding.table(without_data(stage, plans[0])))


def _plans(options: Options, sizes: list[int]) -> list[Plan]:
    target = topology.describe_slice(options.topology, options.num_slices)
    plan = functools.partial(
        make_plan,
        target=target,
        mode=options.mode,
        name=options.name,
        num_frames=options.num_frames,
        cache=options.cache,
    )
    if options.config is None:
        return [plan(ConfigDict({"clips_a_device": size, "model": {}})) for size in sizes]
    if sizes:
        return search(options.config, target, plan, sizes)
    return [plan(options.config)]


def _batches(batches: list[str] | None, mode: str) -> list[int]:
    if batches is None:
        return []
    if "sample" in mode:
        raise UserError(f"--search tries ways to train; leave out --mode={mode}.")
    if not batches or not all(text.strip().isdecimal() and int(text) > 0 for text in batches):
        raise UserError(f"--batches={','.join(batches)} must be numbers of clips, as in 1,2,4.")
    return [int(text) for text in batches]
