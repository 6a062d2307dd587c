"""Sampling from one stage: guidance, MultiDiffusion, thresholding and a sampler, compiled once."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lumiere_jax.config import ConfigDict
from lumiere_jax.diffusion.discrete import split_variance
from lumiere_jax.diffusion.guidance import dynamic_threshold, guided
from lumiere_jax.diffusion.low_resolution import upsample_low_resolution
from lumiere_jax.diffusion.multidiffusion import multidiffuse
from lumiere_jax.diffusion.parameterisation import to_x0
from lumiere_jax.diffusion.samplers import SAMPLERS, sample
from lumiere_jax.errors import UserError
from lumiere_jax.models.layers import constrain
from lumiere_jax.sharding import by_clip, replicated, sampling_mesh, space_size, use_mesh
from lumiere_jax.stage import Stage
from lumiere_jax.state import Params

_LAYOUTS = {
    "video": ("clips", None, "rows", None, None),
    "windows": ("windows", "clips", None, None, None, None),
}
_AUGMENTATION_STREAM = 2**31  # the sampler's own streams are its step numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample from a stage.

    Attributes:
      sampler: "ddim", "ancestral" or "dpmpp_2m"; "ddpm" where the variance is learned.
      num_steps: calls of the network.
      guidance_scale: classifier-free guidance; 1 is the conditional model.
      threshold_percentile: of dynamic thresholding.
      threshold_max: the most that it divides by; 0 for no limit, 1 clips to [-1, 1].
      eta: DDIM's share of fresh noise.
      strength: noise that is added to a video before it is denoised again (SDEdit, arXiv
        2108.01073), in (0, 1], as time of the cosine schedule without a shift, so that a number
        means the same noise for every model; 1 starts from noise alone.
      guidance_from: latest time, of [0, 1] where 1 is noise, at which there is guidance.
      guidance_to: earliest such time.
      overlap: frames that windows share, where a video is longer than what was trained; None for
        half a window.
    """

    sampler: str = "ddim"
    num_steps: int = 50
    guidance_scale: float = 4.0
    threshold_percentile: float = 99.5
    threshold_max: float = 0.0
    eta: float = 0.0
    strength: float = 1.0
    guidance_from: float = 1.0
    guidance_to: float = 0.0
    overlap: int | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
          UserError: naming the field that is out of range.
        """
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampler {self.sampler!r} is unknown; choose from {SAMPLERS}.")
        if self.num_steps < 1:
            raise UserError(f"steps={self.num_steps} must be 1 or more.")
        if not self.guidance_scale >= 0:
            raise UserError(f"guidance_scale={self.guidance_scale} must be 0 or more.")
        if not 0 < self.strength <= 1:
            raise UserError(f"strength={self.strength} must be above 0 and at most 1.")
        if not 0 <= self.guidance_to <= self.guidance_from <= 1:
            raise UserError(
                f"guidance from time {self.guidance_from} to {self.guidance_to}: times are in "
                "[0, 1], 1 is noise, and the first is not the smaller one."
            )
        if not 0 < self.threshold_percentile <= 100:
            raise UserError(f"threshold_percentile={self.threshold_percentile} is not in (0, 100].")
        if self.threshold_max and not self.threshold_max >= 1:
            raise UserError(f"threshold_max={self.threshold_max} must be 0 (none), or 1 or more.")

    @classmethod
    def from_config(cls, config: ConfigDict, **overrides: object) -> "SamplingOptions":
        """The options of `config.sampling`, with those overrides that are not None."""
        names = {field.name for field in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.sampling.items() if k in names}
        return cls(**{**fields, **{k: v for k, v in overrides.items() if v is not None}})


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
    size, trained = stage.config.data.resolution, stage.config.data.num_frames
    window = min(num_frames, trained)
    overlap = window // 2 if options.overlap is None else options.overlap
    stage.null_text()  # computed before anything is traced

    @jax.jit
    def sampler(
        params: Params,
        text: jax.Array,
        mask: jax.Array,
        keys: jax.Array,
        given: dict[str, jax.Array] | None = None,
    ) -> jax.Array:
        given = given or {}
        condition = {"text": text, "text_mask": mask}
        null = unconditional(stage, condition) | _led_away_from(given)
        known = [given["known"]] if stage.is_conditional else []

        def predict(z: jax.Array, log_snr: jax.Array) -> jax.Array:
            def predict_window(z_window: jax.Array, *known_window: jax.Array) -> jax.Array:
                shown = dict(zip(("known",), known_window, strict=False))
                return guided(
                    lambda z, log_snr, given: stage.predict(params, z, log_snr, given),
                    condition | shown,
                    null | shown,
                    _guidance_scale(stage, options, log_snr),
                    stage.learned_variance,
                )(z_window, log_snr)

            fused = multidiffuse(
                predict_window,
                num_frames=num_frames,
                window=window,
                overlap=overlap if num_frames > window else 0,
                weights="linear",
                chunk=1,
            )
            return fused(z, *known)

        shape = (text.shape[0], num_frames, size, size, 3)
        return _run(
            stage, options, predict, keys, shape, on_call, given.get("initial"), on_estimate
        )

    return sampler


def _led_away_from(given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The condition of a negative prompt."""
    names = {"null_text": "text", "null_mask": "text_mask"}
    return {name: given[key] for key, name in names.items() if key in given}


def _guidance_scale(
    stage: Stage, options: SamplingOptions, log_snr: jax.Array
) -> jax.typing.ArrayLike:
    """The scale, within the times that have guidance, and else 1 (2404.07724)."""
    first, last, scale = options.guidance_from, options.guidance_to, options.guidance_scale
    if (first, last) == (1.0, 0.0) or scale == 1:
        return scale
    time = stage.schedule.time(log_snr)
    return jnp.where((time <= first) & (time >= last), scale, 1.0)


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
    ssr = stage.config.ssr
    stage.null_text()  # computed before anything is traced

    @jax.jit
    def sampler(
        params: Params, video: jax.Array, text: jax.Array, mask: jax.Array, keys: jax.Array
    ) -> jax.Array:
        batch, frames, height, width, _ = video.shape
        size = (height * ssr.factor, width * ssr.factor)
        level = stage.schedule.round_level(jnp.full(batch, ssr.augmentation))
        low_resolution = upsample_low_resolution(video, size, stage.upsampling)
        low_resolution = _augment(stage, low_resolution, level, keys)
        low_resolution = constrain(low_resolution, *_LAYOUTS["video"])
        condition = {"text": text, "text_mask": mask, "augmentation_level": level}
        null = unconditional(stage, condition)

        def predict(z: jax.Array, log_snr: jax.Array) -> jax.Array:
            def predict_window(z_window: jax.Array, low_window: jax.Array) -> jax.Array:
                low = {"low_resolution": low_window}
                return guided(
                    lambda z, log_snr, given: stage.predict(params, z, log_snr, given),
                    condition | low,
                    null | low,
                    options.guidance_scale,
                    stage.learned_variance,
                )(z_window, log_snr)

            fused = multidiffuse(
                predict_window,
                num_frames=frames,
                window=ssr.window,
                overlap=ssr.overlap if frames > ssr.window else 0,
                weights=ssr.weights,
                chunk=ssr.chunk * space_size(),
                parallel=space_size(),
                constrain=lambda x, layout: constrain(x, *_LAYOUTS[layout]),
            )
            return fused(z, low_resolution)

        shape = (batch, frames, *size, 3)
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


def _augment(
    stage: Stage, low_resolution: jax.Array, level: jax.Array, keys: jax.Array
) -> jax.Array:
    """Adds augmentation noise, drawn once for the clip from a stream of its own."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _AUGMENTATION_STREAM)
    noise = jax.vmap(lambda key: jax.random.normal(key, low_resolution.shape[1:]))(keys)
    return stage.schedule.augment(low_resolution, level, noise)


def unconditional(stage: Stage, condition: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A condition (see `Stage.predict`) with the null text in place of its text."""
    text, mask = stage.null_text()
    return condition | {
        "text": jnp.broadcast_to(text, condition["text"].shape),
        "text_mask": jnp.broadcast_to(mask, condition["text_mask"].shape),
    }


def clean_estimate(
    stage: Stage,
    options: SamplingOptions,
    prediction: jax.Array,
    z: jax.Array,
    log_snr: jax.Array,
) -> tuple[jax.Array, jax.Array | None]:
    """What a sampler makes of the network's prediction, thresholded.

    Args:
      stage: whose prediction it is.
      options: of thresholding.
      prediction: `[batch, time, height, width, channels]`.
      z: the noisy clips that it was made for, `[batch, time, height, width, 3]`.
      log_snr: `[batch]`.

    Returns:
      The clean clips, like `z`, and the interpolation of a learned variance, or None.
    """
    fraction = None
    if stage.learned_variance:
        prediction, fraction = split_variance(prediction)
    x0 = to_x0(stage.config.diffusion.prediction, prediction, z, log_snr)
    x0 = dynamic_threshold(x0, options.threshold_percentile, options.threshold_max or None)
    return x0, fraction


def _run(
    stage: Stage,
    options: SamplingOptions,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
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
        z = constrain(z, *_LAYOUTS["video"])
        if on_call is not None:
            jax.debug.callback(lambda _: on_call(), log_snr)
        x0, fraction = clean_estimate(stage, options, predict(z, log_snr), z, log_snr)
        x0 = constrain(x0, *_LAYOUTS["video"])
        if on_estimate is not None:
            jax.debug.callback(on_estimate, log_snr[0], x0[:, :: max(shape[1] // 4, 1)])
        return x0 if fraction is None else (x0, fraction)

    return sample(
        denoise,
        keys,
        shape,
        schedule=stage.schedule,
        num_steps=options.num_steps,
        sampler=options.sampler,
        eta=options.eta,
        initial=initial,
        start_time=start,
    )
