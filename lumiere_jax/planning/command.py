"""What `lumiere_jax.plan` does with its flags."""

import functools
import json
from pathlib import Path

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.planning import report, topology
from lumiere_jax.planning.plan import Plan, make_plan
from lumiere_jax.planning.search import search
from lumiere_jax.runtime.errors import UserError


def run(
    config: ConfigDict | None,
    *,
    name: str,
    topology_name: str,
    num_slices: int = 1,
    mode: str = "train",
    num_frames: int | None = None,
    clips: int = 30_000_000,
    batches: list[str] | None = None,
    as_json: bool = False,
    output: str | None = None,
    cache: str | None = None,
) -> list[Plan]:
    """Makes one plan, or those of a search, and prints them; see the flags of the binary.

    Args:
      config: of the stage; None for "features" and "text".
      name: of the config, for the reader.
      topology_name: of the slice.
      num_slices: of that topology.
      mode: "train", "sample", "features" or "text".
      num_frames: of a clip that is sampled or judged.
      clips: to state the time for.
      batches: clips a device that a search tries, None for no search; or those of "features",
        or prompts a device of "text".
      as_json: print JSON.
      output: file to append JSON lines to.
      cache: folder of former plans.

    Raises:
      UserError: for anything that does not fit together.
    """
    sizes = _batches(batches, mode)
    if output is not None and not Path(output).parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {Path(output).parent}; create it.")
    target = topology.describe_slice(topology_name, num_slices)
    plan = functools.partial(
        make_plan, target=target, mode=mode, name=name, num_frames=num_frames, cache=cache
    )
    if mode in ("features", "text"):
        plans = [plan(ConfigDict({"clips_a_device": size, "model": {}})) for size in sizes]
    else:
        plans = search(config, target, plan, sizes) if sizes else [plan(config)]
    lines = [json.dumps(plan.to_json(clips)) for plan in plans]
    if output is not None:
        with Path(output).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    if as_json:
        print("\n".join(lines))
    else:
        print(report.table(plans) if sizes else report.text(plans[0], clips))
    return plans


def _batches(batches: list[str] | None, mode: str) -> list[int]:
    if batches is None:
        return []
    if mode == "sample":
        raise UserError("--search tries ways to train; leave out --mode=sample.")
    if not batches or not all(text.strip().isdecimal() and int(text) > 0 for text in batches):
        raise UserError(f"--batches={','.join(batches)} must be numbers of clips, as in 1,2,4.")
    return [int(text) for text in batches]
