"""Plans for people to read."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lumiere_jax.planning.cascade import CascadePlan
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.topology import GIB
from lumiere_jax.runtime.errors import UserError

_KINDS = {"train": "training step", "sample": "denoising step",
          "training_samples": "denoising step of samples during training",
          "features": "batch of features", "text": "batch of prompts"}  # fmt: skip


def text(plan: Plan, clips: int = 0) -> str:
    """A plan, one line for each figure; with the time that a number of `clips` takes."""
    slices = f"{plan.num_slices} × " if plan.num_slices > 1 else ""
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    loops = ", ".join(plan.unknown_loops)
    versions = [f"{name} {version}" for name, version in plan.versions.items() if version]
    title = f"{plan.config or 'this config'}: one {_KINDS[plan.mode]} on {slices}{plan.topology}"
    rows = {
        "devices": f"{plan.chips:,} chips; mesh {mesh}",
        "parameters": f"{amount(plan.trainable)} trained, {amount(plan.frozen)} frozen",
        "batch": f"{plan.batch:,} {_unit(plan)}, {plan.batch / plan.chips:.3g} per chip",
        "memory per chip": _memory(plan),
        "work per chip": _work(plan),
        "compute time": _time(plan),
        "with collectives": _time_with_collectives(plan),
        "clock": plan.clock_note if plan.seconds else "",
        "collectives per chip": _collectives(plan),
        "throughput": _throughput(plan),
        f"{clips:,} {_unit(plan)}": _duration(plan, clips) if clips else "",
        "not counted": f"loops of unknown length count once: {loops}" if loops else "",
        "not estimated": _not_estimated(plan),
        "compiled": f"in {plan.compile_seconds:.0f} s on {plan.date}, {', '.join(versions)}",
    }
    return "\n".join([title, *(f"  {name:<22}{row}" for name, row in rows.items() if row)])


def table(plans: list[Plan]) -> str:
    """Plans of a search, a row each, in the order given; advice below."""
    unit = _unit(plans[0])
    rows = [("", "remat", f"{unit} per chip", "mesh", "GiB per chip", "fits", "s per step", "MFU",
             "with collectives", "MFU", f"{unit}/s per chip")]  # fmt: skip
    notes = []
    for number, plan in enumerate(plans, 1):
        rate, used = plan.clips_a_second, plan.utilization
        seconds, with_them = plan.seconds_with_collectives, plan.utilization_with_collectives
        rows.append((
            str(number), plan.remat, f"{plan.batch / plan.chips:.3g}",
            "×".join(map(str, plan.mesh.values())), _gib(plan.needed), "yes" if plan.fits else "no",
            f"{plan.seconds:.3f}" if plan.seconds else "-", f"{used:.1%}" if used else "-",
            f"{seconds:.3f}" if seconds else "-", f"{with_them:.1%}" if with_them else "-",
            f"{rate / plan.chips:.3g}" if rate else "-",
        ))  # fmt: skip
        notes += [f"{number}: {line}" for line in plan.advice]
    return "\n".join(
        [*aligned(rows), *notes, "Times are the compiler's estimate; no hardware was timed."]
    )


def where(plan: Plan) -> str:
    """Where the time of a step goes: a table of kinds of work, and one of modules."""
    if not plan.where or not plan.seconds:
        return "where the time goes: not known, since the compiler gave no estimate"
    peak = plan.model_flops / (plan.seconds * cast("float", plan.utilization))
    kinds, modules = plan.where["kinds"], plan.where["modules"]
    waiting = sum(row["waiting"] for row in kinds)
    needed = sum(row["flops"] - row["repeated"] for row in kinds)
    more = (needed - plan.model_flops) / (plan.seconds * peak)
    told = [_cells(plan, row, peak) for row in modules]
    lines = [
        f"where {plan.seconds * 1e3:.4g} ms of compute on a chip go, by the compiler's estimate:",
        *aligned([_HEAD, *(_cells(plan, row, peak) for row in kinds)], texts=2),
        f"The MFU of {plan.utilization:.1%}, what kinds lose, and {more:.1%} for products that are "
        f"not needed make 100%. Runs that HBM holds up take {waiting * 1e3:.4g} ms.",
        *aligned([("module", *_HEAD[2:]), *(row[:1] + row[2:] for row in told)], texts=1),
    ]
    return "\n".join(line.rstrip() for line in lines)


_HEAD = ("kind", "part", "ms", "share", "TFLOP", "of peak", "GB", "of HBM", "ms waiting for HBM",
         "MFU lost")  # fmt: skip


def _cells(plan: Plan, row: dict[str, Any], peak: float) -> tuple[str, ...]:
    seconds, flops = row["seconds"], row["flops"]
    share, whole = seconds / cast("float", plan.seconds), cast("float", plan.seconds) * peak
    lost = share - (flops - row["repeated"]) / whole
    return (
        row["name"], row["part"], f"{seconds * 1e3:.3f}", f"{share:.1%}",
        f"{flops / 1e12:.4g}" if flops else "-",
        f"{flops / seconds / peak:.0%}" if flops else "-",
        f"{row['bytes'] / 1e9:.3g}", f"{row['hbm_bytes'] / 1e9:.3g}",
        f"{row['waiting'] * 1e3:.3f}", f"{lost:.1%}",
    )  # fmt: skip


def cascade(whole: CascadePlan) -> str:
    """A cascade: its stages, its memory, and a table of times."""
    plans = whole.plans
    names = " and ".join(plans[name].config for name in ("base", "ssr") if name in plans)
    rows = {
        "devices": f"{whole.chips:,} chips",
        **{name: _step_of(plan) for name, plan in plans.items()},
        "memory per chip": _memory_of(whole),
        "start": _start(whole),
        "clock": plans["base"].clock_note,
    }
    columns = ("steps", "base + ssr", "text s", "base s", "ssr s", "transfers s", "latency s",
               "prompts", "prompts an hour", "chip-seconds a prompt")  # fmt: skip
    cells = [
        (
            t.name, f"{t.steps[0]} + {t.steps[1]}",
            *(f"{s:.3g}" for s in (t.text, t.base, t.ssr, t.transfers, t.latency)),
            str(t.prompts), f"{t.prompts_an_hour:.4g}",
            f"{t.latency * whole.chips / t.prompts:.4g}",
        )
        for t in whole.times
    ]  # fmt: skip
    title = (
        f"{names}: from a prompt to {whole.frames}×{whole.side}×{whole.side} on {whole.topology}"
    )
    unguided = ["Distilled stages take no guidance."] if "unguided base" in plans else []
    no_text = [] if "text" in plans else ["The text encoder is not T5 XXL, and is not counted."]
    return "\n".join([
        title,
        *(f"  {name:<22}{row}" for name, row in rows.items() if row),
        *(aligned([columns, *cells], texts=2) if cells else []),
        *unguided,
        *no_text,
        "Times are the compiler's estimate and a model of links; no hardware was timed. Writing "
        "the video, and waiting between programs, are not counted.",
    ])  # fmt: skip


def _step_of(plan: Plan) -> str:
    mesh = "×".join(map(str, plan.mesh.values()))
    if not plan.fits:
        return f"mesh {mesh}: {_memory(plan)}"
    if not plan.seconds:
        return f"mesh {mesh}: no time is known"
    return (
        f"{plan.seconds_with_collectives:.4g} s for {plan.batch} {_unit(plan)}"
        f"{' a step' if plan.repeats > 1 else ''}, MFU {plan.utilization_with_collectives:.1%}; "
        f"without collectives {plan.seconds:.4g} s, {plan.utilization:.1%}; mesh {mesh}, "
        f"{_gib(plan.needed)} GiB"
    )


def _memory_of(whole: CascadePlan) -> str:
    if not whole.times:
        return "a stage does not fit: see above"
    beside = whole.needed - whole.weights - whole.programs
    return (
        f"{_gib(whole.needed)} of {_gib(whole.hbm)} GiB if all stages stay: weights "
        f"{_gib(whole.weights)}, programs {_gib(whole.programs)}, at most {_gib(beside)} while one "
        f"runs: {'it fits' if whole.fits else 'it does NOT fit; load each stage when it is needed'}"
    )


def _start(whole: CascadePlan) -> str:
    compiled = sum(plan.compile_seconds for plan in whole.plans.values()) / 60
    load = "not known, since the bandwidth to its hosts is not published"
    if whole.load is not None:
        load = f"{whole.load:.2g} s from the memory of the hosts"
    return f"weights and programs: {load}; compiled in {compiled:.0f} min on this machine"


def aligned(rows: Sequence[Sequence[str]], texts: int = 0) -> list[str]:
    """Rows of cells as lines; the first `texts` columns begin at the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def amount(number: float) -> str:
    """A large number in short, such as "4.81B"."""
    for factor, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{suffix}"
    return f"{number:.3g}"


def _unit(plan: Plan) -> str:
    return "prompts" if plan.mode == "text" else "clips"


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.1f}"


def _memory(plan: Plan) -> str:
    limit = f" of {_gib(plan.hbm)}" if plan.hbm else ""
    if not plan.fits:
        return (
            f"{_gib(plan.needed)}{limit} GiB (state {_gib(plan.arguments)}): it does NOT fit. What "
            f"helps: {'; '.join(plan.advice)}"
        )
    parts = ("arguments", "temporaries", "outputs", "program")
    sizes = ", ".join(f"{part} {_gib(getattr(plan, part))}" for part in parts)
    return f"{_gib(plan.needed)}{limit} GiB ({sizes}){': it fits' if plan.hbm else ''}"


def _work(plan: Plan) -> str:
    line = f"{plan.model_flops / 1e12:.4g} TFLOP needed"
    if plan.compiled_flops:
        line += f", {plan.compiled_flops / 1e12:.4g} compiled (with recomputation)"
    return line


def _time(plan: Plan) -> str:
    if not plan.seconds:
        return ""
    return (
        f"{plan.seconds:.4g} s, MFU {plan.utilization:.1%}: the compiler's estimate, without "
        "waiting for collectives; no hardware was timed"
    )


def _time_with_collectives(plan: Plan) -> str:
    if not plan.seconds_with_collectives:
        return ""
    waited = sum(traffic["waited"] for traffic in plan.collectives.values())
    on_links = sum(traffic["seconds"] for traffic in plan.collectives.values())
    return (
        f"{plan.seconds_with_collectives:.4g} s, MFU {plan.utilization_with_collectives:.1%}: "
        f"{waited:.3g} s of waiting for {on_links:.3g} s on the links, by a simple model of these"
    )


def _not_estimated(plan: Plan) -> str:
    names, count = ", ".join(plan.unknown_cycles[:4]), len(plan.unknown_cycles)
    if not count:
        return ""
    return (
        f"{count} instructions, of which the compiler does not say how long they take, count as "
        f"nothing ({names}, …); HBM needs {plan.unknown_seconds:.3g} s for them"
    )


def _collectives(plan: Plan) -> str:
    kinds = plan.collectives.items()
    rows = [f"{t['count']:,} {kind} ({t['bytes'] / 1e6:,.4g} MB)" for kind, t in kinds]
    return ", ".join(rows) or "none" if plan.fits else ""


def _throughput(plan: Plan) -> str:
    if not plan.clips_a_second:
        return ""
    steps = f" of {plan.repeats} denoising steps" if "sample" in plan.mode else ""
    return f"{plan.clips_a_second:.4g} {_unit(plan)}/s{steps}, by the same estimate"


def _duration(plan: Plan, clips: int) -> str:
    hours = plan.hours(clips)
    return f"{hours:,.1f} hours, {hours * plan.chips:,.0f} chip-hours" if hours else ""


def read(place: str | Path) -> list[str]:
    """Plans as text, from the file that `lumiere_jax.plan --output` wrote; else a `UserError`."""
    names = {field.name for field in dataclasses.fields(Plan)}
    try:
        text_lines = Path(place).expanduser().read_text(encoding="utf-8").splitlines()
        # Version 0.1.0 spelt one of the names otherwise.
        lines = [json.loads(line.replace('"utilisation"', '"utilization"')) for line in text_lines]
        plans = [Plan(**{k: v for k, v in line.items() if k in names}) for line in lines]
        if not plans:
            raise ValueError("it is empty")
        return [text(plan) for plan in plans]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{str(place):.200} holds no plans ({error}); give the --output of lumiere_jax.plan."
        ) from error
