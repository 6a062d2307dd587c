r"""Speed on one GPU: steps of this project, and its network beside lumiere-pytorch's.

    pip install -e ".[cuda]"
    python3.11 -m venv runs/peers
    runs/peers/bin/pip install --no-deps -r benchmarks/peers/requirements.txt
    runs/peers/bin/pip install torch==2.13.0
    python benchmarks/gpu.py --config=configs/stunet.py:small --config.model.dtype=bfloat16 \
        --peers_python=runs/peers/bin/python

Prints two tables, and writes their figures to --output. The first has a training step of the
config and a denoising step of its sampler, as compiled by training and by pipelines. The second
lets networks take turns: lumiere-pytorch, plain and by `torch.compile`, and a space-time U-Net of
as many FLOPs, in bfloat16 with float32 weights (autocast there), each in a process of its own. MFU
is by the peak of NVIDIA's data sheet or, where the device is no GPU of `lumiere_jax.planning.gpus`,
by the fastest product of two matrices measured. It ends within --minutes: what there is no time for
is left out, and said. Without --peers_python the second table is left out. On a CPU, all runs in
float32, and sizes must be small: it serves to try the script.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from absl import flags

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.runtime import config_file, errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text

FOLDER = Path(__file__).parent
for below in ("claims", "peers"):
    sys.path.append(str(FOLDER / below))
import report  # noqa: E402

DENOISING_STEPS = 4
RUN_NAMES = {"forward": "forward pass", "sample": "sampling, 4 steps", "train": "training step"}


def peak_of(device: Any) -> tuple[float, str]:
    """FLOP/s at most of a device, and where that number is from."""
    import jax
    import jax.numpy as jnp

    from lumiere_jax.planning.gpus import GPUS

    for gpu in GPUS.values():
        if device.device_kind.startswith(gpu.kind):
            return gpu.peak, f"data sheet of {gpu.kind}"
    is_cpu = device.platform == "cpu"
    size, dtype = (1024, jnp.float32) if is_cpu else (8192, jnp.bfloat16)
    square = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    times = [seconds_of(lambda: jax.block_until_ready(product(square, square))) for _ in range(6)]
    return 2 * size**3 / min(times[1:]), f"measured, a product of {size}² in {dtype.__name__}"


def seconds_of(run: Callable[[], Any]) -> float:
    """Of one run, which is to wait for its result."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def timed(run: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Seconds of the first run, with what it compiles, and of those that count."""
    first, *seconds = (seconds_of(run) for _ in range(rounds + 1))
    return {"first": first, "seconds": seconds}


def steps_of(config: ConfigDict, rounds: int) -> dict[str, dict[str, Any]]:
    """The training step of a config, and a denoising step of its sampler, with guidance.

    Returns:
      For each: times, of one step, "flops" and "clips".
    """
    import frame_costs
    import jax
    import numpy as np

    from lumiere_jax.cascade.denoising import Inputs
    from lumiere_jax.cascade.sampling_options import SamplingOptions
    from lumiere_jax.cascade.stage import Stage
    from lumiere_jax.inference.sampling import StageSampler, sample_keys
    from lumiere_jax.planning import flops, steps

    config.allow_untrained_start = True
    stage = Stage.from_config(config)
    begin = time.perf_counter()
    _, run, operations = frame_costs.training_step(stage)
    compiled = time.perf_counter() - begin
    found = {"training step": timed(run, rounds)}
    found["training step"]["first"] += compiled
    found["training step"] |= {"flops": operations.total, "clips": config.train.batch_size}
    del run  # and with it the state

    options = SamplingOptions.from_config(stage.config, num_steps=DENOISING_STEPS)
    shapes = steps.sampler_inputs(stage, 1, config.data.num_frames)
    given = {name: x for name, x in shapes._asdict().items() if x is not None and name != "keys"}
    fields = {name: np.ones(x.shape, x.dtype) for name, x in given.items()}
    inputs = Inputs(keys=sample_keys([0], 0), **fields)
    sampler = StageSampler(stage, options)
    params = jax.jit(stage.init_params)(jax.random.key(0))
    cell = timed(lambda: sampler(params, inputs), rounds)
    one = StageSampler(stage, steps.one_step(config))
    found["denoising step"] = {
        "first": cell["first"],
        "seconds": [seconds / DENOISING_STEPS for seconds in cell["seconds"]],
        "flops": flops.count(one.sample, stage.param_shapes, shapes).total,
        "clips": 1,
    }
    return found


def beside_torch(
    python: str, shape: tuple[int, ...], rounds: int, on_gpu: bool, until: float
) -> dict[str, dict[str, Any]]:
    """lumiere-pytorch, plain and compiled, and a network of as many FLOPs, in turns.

    Args:
      python: of the environment of the other implementations.
      shape: of the clips, [batch, time, height, width, 3].
      rounds: of each kind of run.
      on_gpu: whether all run on a GPU, in bfloat16.
      until: by `time.monotonic`; no kind of run is begun after it.

    Returns:
      By network, its "parameters", "flops" and "runs".
    """
    import matching
    import processes

    batch, frames, size = shape[:3]
    setting = [f"--batch={batch}", f"--frames={frames}", f"--size={size}"]
    theirs = {"model": "lumiere-pytorch", "threads": os.cpu_count(), "gpu": on_gpu}
    with processes.torch_worker(python, setting, count=True, **theirs) as counting:
        counted = counting.hello
    length, dim = processes.TEXT_LENGTH, processes.TEXT_DIM
    fields = matching.matched(counted["flops"]["forward"], "flops", shape, length, dim)
    flops = {name: counted["flops"] for name in ("torch", "torch.compile")}
    flops["space-time U-Net"] = matching.flops_of(fields, shape, length, dim)
    with (
        processes.torch_worker(python, setting, **theirs) as plain,
        processes.torch_worker(python, setting, compile=True, **theirs) as compiled,
        processes.stunet_worker(setting, fields=json.dumps(fields), bfloat16=on_gpu) as ours,
    ):
        workers = {"torch": plain, "torch.compile": compiled, "space-time U-Net": ours}
        found = {
            name: {"parameters": worker.hello["parameters"], "flops": flops[name], "runs": {}}
            for name, worker in workers.items()
        }
        for run in processes.RUNS:
            if time.monotonic() > until:
                print(f"no time is left for: {RUN_NAMES[run]}", flush=True)
                continue
            for name, cells in processes.measure_rounds(workers, [run], rounds).items():
                found[name]["runs"] |= cells
    return found


def text(result: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    peak = result["peak"]
    parts = [
        f"{result['device']}, {result['machine']}, {result['date']}; peak {peak / 1e12:.3g} "
        f"TFLOP/s ({result['peak_from']}).",
        f"`{result['config']}`, batch and clips as there:",
        report.table(
            ("", "seconds", "clips/s", "TFLOP", "MFU", "first, compiled"),
            [
                (name, *_figures(cell, cell["flops"], cell["clips"], peak))
                for name, cell in result["steps"].items()
            ],
        ),
    ]
    if networks := result.get("networks"):
        rows = []
        for run, called in RUN_NAMES.items():
            for name, network in networks.items():
                if cell := network["runs"].get(run):
                    times = DENOISING_STEPS if run == "sample" else 1
                    work = network["flops"]["train" if run == "train" else "forward"] * times
                    rows.append((called, name, *_figures(cell, work, result["shape"][0], peak)))
        head = ("", "network", "seconds", "clips/s", "TFLOP", "MFU", "first, compiled")
        parts += [f"Clips of {result['shape']}, networks of equal FLOPs:", report.table(head, rows)]
    return "\n\n".join(parts)


def _figures(cell: dict[str, Any], work: float, clips: int, peak: float) -> tuple[str, ...]:
    if "error" in cell:
        return (f"fails: {cell['error']}", "", "", "", "")
    seconds = statistics.median(cell["seconds"])
    rate, share = f"{clips / seconds:.3g}", f"{work / seconds / peak:.1%}"
    return f"{seconds:.4g}", rate, f"{work / 1e12:.3g}", share, f"{cell['first']:.1f}"


def define_flags() -> None:
    """Defines the flags of this script; not on import, so that tests can import it."""
    config_file.define_flag("File of configs/, with a variant after a colon, and its changes.")
    flags.DEFINE_string("peers_python", "", "Python that has lumiere-pytorch; see above.")
    flags.DEFINE_string("output", "benchmarks/results/gpu.json", "The file.")
    flags.DEFINE_integer("rounds", 10, "Runs of each kind that count.", lower_bound=1)
    flags.DEFINE_integer("frames", 16, "Frames of a clip, beside torch.", lower_bound=1)
    flags.DEFINE_integer("size", 64, "Height and width of a frame, beside torch.", lower_bound=8)
    flags.DEFINE_integer("batch", 8, "Clips of a run, beside torch.", lower_bound=1)
    flags.DEFINE_float("minutes", 8.0, "After these, no kind of run is begun.", lower_bound=0)
    flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Measures, prints the tables, and writes the figures."""
    del argv
    given, begin = flags.FLAGS, time.monotonic()
    python = given.peers_python
    if python and not Path(python).is_file():
        raise UserError(
            f"--peers_python={python} is not there; make it as the beginning of benchmarks/gpu.py "
            "says, or leave it out."
        )
    # Several processes share the GPU, and one would take three quarters of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    device, config = jax.devices()[0], given.config
    if jax.device_count() > 1:
        raise UserError(
            f"there are {jax.device_count()} devices; show one: CUDA_VISIBLE_DEVICES=0."
        )
    on_gpu = device.platform != "cpu"
    if on_gpu and config.model.dtype != "bfloat16":
        print("warning: --config.model.dtype=bfloat16 is what a GPU is fast in")
    peak, peak_from = peak_of(device)
    shape = (given.batch, given.frames, given.size, given.size, 3)
    result: dict[str, Any] = {
        "device": device.device_kind,
        "machine": report.machine(),
        "date": date.today().isoformat(),
        "config": " ".join(a.removeprefix("--") for a in sys.argv[1:] if a.startswith("--config")),
        "peak": peak,
        "peak_from": peak_from,
        "steps": steps_of(config, given.rounds),
        "shape": list(shape),
    }
    if python:
        until = begin + 60 * given.minutes
        result["networks"] = beside_torch(python, shape, given.rounds, on_gpu, until)
    write_text(Path(given.output), json.dumps(result, indent=1) + "\n")
    print(text(result))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
