"""What a step costs on a GPU at the very least, by what must be computed and moved (a roofline).

Without a GPU there is no compiler to ask, so this is a bound and no estimate. Every convolution and
matrix product takes the longer of two times: its operations at the peak, and its operands and its
result, once each, at the bandwidth of the memory (Williams et al., 2009). All that lies between is
taken to be fused into them for nothing, and the optimizer to read and write its state once.
"""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params
from jax.interpreters import partial_eval

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.inference.sampling import StageSampler
from lumiere_jax.planning import flops, steps
from lumiere_jax.planning.gpus import Gpu
from lumiere_jax.planning.report import amount
from lumiere_jax.planning.topology import GIB, Target
from lumiere_jax.runtime.errors import UserError

_NOT_KNOWN = (
    "how near kernels come to the peak; passes of norms, activations and copies over memory; what "
    "is in memory for a moment only; collectives between GPUs"
)
_KINDS = {"train": "training step", "sample": "denoising step"}

Operations = Counter[tuple[int, int]]
"""How often which convolution or product is done: by its operations, and bytes to read or write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """The least that a step takes. All figures of memory, work and time are for one GPU."""

    config: str  # its name, with the fields that were changed
    mode: str
    topology: str
    chips: int
    mesh: dict[str, int]
    batch: int  # clips, all GPUs together
    repeats: int  # steps for a batch: 1, or the number of denoising steps
    trainable: int
    frozen: int
    memory: int  # bytes there are
    state: int  # bytes of parameters and optimizer
    gradients: int  # bytes
    stored: int  # bytes that the forward pass keeps for the backward pass
    model_flops: float  # what mathematics needs
    flops: float  # with what is recomputed
    moved: float  # bytes to and from memory
    compute_seconds: float  # all operations at the peak
    memory_seconds: float  # all bytes at the bandwidth
    seconds: float  # the longer of the two for each operation, and the optimizer
    utilization: float  # `model_flops` by what the GPU could do in `seconds`: MFU at most
    unknown_loops: int  # of no known length: they count once
    date: str

    @property
    def needed(self) -> int:
        """Bytes that are held at one time, beside temporaries and before a compiler saves any."""
        return self.state + self.gradients + self.stored


def create(
    config: ConfigDict,
    gpu: Gpu,
    devices: Sequence[Any],
    mode: str,
    name: str,
    num_frames: int | None = None,
) -> Roofline:
    """The bound of a training or denoising step; nothing is compiled.

    Args:
      config: of the stage.
      gpu: its kind.
      devices: that stand in for the GPUs, as many, of any kind.
      mode: "train" or "sample".
      name: of the config, for the reader.
      num_frames: of a sampled clip, see `steps.sampling_step`.

    Raises:
      UserError: for another mode, or a config that makes no sense on so many devices.
    """
    if mode not in ("train", "sample"):
        raise UserError(f"--mode={mode}: for GPUs there are train and sample.")
    chips = len(devices)
    target = Target(
        name=f"{gpu.name}:{chips}", num_slices=1, chip=None, chips=chips, devices=devices
    )
    step = steps.create(config, target, "train" if mode == "train" else "sample", num_frames)
    stage = Stage.from_config(config, shapes_only=True)
    # A clip that is split is taken to be split evenly, with all that is done for it.
    space, stored, gradients, update = step.mesh.shape["space"], 0, 0, 0
    clips = step.batch * space // chips
    if mode == "train":
        loss, arguments = flops.loss_of(stage, clips)
        operations, loops = count(jax.value_and_grad(loss), *arguments)
        stored = stored_bytes(loss, *arguments) // space
        gradients = steps.bytes_a_device(step.arguments[0].trainable)
        # Parameters, averages and moments are read and written; gradients written and read.
        update = 2 * (step.held + gradients)
    else:
        frames = num_frames or (steps.LUMIERE_FRAMES if stage.name == "ssr" else None)
        sampler = StageSampler(stage, steps.one_step(config), frames)
        inputs = steps.sampler_inputs(stage, clips, frames or config.data.num_frames)
        operations, loops = count(sampler.sample, stage.param_shapes, inputs)
    done = sum(times * work for (work, _), times in operations.items()) / space
    moved = sum(times * size for (_, size), times in operations.items()) / space + update
    seconds = bound(operations, gpu) / space + update / gpu.bandwidth
    return Roofline(
        config=name,
        mode=mode,
        topology=target.name,
        chips=chips,
        mesh=dict(step.mesh.shape),
        batch=step.batch,
        repeats=step.repeats,
        trainable=step.trainable,
        frozen=step.frozen,
        memory=gpu.memory,
        state=step.held,
        gradients=gradients,
        stored=stored,
        model_flops=step.model_flops / chips,
        flops=done,
        moved=moved,
        compute_seconds=done / gpu.peak,
        memory_seconds=moved / gpu.bandwidth,
        seconds=seconds,
        utilization=step.model_flops / chips / (seconds * gpu.peak),
        unknown_loops=loops,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def count(function: Callable[..., Any], *arguments: Any) -> tuple[Operations, int]:
    """Convolutions and matrix products of a function, and how many loops have no known length.

    What is inside of such a loop counts once; of branches, the most expensive one.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    alive, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(alive)


def _count(jaxpr: Jaxpr) -> tuple[Operations, int]:
    found, loops = Counter[tuple[int, int]](), 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("conv_general_dilated", "dot_general"):
            size = sum(_bytes(x) for x in (*equation.invars, *equation.outvars))
            found[flops.count_equation(equation).total, size] += 1
            continue
        inner = [_count(one) for one in jaxprs_in_params(equation.params)]
        if name == "cond":
            inner = [max(inner, key=lambda one: sum(n * work for (work, _), n in one[0].items()))]
        times = equation.params["length"] if name == "scan" else 1
        for operations, unknown in inner:
            found.update({key: times * number for key, number in operations.items()})
            loops += unknown + (name == "while" and bool(operations))
    return found, loops


def bound(operations: Operations, gpu: Gpu) -> float:
    """Seconds that they take, each as long as its operations or its bytes."""
    return sum(
        times * max(work / gpu.peak, size / gpu.bandwidth)
        for (work, size), times in operations.items()
    )


def stored_bytes(loss: Callable[..., jax.Array], trainable: Any, frozen: Any, batch: Any) -> int:
    """What a forward pass keeps for the gradients of `trainable`, by JAX, before any compiler.

    Weights do not count, nor what follows from them alone, as in another type; nor does the batch.
    """

    def kept(trainable: Any, frozen: Any, batch: Any) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(lambda x: loss(x, frozen, batch), trainable)[1])

    jaxpr = jax.make_jaxpr(kept)(trainable, frozen, batch).jaxpr
    inputs = jaxpr.invars[-len(jax.tree.leaves(batch)) :]
    reached, made = set(inputs), set()
    for equation in jaxpr.eqns:
        if any(not isinstance(x, Literal) and x in reached for x in equation.invars):
            reached |= set(equation.outvars)
            made |= set(equation.outvars)
    found = {x for x in jaxpr.outvars if not isinstance(x, Literal) and x in made}
    return sum(_bytes(x) for x in found)


def _bytes(variable: Any) -> int:
    return variable.aval.size * variable.aval.dtype.itemsize


def text(found: Roofline) -> str:
    """A bound, one line for each figure."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in found.mesh.items())
    state, gradients, stored, needed, memory = (
        f"{size / GIB:.1f}"
        for size in (found.state, found.gradients, found.stored, found.needed, found.memory)
    )
    verdict = "it may fit" if found.needed < found.memory else "it will hardly fit"
    parts = f"state {state}, gradients {gradients}, kept for the backward pass {stored}"
    rate = found.batch / (found.seconds * found.repeats)
    steps_ = f" of {found.repeats} denoising steps" if found.mode == "sample" else ""
    loops = f"; {found.unknown_loops} loops of unknown length count once" * bool(
        found.unknown_loops
    )
    rows = {
        "devices": f"{found.chips:,} {'GPUs' if found.chips > 1 else 'GPU'}; mesh {mesh}",
        "parameters": f"{amount(found.trainable)} trained, {amount(found.frozen)} frozen",
        "batch": f"{found.batch:,} clips, {found.batch / found.chips:.3g} per GPU",
        "memory per GPU": f"{needed} of {memory} GiB, and temporaries ({parts}): {verdict}",
        "work per GPU": f"{found.model_flops / 1e12:.4g} TFLOP needed, {found.flops / 1e12:.4g} "
        f"with recomputation: {found.compute_seconds:.4g} s at the peak",
        "bytes per GPU": f"{found.moved / 1e9:,.4g} GB at least: {found.memory_seconds:.4g} s at "
        "the bandwidth",
        "time": f"{found.seconds:.4g} s at least, MFU {found.utilization:.1%} at most",
        "throughput": f"{rate:.4g} clips/s{steps_} at most",
        "not counted": _NOT_KNOWN + loops,
    }
    title = (
        f"{found.config or 'this config'}: one {_KINDS[found.mode]} on {found.topology}, a bound"
    )
    return "\n".join([title, *(f"  {name:<22}{row}" for name, row in rows.items())])
