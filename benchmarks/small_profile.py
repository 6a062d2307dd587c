"""Where the time of the variant `small` goes, and how close it comes to this CPU's matrix peak.

    python benchmarks/small_profile.py

Runs a forward pass, as in sampling, and a training step of each stage of --stages, at the shapes
with which the shipped weights were trained, on one device per core. Time, floating-point operations
(`lumiere_jax/planning/flops.py`) and the shares of the kinds of operation (the profiler's, by what
a fused operation contains) go to benchmarks/results/small_profile.json; `benchmarks/vs_peers.py`
writes them into `benchmarks/peers.md`.
"""

import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from absl import flags

from lumiere_jax.runtime import devices, errors
from lumiere_jax.runtime.files import write_text

sys.path.append(str(Path(__file__).parent / "claims"))
import report  # noqa: E402

LEAST_SECONDS, LEAST_RUNS, PROFILED = 10.0, 3, 2
LARGEST_KERNEL = 3
KINDS = {
    "convolution": "convolutions, forward",
    "convolution^T": "convolutions, gradients of their inputs",
    "kernel^T": "convolutions, gradients of their kernels",
    "dot": "matrix products",
    "optimizer": "matrix products of the optimizer (Muon)",
    "other": "norms, activations, copies and the rest",
}


def seconds_of(run: Callable[[], Any]) -> float:
    """The median of some runs, after one that does not count."""
    run()
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or sum(seconds) < LEAST_SECONDS:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return sorted(seconds)[len(seconds) // 2]


def matrix_peak() -> float:
    """The most FLOP/s of float32 matrix products, one product of 1024 squared a device."""
    import jax
    import jax.numpy as jnp

    devices = jax.devices()
    held = [jax.device_put(jnp.ones((1024, 1024)), device) for device in devices]
    product = jax.jit(lambda a: a @ a)
    run = lambda: jax.block_until_ready([product(a) for a in held])  # noqa: E731
    return len(devices) * 2 * 1024**3 / seconds_of(run)


def kinds_of_operations(program: str) -> dict[str, str]:
    """The kind, a key of `KINDS`, of each operation of a compiled program by its name."""
    bodies: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", program):
        if match := re.match(r"(?:ENTRY )?%?([\w.\-]+) ", block):
            bodies[match[1]] = block
    kinds, is_training = {}, "jvp(" in program
    for match in re.finditer(r"^\s+(?:ROOT )?%?([\w.\-]+) = .*$", program, re.MULTILINE):
        line = match[0]
        text = "\n".join(
            [line, *(bodies.get(n, "") for n in re.findall(r"calls=%?([\w.\-]+)", line))]
        )
        made_by = "".join(re.findall(r'op_name="[^"]*"', text))
        if found := re.search(r" convolution\(.*window={size=([\dx]+)", text):
            is_whole = max(map(int, found[1].split("x"))) > LARGEST_KERNEL  # all of an image
            is_gradient = "transpose(" in made_by
            kind = "kernel^T" if is_whole else "convolution^T" if is_gradient else "convolution"
            kinds[match[1]] = kind
        elif " dot(" in text or "__onednn$matmul" in text:
            is_optimizer = is_training and "jvp(" not in made_by
            kinds[match[1]] = "optimizer" if is_optimizer else "dot"
    return kinds


def profiled(run: Callable[[], Any], program: str) -> dict[str, float]:
    """Seconds that threads were busy with each kind of operation, over some runs."""
    import jax

    kinds, busy = kinds_of_operations(program), Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(PROFILED):
                run()
        for path in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
                for line in plane.lines:
                    for event in line.events:
                        stats = dict(event.stats)
                        if "hlo_op" in stats and not event.name.startswith(("end:", "Thunk")):
                            kind = kinds.get(str(stats["hlo_op"]), "other")
                            busy[KINDS[kind]] += event.duration_ns / 1e9
    return dict(busy)


def measure(stage_name: str, variant: str, mode: str) -> dict[str, Any]:
    """Time, operations and profile of one kind of step ("forward" or "train")."""
    import frame_costs
    import training_runs

    from lumiere_jax.cascade.stage import Stage

    config = training_runs.config_of(stage_name, variant)
    config.allow_untrained_start = True
    stage = Stage.from_config(config)
    prepare = frame_costs.training_step if mode == "train" else frame_costs.forward_pass
    compiled, run, operations = prepare(stage)
    seconds = seconds_of(run)
    return {
        "batch": config.train.batch_size,
        "flops": operations.total,
        "seconds": seconds,
        "kinds": profiled(run, compiled.as_text()),
    }


def define_flags() -> None:
    """Defines the flags of this script; not on import, so that tests can import it."""
    flags.DEFINE_string("output", "benchmarks/results/small_profile.json", "The file.")
    flags.DEFINE_list("stages", ["t2i", "stunet", "ssr"], "Stages, see configs/.")
    flags.DEFINE_string("variant", "small", "Variant of the configs.")


def main(argv: list[str]) -> None:
    """Measures all stages."""
    del argv
    given = flags.FLAGS
    devices.tune_for_small_networks()
    names = {"forward": "forward pass", "train": "training step"}
    result: dict[str, Any] = {"date": date.today().isoformat(), "runs": {}}
    result |= {"machine": report.machine(), "peak": matrix_peak()}
    print(f"matrix peak: {result['peak'] / 1e9:.0f} GFLOP/s", flush=True)
    for stage in given.stages:
        for mode, name in names.items():
            cell = measure(stage, given.variant, mode)
            rate = cell["flops"] / cell["seconds"]
            print(f"{stage}, {name}: {cell['seconds']:.3f} s, {rate / 1e9:.0f} GFLOP/s "
                  f"({rate / result['peak']:.0%})", cell["kinds"], flush=True)  # fmt: skip
            result["runs"][f"{stage}, {name}"] = cell
            write_text(Path(given.output), json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
