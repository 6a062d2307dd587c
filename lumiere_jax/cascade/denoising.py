"""What a stage makes of noisy clips: guidance, MultiDiffusion over windows, and thresholding."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage, SuperResolutionStage
from lumiere_jax.diffusion.discrete import split_variance
from lumiere_jax.diffusion.guidance import dynamic_threshold, guide, is_guided, pair
from lumiere_jax.diffusion.low_resolution import upsample_low_resolution
from lumiere_jax.diffusion.multidiffusion import Chunk, Chunks, chunks
from lumiere_jax.diffusion.parameterization import to_x0
from lumiere_jax.diffusion.samplers import Estimate, Keys, normal
from lumiere_jax.models.layers import constrain
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.sharding import space_size

Video = Float[Array, "batch time height width channels"]
Condition = dict[str, Array]
"""What a network is shown beside the noisy clip, see `Stage.predict`."""

# Logical names of axes, see `models.layers.constrain`.
_VIDEO = ("clips", None, "rows", None, None)
_WINDOWS = ("windows", "clips", None, None, None, None)
_WINDOWS_ONE_BY_ONE = (None, "clips", None, "rows", None, None)

_AUGMENTATION_STREAM = 2**31  # the sampler's own streams are its step numbers


class Inputs(NamedTuple):
    """What is sampled: a batch of clips, without the parameters.

    `video` is what super-resolution refines, in [-1, 1]; `known` what a conditional stage is shown,
    see `stage.known_part`. `initial` are clean clips that are noised by `SamplingOptions.strength`
    and denoised again. `null_text` is of a negative prompt; None for no text.
    """

    text: Float[Array | np.ndarray, "batch length dim"]  # embeddings of the prompts
    text_mask: Bool[Array | np.ndarray, "batch length"]  # true at its tokens
    keys: Shaped[Array, " batch"]  # one for each clip, see `inference.sampling.sample_keys`
    video: Float[Array | np.ndarray, "batch time height width 3"] | None = None
    known: Float[Array | np.ndarray, "batch time height width 4"] | None = None
    initial: Float[Array | np.ndarray, "batch time height width 3"] | None = None
    null_text: Float[Array | np.ndarray, "batch length dim"] | None = None
    null_mask: Bool[Array | np.ndarray, "batch length"] | None = None


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """From noisy clips and their noise level to estimates of the clean ones.

    A video longer than what the network takes is predicted in windows, which are averaged at every
    step (temporal MultiDiffusion, section 3.2); then there is one thresholding for all of it.
    """

    stage: Stage  # whose network predicts
    options: SamplingOptions  # of guidance and thresholding
    params: Params
    condition: Condition  # the same for all windows: "text", "text_mask", "augmentation_level"
    null_condition: Condition  # the same for the unconditional branch
    shown: Condition  # clips that are cut like the noisy one: "known", "low_resolution"
    windows: Chunks  # how the clips are cut

    @classmethod
    def for_clip(
        cls, stage: Stage, options: SamplingOptions, params: Params, condition: Condition
    ) -> "Denoiser":
        """A denoiser of clips as the stage is trained on them, in one window."""
        frames = stage.clip_shape()[0]
        null_condition, windows = unconditional(stage, condition), chunks(frames, frames, 0)
        return cls(stage, options, params, condition, null_condition, {}, windows)

    @classmethod
    def for_inputs(
        cls, stage: Stage, options: SamplingOptions, params: Params, inputs: Inputs, num_frames: int
    ) -> "Denoiser":
        """A denoiser of the clips of `inputs`, of any number of frames. Call it in a trace."""
        given: Any = jax.tree.map(jnp.asarray, inputs)
        condition, shown = {"text": given.text, "text_mask": given.text_mask}, {}
        if isinstance(stage, SuperResolutionStage):
            level = jnp.full(given.video.shape[0], stage.ssr.augmentation)
            condition["augmentation_level"] = level = stage.schedule.round_level(level)
            shown["low_resolution"] = _low_resolution(stage, given.video, level, given.keys)
        if stage.is_conditional:
            shown["known"] = given.known
        null_condition = unconditional(stage, condition)
        if given.null_text is not None:
            null_condition |= {"text": given.null_text, "text_mask": given.null_mask}
        windows = _windows(stage, options, num_frames)
        return cls(stage, options, params, condition, null_condition, shown, windows)

    def __call__(self, z: Video, log_snr: Float[Array, " batch"]) -> Estimate:
        """The clean clips that the noisy ones come from, thresholded."""
        z = constrain(z, *_VIDEO)
        clips = self.shown | {"z": z}
        if self.windows.is_one_window:
            prediction = self.guided(clips, log_snr).astype(jnp.float32)
        else:
            layout = _WINDOWS if self.stage.is_super_resolution else _WINDOWS_ONE_BY_ONE

            def add_chunk(total: Video, chunk: Chunk) -> tuple[Video, None]:
                cut = {name: constrain(chunk.cut(x), *layout) for name, x in clips.items()}
                predictions = jax.vmap(self.guided, in_axes=(0, None))(cut, log_snr)
                total = chunk.add(total, constrain(predictions, *layout))
                return constrain(total, *_VIDEO), None

            channels = z.shape[-1] * (2 if self.stage.learned_variance else 1)
            total = constrain(jnp.zeros((*z.shape[:-1], channels), jnp.float32), *_VIDEO)
            prediction, _ = jax.lax.scan(add_chunk, total, Chunk(*map(jnp.asarray, self.windows)))
        fraction = None
        if self.stage.learned_variance:
            prediction, fraction = split_variance(prediction)
        x0 = to_x0(self.stage.config.diffusion.prediction, prediction, z, log_snr)
        limit = self.options.threshold_max or None
        x0 = dynamic_threshold(x0, self.options.threshold_percentile, limit)
        return Estimate(constrain(x0, *_VIDEO), fraction)

    def guided(self, clips: Condition, log_snr: Float[Array, " batch"]) -> Video:
        """The network's prediction under classifier-free guidance, both branches in one call.

        `clips` are the noisy clip "z" and what is shown with it, of the network's length.
        """
        shown = dict(clips)
        z, scale = shown.pop("z"), self.guidance_scale(log_snr)
        if not is_guided(scale):
            return self.stage.predict(self.params, z, log_snr, self.condition | shown)
        both = pair(self.condition | shown, self.null_condition | shown)
        prediction = self.stage.predict(self.params, pair(z, z), pair(log_snr, log_snr), both)
        return guide(prediction, scale, self.stage.learned_variance)

    def guidance_scale(self, log_snr: Float[Array, " batch"]) -> jax.typing.ArrayLike:
        """The scale, within the times that have guidance, and else 1 (arXiv 2404.07724)."""
        options = self.options
        first, last, scale = options.guidance_from, options.guidance_to, options.guidance_scale
        if (first, last) == (1.0, 0.0) or scale == 1:
            return scale
        time = self.stage.schedule.time(log_snr)
        return jnp.where((time <= first) & (time >= last), scale, 1.0)


def unconditional(stage: Stage, condition: Condition) -> Condition:
    """A condition with the null text in place of its text."""
    text, mask = stage.null_text()
    return condition | {
        "text": jnp.broadcast_to(text, condition["text"].shape),
        "text_mask": jnp.broadcast_to(mask, condition["text_mask"].shape),
    }


def _windows(stage: Stage, options: SamplingOptions, num_frames: int) -> Chunks:
    """How a stage cuts a video: a base by its clip, one window after the other."""
    if stage.is_super_resolution:
        ssr, parts = stage.ssr, space_size()
        overlap = ssr.overlap if num_frames > ssr.window else 0
        return chunks(
            num_frames,
            ssr.window,
            overlap,
            kind=ssr.weights,
            size=ssr.chunk * parts,
            parallel=parts,
        )
    window = min(num_frames, stage.config.data.num_frames)
    overlap = window // 2 if options.overlap is None else options.overlap
    overlap = overlap if num_frames > window else 0
    return chunks(num_frames, window, overlap, kind="linear", size=1)


def _low_resolution(
    stage: SuperResolutionStage, video: Video, level: Float[Array, " batch"], keys: Keys
) -> Float[Array, "batch time large_height large_width channels"]:
    """Clips at the size of the refined ones, with augmentation noise, drawn once for each."""
    factor = stage.ssr.factor
    size = (video.shape[2] * factor, video.shape[3] * factor)
    large = upsample_low_resolution(video, size, stage.ssr.upsampling)
    noise = normal(keys, _AUGMENTATION_STREAM, large.shape)
    return constrain(stage.schedule.augment(large, level, noise), *_VIDEO)
