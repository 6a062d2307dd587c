"""What a step of the space-time U-Net costs, by its number of frames; see temporal_downsampling.py.

A cell's settings are "variant" of configs/stunet.py, "mode" ("train" or "forward"), "frames",
"resampling" (whether time is down-sampled) and "batch".
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import report
import training_runs as runs
from jax.sharding import Mesh

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.models.parameters import count, partition
from lumiere_jax.planning import flops, topology
from lumiere_jax.planning.plan import make_plan
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import by_clip, check_batch, create_mesh, use_mesh
from lumiere_jax.training.initialization import initial_params, initial_state
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.step import compile_step

LEAST_SECONDS, LEAST_STEPS = 5.0, 5
SCRIPT = Path(__file__).with_name("temporal_downsampling.py")


def network_config(variant: str, frames: int, resampling: bool, batch: int) -> ConfigDict:
    """The config of a stunet with or without temporal resampling."""
    config = runs.config_of("stunet", variant)
    config.data.num_frames = frames
    config.model.temporal_resampling = resampling
    config.train.batch_size = batch
    return config


def measure_here(settings: dict[str, Any]) -> report.Cell:
    """Compiles and runs a step on this machine's CPU; call it in a fresh process.

    Args:
      settings: "variant", "mode", "frames", "resampling" and "batch".
    """
    before = peak_memory()
    jax.config.update("jax_platforms", "cpu")
    config = network_config(*(settings[k] for k in ("variant", "frames", "resampling", "batch")))
    config.allow_untrained_start = True
    stage = Stage.from_config(config)
    params = stage.param_shapes
    trainable, frozen = partition(params, stage.is_trainable)
    prepare = training_step if settings["mode"] == "train" else forward_pass
    compiled, run, operations = prepare(stage)
    seconds = step_times(run)
    memory = compiled.memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }
    growth = peak_memory() - before
    return {
        "fits": True,
        "trainable": count(trainable),
        "frozen": count(frozen),
        "flops": operations.total,
        **parts,
        "needed": sum(parts.values()),
        "process_growth": growth,
        "step_seconds": float(np.median(seconds)),
        "steps": len(seconds),
    }


def peak_memory() -> int:
    """The most memory that this process had, in bytes; on Linux without what its parent had."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def step_times(run: Callable[[], None]) -> list[float]:
    """Seconds of each of some calls, after one that is not counted."""
    run()
    seconds: list[float] = []
    while len(seconds) < LEAST_STEPS or sum(seconds) < LEAST_SECONDS:
        begin = time.monotonic()
        run()
        seconds.append(time.monotonic() - begin)
    return seconds


def training_step(stage: Stage) -> tuple[Any, Callable[[], None], flops.Flops]:
    """A training step, with clips split over the devices.

    Args:
      stage: whose config may start untrained.

    Returns:
      The compiled step, a function that runs it, and its operations.
    """
    config, mesh = stage.config, create_mesh(stage.config.mesh)
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    state = initial_state(stage, optimizer, mesh)
    batch = _made_up_batch(stage, mesh)
    compiled = compile_step(stage, optimizer, mesh, state, batch)

    def run() -> None:
        nonlocal state  # the step takes the old one's memory
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return compiled, run, flops.training_flops(stage, config.train.batch_size)


def forward_pass(stage: Stage) -> tuple[Any, Callable[[], None], flops.Flops]:
    """A pass of the network; see `training_step`."""
    mesh = create_mesh(stage.config.mesh)
    params = initial_params(stage, mesh)
    batch = _made_up_batch(stage, mesh)
    noisy = batch.pop("video")
    times = jax.device_put(jnp.zeros(len(noisy)), by_clip(mesh))
    if stage.is_super_resolution:  # a crop, as in training
        noisy = jnp.ones((len(noisy), *stage.clip_shape()))
        noisy = jax.device_put(noisy, by_clip(mesh))
        batch |= {"low_resolution": noisy, "augmentation_level": times}
    arguments = (params, noisy, times, batch)
    with use_mesh(mesh):
        compiled = jax.jit(lambda *given: stage.predict(*given)).lower(*arguments).compile()
    operations = flops.count(stage.predict, *arguments)
    return compiled, lambda: jax.block_until_ready(compiled(*arguments)), operations


def _made_up_batch(stage: Stage, mesh: Mesh) -> dict[str, jax.Array]:
    batch_size = stage.config.train.batch_size
    check_batch(batch_size, mesh)
    shapes = flops.batch_shapes(stage, batch_size)
    filled = {name: _filled(shape, jax.random.key(1)) for name, shape in shapes.items()}
    return jax.device_put(filled, by_clip(mesh))


def _filled(shape: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
    is_mask = shape.dtype == bool
    return jnp.ones(shape.shape, bool) if is_mask else jax.random.normal(key, shape.shape)


def in_fresh_process(settings: dict[str, Any], cache: str) -> report.Cell:
    """What `measure_here` or `compile_for_tpu` finds, in a process of its own.

    So its peak of memory is its own, and one that takes all memory is a result.

    Args:
      settings: of the cell; those with a "topology" are compiled for a TPU.
      cache: folder of former plans.

    Raises:
      UserError: if that process fails, with the end of its messages.
    """
    command = [sys.executable, str(SCRIPT), "--part=measure", f"--cache={cache}"]
    command.append(f"--settings={json.dumps(settings)}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -9:  # the system had no memory left
        return {"fits": False, "reason": "the process was killed for lack of memory"}
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compile_for_tpu(settings: dict[str, Any], cache: str) -> report.Cell:
    """What the TPU's compiler says of the training step; bytes and operations are of one chip.

    Args:
      settings: those of `measure_here`, and "topology".
      cache: folder of former plans, see `lumiere_jax.plan`.
    """
    config = network_config(*(settings[k] for k in ("variant", "frames", "resampling", "batch")))
    if settings["variant"] != "full":  # trying it out
        config.mesh.fsdp = 1
    target = topology.describe_slice(settings["topology"])
    plan = make_plan(config, target, cache=cache, name=f"configs/stunet.py:{settings['variant']}")
    names = ("fits", "trainable", "frozen", "arguments", "temporaries", "outputs", "needed", "hbm",
             "remat", "reason", "compile_seconds", "utilization", "versions")  # fmt: skip
    found = {name: getattr(plan, name) for name in names}
    return found | {"flops": plan.model_flops, "step_seconds": plan.seconds}
