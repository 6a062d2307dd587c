"""What can be planned, ready for the compiler by shapes alone: nothing is allocated."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.inference.sampling import StageSampler
from lumiere_jax.metrics.i3d import I3D, MIN_FRAMES
from lumiere_jax.metrics.preprocessing import SIZE
from lumiere_jax.models.parameters import count, merge
from lumiere_jax.planning import flops
from lumiere_jax.planning.topology import Target
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import (
    batch_parts,
    by_clip,
    check_batch,
    create_mesh,
    on_every_device,
    replicated,
    state_shardings,
    use_mesh,
    with_shardings,
)
from lumiere_jax.text import t5, t5_weights
from lumiere_jax.text.t5_network import T5_V1_1_XXL, T5Encoder
from lumiere_jax.training.initialization import state_shapes
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.step import STEP, compile_step, step_identity

Mode = Literal["train", "sample", "training_samples", "features", "text"]
"""A training step, a denoising step, one of the samples of a training run beside its state, a batch
of I3D's features, or a batch of prompts for T5."""

LUMIERE_FRAMES = 80  # the clip length of the paper
FVD_FRAMES = 16
PROMPT_TOKENS = 128  # of a prompt in the full configs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step that can be compiled, with what is known of it before."""

    compile: Callable[[], jax.stages.Compiled]
    mesh: Mesh
    batch: int  # clips or prompts, over all devices
    repeats: int = 1  # runs for one batch: the number of denoising steps
    trainable: int = 0  # trained parameters
    frozen: int  # all other parameters
    held: int  # bytes of parameters and optimizer state on a device
    model_flops: int  # what mathematics needs, all devices together
    # How a program is found that is made ahead, see `Programs.get`; "" for one that is not.
    name: str = ""
    about: str = ""
    arguments: tuple[Any, ...] = ()


def create(config: ConfigDict, target: Target, mode: Mode, num_frames: int | None = None) -> Step:
    """The step of a mode.

    Args:
      config: of the stage; for "features" and "text", the field "clips_a_device" alone, of clips
        or prompts.
      target: the devices.
      mode: of `Mode`.
      num_frames: of a sampled clip or one for I3D, see `sampling_step`.

    Raises:
      UserError: if the config does not make sense on these devices.
    """
    if mode == "train":
        return training_step(config, target)
    if mode == "sample":
        return sampling_step(config, target, num_frames)
    if mode == "training_samples":
        return training_samples_step(config, target)
    if mode == "features":
        return feature_step(config.clips_a_device, target, num_frames or FVD_FRAMES)
    return embedding_step(config.clips_a_device, target)


def training_step(config: ConfigDict, target: Target) -> Step:
    """The training step of a config, as `lumiere_jax.training.train` compiles it."""
    stage, batch_size = Stage.from_config(config, shapes_only=True), config.train.batch_size
    mesh = create_mesh(config.mesh, target.devices)
    check_batch(batch_size, mesh)
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    state = state_shapes(stage, optimizer, mesh)
    batch = place(flops.batch_shapes(stage, batch_size), by_clip(mesh))
    batch |= place(flops.null_text_shapes(stage), replicated(mesh))
    return Step(
        compile=functools.partial(compile_step, stage, optimizer, mesh, state, batch),
        mesh=mesh,
        batch=batch_size,
        trainable=count(state.trainable),
        frozen=count(state.frozen),
        held=bytes_a_device(state),
        model_flops=flops.training_flops(stage, batch_size).total,
        name=STEP,
        about=step_identity(stage),
        arguments=(state, batch),
    )


def sampling_step(config: ConfigDict, target: Target, num_frames: int | None = None) -> Step:
    """One denoising step of a config's sampler, guidance and MultiDiffusion included.

    Clips are split over "space" into as many parts as possible, and each position of the mesh's
    other axes has a clip of its own, unless `config.mesh` says otherwise. They have `num_frames`;
    None: 80 for the stage "ssr", what the config says for all others.
    """
    stage = Stage.from_config(config, shapes_only=True)
    if num_frames is None:
        num_frames = LUMIERE_FRAMES if stage.name == "ssr" else config.data.num_frames
    mesh = _sampling_mesh(stage, target, num_frames)
    batch_size = batch_parts(mesh)
    params = stage.param_shapes
    placed = with_shardings(params, state_shardings(params, mesh))
    inputs = sampler_inputs(stage, batch_size, num_frames)
    sampler = StageSampler(stage, one_step(config), num_frames)

    def compile_sampler() -> jax.stages.Compiled:
        with use_mesh(mesh, "windows" if stage.is_super_resolution else "height"):
            return sampler.program.lower(placed, place(inputs, by_clip(mesh))).compile()

    return Step(
        compile=compile_sampler,
        mesh=mesh,
        batch=batch_size,
        repeats=config.sampling.num_steps,
        frozen=count(params),
        held=bytes_a_device(placed),
        # Traced outside of the mesh: no windows that only fill up a chunk.
        model_flops=flops.count(sampler.sample, params, inputs).total,
    )


def one_step(config: ConfigDict) -> SamplingOptions:
    """The config's own options, but for a step that moves."""
    return SamplingOptions.from_config(config, num_steps=1, guidance_zero_until=1.0)


def training_samples_step(config: ConfigDict, target: Target) -> Step:
    """One denoising step of the samples that a training run makes, see `training.samples`.

    Each part of the training mesh has a clip, and the state of the training stays where it is.
    """
    stage = Stage.from_config(config, shapes_only=True)
    mesh, frames = create_mesh(config.mesh, target.devices), config.data.num_frames
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    state, batch_size = state_shapes(stage, optimizer, mesh), batch_parts(mesh)
    inputs = sampler_inputs(stage, batch_size, frames)
    sampler = StageSampler(stage, one_step(config))

    @functools.partial(jax.jit, keep_unused=True)  # what a training holds beside the weights
    def sample(state: TrainState, inputs: Inputs) -> jax.Array:
        return sampler.sample(merge(state.ema, state.frozen), inputs)

    def compile_sampler() -> jax.stages.Compiled:
        with use_mesh(mesh, "windows" if stage.is_super_resolution else "height"):
            return sample.lower(state, place(inputs, by_clip(mesh))).compile()

    return Step(
        compile=compile_sampler,
        mesh=mesh,
        batch=batch_size,
        repeats=config.sampling.num_steps,
        trainable=count(state.trainable),
        frozen=count(state.frozen),
        held=bytes_a_device(state),
        model_flops=flops.count(sampler.sample, stage.param_shapes, inputs).total,
    )


def _sampling_mesh(stage: Stage, target: Target, num_frames: int) -> Mesh:
    config = stage.config.mesh
    if (config.data, config.fsdp, config.space) == (-1, 1, 1):
        devices = len(target.devices) // target.num_slices
        fitting = [n for n in range(1, devices + 1) if devices % n == 0]
        space = max(n for n in fitting if stage.splits_into(n, num_frames))
        config = dataclasses.replace(config, space=space)
    return create_mesh(config, target.devices)


def sampler_inputs(stage: Stage, batch_size: int, num_frames: int) -> Inputs:
    """Shapes of what a sampler takes."""
    text = flops.batch_shapes(stage, batch_size)
    key = jax.eval_shape(lambda: jax.random.key(0)).dtype
    keys, size = jax.ShapeDtypeStruct((batch_size,), key), stage.config.data.resolution
    shapes: dict[str, Any] = {"text": text["text"], "text_mask": text["text_mask"], "keys": keys}
    if stage.is_super_resolution:
        size //= stage.ssr.factor
    clip = (batch_size, num_frames, size, size)
    if stage.is_super_resolution:
        shapes["video"] = jax.ShapeDtypeStruct((*clip, 3), jnp.float32)
    if stage.is_conditional:
        shapes["known"] = jax.ShapeDtypeStruct((*clip, 4), jnp.float32)
    return Inputs(**shapes)


def feature_step(clips_a_device: int, target: Target, num_frames: int = FVD_FRAMES) -> Step:
    """I3D's logits of a batch, as `lumiere_jax.evaluation` compiles it."""
    if num_frames < MIN_FRAMES:
        raise UserError(f"--num_frames={num_frames}: I3D needs {MIN_FRAMES} frames or more.")
    mesh = create_mesh(ConfigDict({"data": -1, "fsdp": 1, "space": 1}), target.devices)
    batch_size = clips_a_device * mesh.size
    clips = jax.ShapeDtypeStruct((batch_size, num_frames, SIZE, SIZE, 3), jnp.float32)
    params = jax.eval_shape(I3D().init, jax.random.key(0), clips)["params"]
    placed = place(params, replicated(mesh))

    def apply(params: dict, clips: jax.Array) -> jax.Array:
        return cast(jax.Array, I3D().apply({"params": params}, clips))

    step = on_every_device(apply, mesh)
    return Step(
        compile=lambda: step.lower(placed, place(clips, by_clip(mesh))).compile(),
        mesh=mesh,
        batch=batch_size,
        frozen=count(params),
        held=bytes_a_device(placed),
        model_flops=flops.count(apply, params, clips).total,
    )


def embedding_step(prompts_a_device: int, target: Target) -> Step:
    """T5 XXL for a batch of prompts in bfloat16, its parameters split over all devices."""
    mesh = create_mesh(ConfigDict({"data": 1, "fsdp": -1, "space": 1}), target.devices)
    batch, dtype = prompts_a_device * mesh.size, jnp.bfloat16
    shapes = t5_weights.parameter_shapes(T5_V1_1_XXL, dtype)
    tokens = jax.ShapeDtypeStruct((batch, PROMPT_TOKENS), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch, PROMPT_TOKENS), bool)

    def apply(params: dict, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        encoder = T5Encoder(T5_V1_1_XXL, dtype)
        return cast(jax.Array, encoder.apply({"params": params}, tokens, mask))

    return Step(
        compile=lambda: t5.compile_encoder(T5_V1_1_XXL, dtype, mesh, batch, PROMPT_TOKENS),
        mesh=mesh,
        batch=batch,
        frozen=t5_weights.count(T5_V1_1_XXL),
        held=bytes_a_device(with_shardings(shapes, state_shardings(shapes, mesh))),
        model_flops=flops.count(apply, shapes, tokens, mask).total,
    )


def place(shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of shapes that all have one sharding."""
    return with_shardings(shapes, jax.tree.map(lambda _: sharding, shapes))


def bytes_a_device(placed: Any) -> int:
    """What a device holds of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(placed)
    )
