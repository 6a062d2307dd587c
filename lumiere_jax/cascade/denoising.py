"""One denoising step of a stage: guidance, MultiDiffusion over windows, and thresholding."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.discrete import split_variance
from lumiere_jax.diffusion.guidance import dynamic_threshold, guided
from lumiere_jax.diffusion.low_resolution import upsample_low_resolution
from lumiere_jax.diffusion.multidiffusion import multidiffuse
from lumiere_jax.diffusion.parameterization import to_x0
from lumiere_jax.models.layers import constrain
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.sharding import space_size

Predict = Callable[[jax.Array, jax.Array], jax.Array]
"""From noisy clips and their log-SNR to what the network says of them."""

LAYOUTS = {
    "video": ("clips", None, "rows", None, None),
    "windows": ("windows", "clips", None, None, None, None),
}
"""Logical names of the axes, for `models.layers.constrain`."""

_AUGMENTATION_STREAM = 2**31  # the sampler's own streams are its step numbers


def base_prediction(
    stage: Stage, options: SamplingOptions, num_frames: int
) -> Callable[..., Predict]:
    """What a stage that makes images or videos predicts at every step.

    Args:
      stage: see `sampling.make_base_sampler`.
      options: how to sample.
      num_frames: frames of a clip; more than were trained are made by MultiDiffusion.

    Returns:
      `prediction(params, text, text_mask, given)`, which returns `predict(z, log_snr)`.
    """
    trained = stage.config.data.num_frames
    window = min(num_frames, trained)
    overlap = window // 2 if options.overlap is None else options.overlap
    stage.null_text()  # computed before anything is traced

    def prediction(
        params: Params, text: jax.Array, mask: jax.Array, given: dict[str, jax.Array]
    ) -> Predict:
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

        return predict

    return prediction


def super_resolution_prediction(stage: Stage, options: SamplingOptions) -> Callable[..., Predict]:
    """What a super-resolution stage predicts at every step, averaged over temporal windows.

    Args:
      stage: see `sampling.make_super_resolution_sampler`.
      options: how to sample.

    Returns:
      `prediction(params, video, text, text_mask, keys)`, which returns `predict(z, log_snr)`.
    """
    ssr = stage.config.ssr
    stage.null_text()  # computed before anything is traced

    def prediction(
        params: Params, video: jax.Array, text: jax.Array, mask: jax.Array, keys: jax.Array
    ) -> Predict:
        batch, frames, height, width, _ = video.shape
        size = (height * ssr.factor, width * ssr.factor)
        level = stage.schedule.round_level(jnp.full(batch, ssr.augmentation))
        low_resolution = upsample_low_resolution(video, size, stage.upsampling)
        low_resolution = _augment(stage, low_resolution, level, keys)
        low_resolution = constrain(low_resolution, *LAYOUTS["video"])
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
                constrain=lambda x, layout: constrain(x, *LAYOUTS[layout]),
            )
            return fused(z, low_resolution)

        return predict

    return prediction


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


def unconditional(stage: Stage, condition: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A condition (see `Stage.predict`) with the null text in place of its text."""
    text, mask = stage.null_text()
    return condition | {
        "text": jnp.broadcast_to(text, condition["text"].shape),
        "text_mask": jnp.broadcast_to(mask, condition["text_mask"].shape),
    }


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


def _augment(
    stage: Stage, low_resolution: jax.Array, level: jax.Array, keys: jax.Array
) -> jax.Array:
    """Adds augmentation noise, drawn once for the clip from a stream of its own."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _AUGMENTATION_STREAM)
    noise = jax.vmap(lambda key: jax.random.normal(key, low_resolution.shape[1:]))(keys)
    return stage.schedule.augment(low_resolution, level, noise)
