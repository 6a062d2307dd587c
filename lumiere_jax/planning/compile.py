"""The real training and sampling steps, made ready for the compiler by shapes alone."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.inference.sampling import (
    SamplingOptions,
    make_base_sampler,
    make_super_resolution_sampler,
)
from lumiere_jax.models.parameters import count
from lumiere_jax.planning import flops
from lumiere_jax.planning.topology import Target
from lumiere_jax.runtime.sharding import (
    batch_parts,
    by_clip,
    check_batch,
    create_mesh,
    state_shardings,
    use_mesh,
    with_shardings,
)
from lumiere_jax.training.initialization import state_shapes
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.step import compile_step

LUMIERE_FRAMES = 80  # the clip length of the paper


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step that can be compiled, with what is known of it before.

    Attributes:
      compile: compiles it.
      mesh: that it runs on.
      batch: clips it works on, over all devices.
      repeats: how often it runs for one batch: 1, or the number of denoising steps.
      trainable: number of trained parameters; 0 for sampling.
      frozen: number of all others.
      held: bytes a device of parameters and optimizer state.
      model_flops: what mathematics needs, all devices together.
    """

    compile: Callable[[], jax.stages.Compiled]
    mesh: Mesh
    batch: int
    repeats: int
    trainable: int
    frozen: int
    held: int
    model_flops: int


def training_step(config: ConfigDict, target: Target) -> Step:
    """The training step of a config, as `lumiere_jax.training.train` compiles it.

    Raises:
      UserError: if the config makes no sense, or its batch or mesh do not fit the devices.
    """
    stage, batch_size = Stage.from_config(config, shapes_only=True), config.train.batch_size
    mesh = create_mesh(config.mesh, target.devices)
    check_batch(batch_size, mesh)
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    state = state_shapes(stage, optimizer, mesh)
    batch = place(flops.batch_shapes(stage, batch_size), by_clip(mesh))
    return Step(
        compile=functools.partial(compile_step, stage, optimizer, mesh, state, batch),
        mesh=mesh,
        batch=batch_size,
        repeats=1,
        trainable=count(state.trainable),
        frozen=count(state.frozen),
        held=bytes_a_device(state),
        model_flops=flops.training_flops(stage, batch_size).total,
    )


def sampling_step(config: ConfigDict, target: Target, num_frames: int | None = None) -> Step:
    """One denoising step of a config's sampler, guidance and MultiDiffusion included.

    Clips are split over "space" into as many parts as go, and each position of the mesh's other
    axes has a clip of its own, unless `config.mesh` says otherwise.

    Args:
      config: of any stage.
      target: the devices.
      num_frames: of a clip; None: 80 for the stage "ssr", what the config says for all others.

    Raises:
      UserError: if the config makes no sense, or its mesh does not fit the devices.
    """
    stage = Stage.from_config(config, shapes_only=True)
    if num_frames is None:
        num_frames = LUMIERE_FRAMES if stage.name == "ssr" else config.data.num_frames
    mesh = _sampling_mesh(stage, target, num_frames)
    batch_size = batch_parts(mesh)
    params = jax.eval_shape(stage.init_params, jax.random.key(0))
    placed = with_shardings(params, state_shardings(params, mesh))
    inputs = _sampler_inputs(stage, batch_size, num_frames)
    options = SamplingOptions.from_config(config, num_steps=1)

    def new_sampler() -> Callable[..., jax.Array]:
        if stage.is_super_resolution:
            return make_super_resolution_sampler(stage, options)
        return make_base_sampler(stage, options, num_frames)

    def compile_sampler() -> jax.stages.Compiled:
        with use_mesh(mesh, "windows" if stage.is_super_resolution else "height"):
            return new_sampler().lower(placed, *place(inputs, by_clip(mesh))).compile()

    return Step(
        compile=compile_sampler,
        mesh=mesh,
        batch=batch_size,
        repeats=config.sampling.num_steps,
        trainable=0,
        frozen=count(params),
        held=bytes_a_device(placed),
        # Traced outside of the mesh: no windows that only fill up a chunk.
        model_flops=flops.count(new_sampler(), params, *inputs).total,
    )


def _sampling_mesh(stage: Stage, target: Target, num_frames: int) -> Mesh:
    config = stage.config.mesh.copy_and_resolve_references()
    if (config.data, config.fsdp, config.space) == (-1, 1, 1):
        devices = len(target.devices) // target.num_slices
        fitting = [n for n in range(1, devices + 1) if devices % n == 0]
        config.space = max(n for n in fitting if stage.splits_into(n, num_frames))
    return create_mesh(config, target.devices)


def _sampler_inputs(stage: Stage, batch_size: int, num_frames: int) -> tuple[Any, ...]:
    """Shapes of what a sampler takes after the parameters."""
    text = flops.batch_shapes(stage, batch_size)
    key = jax.eval_shape(lambda: jax.random.key(0)).dtype
    inputs = (text["text"], text["text_mask"], jax.ShapeDtypeStruct((batch_size,), key))
    if not stage.is_super_resolution:
        size = stage.config.data.resolution
        known = jax.ShapeDtypeStruct((batch_size, num_frames, size, size, 4), jnp.float32)
        return *inputs, ({"known": known} if stage.is_conditional else {})
    size = stage.config.data.resolution // stage.config.ssr.factor
    return jax.ShapeDtypeStruct((batch_size, num_frames, size, size, 3), jnp.float32), *inputs


def place(shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of shapes that all have one sharding."""
    return with_shardings(shapes, jax.tree.map(lambda _: sharding, shapes))


def bytes_a_device(placed: Any) -> int:
    """What a device holds of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(placed)
    )
