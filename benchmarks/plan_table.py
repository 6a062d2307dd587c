"""Turns the JSON lines of `python -m lumiere_jax.plan ... --output=FILE` into Markdown tables.

Those of `--mode=cascade` make a table of their own.

python benchmarks/plan_table.py --input=benchmarks/results/plans.jsonl
"""

import json
from pathlib import Path

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_INPUT = flags.DEFINE_string("input", None, "File of JSON lines.")
flags.mark_flags_as_required(["input"])

COLUMNS = (
    "config", "mode", "slice", "mesh", "clips per chip", "remat",
    "HBM per chip: all (state + rest)", "TFLOP per chip: needed / compiled", "estimated compute",
    "MFU", "with collectives", "MFU", "collectives per chip", "compiled in", "date",
)  # fmt: skip


CASCADE_COLUMNS = (
    "slice", "steps", "base + SSR", "text", "base", "SSR", "transfers", "a batch of prompts takes",
    "prompts", "prompts an hour", "HBM per chip if all stages stay",
)  # fmt: skip


def cascade_rows(plan: dict) -> list[list[str]]:
    """The cells of a cascade, a row for each number of steps."""
    gib = f"{plan['needed'] / 2**30:.1f} of {plan['hbm'] / 2**30:.0f} GiB"
    memory = gib if plan["fits"] else f"**does not fit**, {gib}"
    return [
        [
            plan["topology"],
            times["name"],
            " + ".join(map(str, times["steps"])),
            *(
                f"{times[part]:.3g} s" for part in ("text", "base", "ssr", "transfers", "latency")
            ),
            str(times["prompts"]),
            f"{times['prompts_an_hour']:.4g}",
            memory,
        ]
        for times in plan["times"]
    ]  # fmt: skip


def row(plan: dict) -> list[str]:
    """The cells of one plan."""
    slices = f"{plan['num_slices']} × " if plan["num_slices"] > 1 else ""
    traffic = [
        f"{t['count']} {kind}, {t['bytes'] / 1e9:.3g} GB" for kind, t in plan["collectives"].items()
    ]
    return [
        plan["config"],
        plan["mode"],
        slices + plan["topology"],
        "×".join(str(size) for size in plan["mesh"].values()),
        f"{plan['batch'] / plan['chips']:.3g}",
        plan["remat"] if plan["mode"] == "train" else "-",
        memory(plan),
        work(plan),
        f"{plan['seconds']:.3f} s" if plan["seconds"] else "-",
        f"{plan['utilization']:.1%}" if plan["utilization"] else "-",
        *with_collectives(plan),
        "; ".join(traffic) or ("none" if plan["fits"] else "-"),
        f"{plan['compile_seconds'] / 60:.1f} min",
        plan["date"],
    ]


def with_collectives(plan: dict) -> tuple[str, str]:
    """Time and utilization with waiting for collectives, which early plans do not have."""
    if not plan.get("seconds_with_collectives"):
        return "-", "-"
    seconds, used = plan["seconds_with_collectives"], plan["utilization_with_collectives"]
    return f"{seconds:.3f} s", f"{used:.1%}"


def memory(plan: dict) -> str:
    """Memory of a plan, in GiB."""
    needed = "?" if plan["needed"] is None else f"{plan['needed'] / 2**30:.1f}"
    limit = f"{needed} of {plan['hbm'] / 2**30:.0f} GiB"
    if not plan["fits"]:
        return f"**does not fit**, {limit}: {'; '.join(plan['advice'])}"
    state = plan["arguments"] / 2**30
    return f"{limit} ({state:.1f} + {plan['needed'] / 2**30 - state:.1f})"


def work(plan: dict) -> str:
    """Floating-point operations of a plan, in TFLOP."""
    compiled = plan["compiled_flops"]
    return f"{plan['model_flops'] / 1e12:.4g} / {f'{compiled / 1e12:.4g}' if compiled else '-'}"


def main(argv: list[str]) -> None:
    """Prints the tables."""
    del argv
    path = Path(_INPUT.value)
    if not path.is_file():
        raise UserError(f"--input={path}: there is no such file; make it with lumiere_jax.plan.")
    plans = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    steps = [row(plan) for plan in plans if "times" not in plan]
    cascades = [cells for plan in plans if "times" in plan for cells in cascade_rows(plan)]
    for columns, rows in ((COLUMNS, steps), (CASCADE_COLUMNS, cascades)):
        for cells in (columns, ["---"] * len(columns), *rows) if rows else ():
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    errors.run(main)
