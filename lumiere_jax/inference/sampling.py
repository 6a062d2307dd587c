"""Sampling from one stage, compiled once: what is predicted at every step, and a sampler."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lumiere_jax.cascade.denoising import (
    LAYOUTS,
    Predict,
    base_prediction,
    clean_estimate,
    super_resolution_prediction,
)
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.samplers import sample
from lumiere_jax.diffusion.schedule import with_time_power
from lumiere_jax.models.layers import constrain
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.sharding import by_clip, replicated, sampling_mesh, use_mesh


def start_time(stage: Stage, strength: float) -> float:
    """The time at which a stage's schedule has the noise of `SamplingOptions.strength`."""
    if strength == 1:
        return 1.0
    log_snr = -2 * math.log(math.tan(math.pi / 2 * strength))
    return min(max(float(stage.schedule.time(log_snr)), 1e-6), 1.0)


def sample_keys(seeds: list[int], stage_index: int) -> jax.Array:
    """One PRNG key a sample, `[batch]`, from its seed and the stage's place in the cascade."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    return jax.vmap(jax.random.fold_in, (0, None))(keys, stage_index)


def make_base_sampler(
    stage: Stage,
    options: SamplingOptions,
    num_frames: int,
    on_call: Callable[[], None] | None = None,
    on_estimate: Callable[[jax.Array, jax.Array], None] | None = None,
) -> Callable[..., jax.Array]:
    """Makes a compiled sampler of a stage that makes images or videos.

    A video longer than what was trained is made by temporal MultiDiffusion (section 3.2): windows
    of the trained length are predicted one after the other and averaged at every step, so that
    memory grows by the video alone.

    Args:
      stage: "t2i", "stunet" or "stunet_conditional".
      options: how to sample.
      num_frames: frames of a clip.
      on_call: called on the host at every call of the network, to show progress.
      on_estimate: called on the host at every step, in any order, with its log-SNR and some frames
        of the estimated clean video.

    Returns:
      `sampler(params, text, text_mask, keys, given)`, with embeddings `[batch, length, dim]`, mask
      `[batch, length]`, keys `[batch]`, and a dict that may hold "known" `[batch, time, height,
      width, 4]`, which a conditional stage needs (see `stage.known_part`), "initial" `[batch, time,
      height, width, 3]`, which `options.strength` below 1 needs, and "null_text" and "null_mask",
      like text and mask, to be led away from. It returns videos `[batch, time, height, width, 3]`
      in [-1, 1].
    """
    size = stage.config.data.resolution
    prediction = base_prediction(stage, options, num_frames)

    @jax.jit
    def sampler(
        params: Params,
        text: jax.Array,
        mask: jax.Array,
        keys: jax.Array,
        given: dict[str, jax.Array] | None = None,
    ) -> jax.Array:
        given = given or {}
        predict = prediction(params, text, mask, given)
        shape = (text.shape[0], num_frames, size, size, 3)
        return _run(
            stage, options, predict, keys, shape, on_call, given.get("initial"), on_estimate
        )

    return sampler


def make_super_resolution_sampler(
    stage: Stage, options: SamplingOptions, on_call: Callable[[], None] | None = None
) -> Callable[..., jax.Array]:
    """Makes a compiled sampler of a super-resolution stage with temporal MultiDiffusion.

    At every denoising step the guided predictions of overlapping windows are averaged (section
    3.2), then there is one thresholding and one sampler step for the whole clip. The starting
    noise and the augmentation noise are drawn once a clip.

    Args:
      stage: "ssr", or "t2i_ssr" for single images.
      options: how to sample.
      on_call: called on the host at every call of the network, to show progress.

    Returns:
      `sampler(params, video, text, text_mask, keys)`, with the low-resolution video
      `[batch, time, height, width, 3]`, which returns it `config.ssr.factor` times as large.
    """
    factor = stage.config.ssr.factor
    prediction = super_resolution_prediction(stage, options)

    @jax.jit
    def sampler(
        params: Params, video: jax.Array, text: jax.Array, mask: jax.Array, keys: jax.Array
    ) -> jax.Array:
        batch, frames, height, width, _ = video.shape
        predict = prediction(params, video, text, mask, keys)
        shape = (batch, frames, height * factor, width * factor, 3)
        return _run(stage, options, predict, keys, shape, on_call)

    return sampler


def run_sampler(
    sampler: Callable[..., jax.Array],
    stage: Stage,
    params: Params,
    num_frames: int,
    inputs: Sequence[jax.Array | np.ndarray],
    mesh: Mesh | None = None,
) -> jax.Array:
    """Calls a sampler, its inputs split over devices.

    Args:
      sampler: made for `stage` by a function above.
      stage: see `sampler`.
      params: parameters of the stage; on `mesh`, if one is given.
      num_frames: frames of a clip.
      inputs: what the sampler takes after the parameters, `[batch, ...]` each, equal on all
        processes.
      mesh: one whose "data" and "fsdp" divide the batch; None: as many devices of this process
        as the batch and the clips can keep busy.

    Returns:
      The videos, when they are done.
    """
    if mesh is None:
        mesh = sampling_mesh(len(inputs[0]), lambda parts: stage.splits_into(parts, num_frames))
        params = jax.device_put(params, replicated(mesh))
    inputs = jax.tree.map(lambda x: _placed(x, by_clip(mesh)), tuple(inputs))
    with use_mesh(mesh, "windows" if stage.is_super_resolution else "height"):
        video = jax.block_until_ready(sampler(params, *inputs))
    jax.effects_barrier()  # for the last line of progress
    return video


def _placed(x: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Puts an array, also of PRNG keys, on a mesh that may reach beyond this process."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(x), sharding))
    is_here = not isinstance(x, jax.Array) or x.is_fully_addressable
    return jax.device_put(np.asarray(x) if is_here else x, sharding)


def _run(
    stage: Stage,
    options: SamplingOptions,
    predict: Predict,
    keys: jax.Array,
    shape: tuple[int, ...],
    on_call: Callable[[], None] | None,
    initial: jax.Array | None = None,
    on_estimate: Callable[[jax.Array, jax.Array], None] | None = None,
) -> jax.Array:
    """From predictions to samples: conversion to x0, thresholding, sampler."""
    with jax.ensure_compile_time_eval():
        start = start_time(stage, options.strength)

    def denoise(z: jax.Array, log_snr: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        z = constrain(z, *LAYOUTS["video"])
        if on_call is not None:
            jax.debug.callback(lambda _: on_call(), log_snr)
        x0, fraction = clean_estimate(stage, options, predict(z, log_snr), z, log_snr)
        x0 = constrain(x0, *LAYOUTS["video"])
        if on_estimate is not None:
            jax.debug.callback(on_estimate, log_snr[0], x0[:, :: max(shape[1] // 4, 1)])
        return x0 if fraction is None else (x0, fraction)

    return sample(
        denoise,
        keys,
        shape,
        schedule=with_time_power(stage.schedule, options.time_power),
        num_steps=options.num_steps,
        sampler=options.sampler,
        eta=options.eta,
        initial=initial,
        start_time=start,
    )
