"""What a stage makes of noisy clips: guidance, MultiDiffusion over windows, and thresholding."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Shaped

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage, SuperResolutionStage
from lumiere_jax.diffusion import projected_guidance, zero_guidance
from lumiere_jax.diffusion.discrete import split_variance
from lumiere_jax.diffusion.guidance import guide, pair, unpaired
from lumiere_jax.diffusion.multidiffusion import Chunk, Chunks, chunks
from lumiere_jax.diffusion.parameterization import expand_to, to_x0
from lumiere_jax.diffusion.projected_guidance import Projection
from lumiere_jax.diffusion.samplers import Estimate, Keys, normal
from lumiere_jax.diffusion.thresholding import Rank, dynamic_threshold
from lumiere_jax.models.layers import constrain
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.sharding import space_size

Video = Float[Array, "batch time height width channels"]
Prediction = Float[Array, "batch time height width outputs"]
"""What a network makes of clips; a learned variance, and a second branch, are further channels."""
Condition = dict[str, Array]
"""What a network is shown beside the noisy clip, see `Stage.predict`."""

# Logical names of axes, see `models.layers.constrain`.
VIDEO = ("clips", None, "rows", None, None)
_WINDOWS = ("windows", "clips", None, None, None, None)
_WINDOWS_ONE_BY_ONE = (None, "clips", None, "rows", None, None)

_ABOVE = np.float32(1e-3)  # of a step
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


class Numbers(NamedTuple):
    """Options that are only numbers, as programs take them: a new value compiles nothing.

    Each may be traced, and be a scalar or `[batch]`. None is what makes another program.
    """

    guidance_scale: ArrayLike | None  # None: the network is not asked without the text
    guidance_from: ArrayLike
    guidance_to: ArrayLike
    threshold: float | Rank  # the percentile, or its place among the values of a clip
    threshold_max: ArrayLike
    eta: ArrayLike | None  # None: a step draws no noise
    projection: Projection | None  # of APG; None: the guidance is another one
    rest_until: ArrayLike | None  # log-SNR, of CFG-Zero*, likewise

    @classmethod
    def of(
        cls,
        options: SamplingOptions,
        log_snrs: Float[Array | np.ndarray, " steps"],
        clip: tuple[int, ...] | None = None,
    ) -> "Numbers":
        """Those of some options, and of the log-SNRs at which the steps begin.

        They may be traced if it is known of which shape, `(time, height, width, channels)`, a clip
        is.
        """
        percentile = options.threshold_percentile
        threshold = percentile if clip is None else Rank.of(percentile, math.prod(clip))
        first, last, eta = options.guidance_from, options.guidance_to, options.eta
        return cls(
            None if options.guidance_scale == 1 else np.float32(options.guidance_scale),
            # From the noise and to the clean video, however the ends of a schedule are rounded.
            np.float32(math.inf if first == 1 else first),
            np.float32(-math.inf if last == 0 else last),
            threshold,
            np.float32(options.threshold_max or math.inf),
            np.float32(eta) if options.sampler == "ddim" and eta else None,
            _projection(options) if options.method == "apg" else None,
            _rest_until(options.resting_steps, log_snrs) if options.method == "cfg_zero" else None,
        )


def _rest_until(resting_steps: int, log_snrs: Float[Array | np.ndarray, " steps"]) -> ArrayLike:
    """A log-SNR after the last step at rest and before the next one, whatever their rounding."""
    if not resting_steps:
        return np.float32(-math.inf)
    last, later = log_snrs[resting_steps - 1], log_snrs[resting_steps]
    return last + _ABOVE * (later - last)


def _projection(options: SamplingOptions) -> Projection:
    limit = options.guidance_limit or math.inf
    numbers = options.guidance_parallel, limit, options.guidance_momentum
    return Projection(*map(np.float32, numbers))


class Guiding(NamedTuple):
    """What guidance remembers of the steps before; None where it needs nothing."""

    average: Video | None = None  # of APG
    difference: Video | None = None  # of the estimates with and without the text, when last asked

    @classmethod
    def before(cls, options: SamplingOptions, z: Video) -> "Guiding":
        """Before the first step."""
        average = projected_guidance.first_average(z) if options.method == "apg" else None
        return cls(average, jnp.zeros_like(z) if options.remembers else None)


class WithGuide(NamedTuple):
    """Parameters with those of a weaker network of the same kind, which guides in autoguidance.

    Its prediction for the same text takes the place of the one without (arXiv 2406.02507).
    """

    own: Params
    guide: Params


class Given(NamedTuple):
    """What is the same at all steps beside the parameters; see `for_network`."""

    keys: Keys
    condition: Condition  # the same for all windows: "text", "text_mask", "augmentation_level"
    null_condition: Condition  # the same for the unconditional branch
    shown: Condition  # clips that are cut like the noisy one: "known", "low_resolution"


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """From noisy clips and their noise level to estimates of the clean ones.

    A video longer than what the network takes is predicted in windows, which are averaged at every
    step (temporal MultiDiffusion, section 3.2); then there is one thresholding for all of it.
    """

    stage: Stage  # whose network predicts
    numbers: Numbers  # of guidance and thresholding
    params: Params | WithGuide
    condition: Condition  # these three: see `Given`
    null_condition: Condition
    shown: Condition
    windows: Chunks  # how the clips are cut
    remembers: bool = False  # see `SamplingOptions.remembers`

    @classmethod
    def for_clip(
        cls, stage: Stage, options: SamplingOptions, params: Params, condition: Condition
    ) -> "Denoiser":
        """A denoiser of clips as the stage is trained on them, in one window."""
        log_snrs = stage.schedule.sampling_log_snrs(options.num_steps, spacing=options.spacing)
        frames, numbers = stage.clip_shape()[0], Numbers.of(options, log_snrs)
        null_condition, windows = unconditional(stage, condition), chunks(frames, frames, 0)
        return cls(stage, numbers, params, condition, null_condition, {}, windows)

    @classmethod
    def for_steps(
        cls, stage: Stage, options: SamplingOptions, numbers: Numbers, params: Params | WithGuide,
        given: Given, num_frames: int,
    ) -> "Denoiser":  # fmt: skip
        """A denoiser of clips of any number of frames; `numbers` are those of the options."""
        windows = _windows(stage, options.overlap, num_frames)
        return cls(stage, numbers, params, *given[1:], windows, options.remembers)

    def __call__(self, z: Video, log_snr: Float[Array, " batch"]) -> Estimate:
        """The clean clips that the noisy ones come from, thresholded; as at a first step."""
        average = None if self.numbers.projection is None else jnp.zeros_like(z)
        return self.step(z, log_snr, Guiding(average))[0]

    def step(
        self, z: Video, log_snr: Float[Array, " batch"], state: Guiding, is_asked: bool = True
    ) -> tuple[Estimate, Guiding]:
        """See `__call__`; with what guidance remembers of the steps before, and of this one.

        The network is asked in steps at rest, too: they are few, and one program serves all. Unless
        `is_asked`, it is not asked without the text: what that differed by when it was last asked
        serves again if it is remembered, and else there is no guidance.
        """
        z = constrain(z, *VIDEO)
        prediction, null = self.prediction(z, log_snr, is_asked), None
        if self.has_both and is_asked:
            prediction, null = jnp.split(prediction, 2, axis=-1)
        x0, fraction = self._clean(prediction, z, log_snr)
        if null is not None:
            null = self._clean(null, z, log_snr)[0]
            if self.remembers:
                state = state._replace(difference=x0 - null)
        elif state.difference is not None:
            null = x0 - state.difference
        if null is not None:
            x0, state = self._led_away(x0, null, z, log_snr, state)
        x0 = dynamic_threshold(x0, self.numbers.threshold, self.numbers.threshold_max)
        if self.numbers.rest_until is not None:
            is_at_rest = log_snr <= self.numbers.rest_until
            rest = zero_guidance.at_rest(z, log_snr)
            x0 = jnp.where(expand_to(is_at_rest, z), rest, x0)
        return Estimate(constrain(x0, *VIDEO), fraction), state

    @property
    def has_both(self) -> bool:
        """Whether both branches are kept apart until all windows are averaged.

        Classifier-free guidance commutes with the average, and takes less memory before it. The
        others need lengths and products of whole clips, and so does memory.
        """
        numbers = self.numbers
        is_of_clips = numbers.projection is not None or numbers.rest_until is not None
        return is_of_clips or self.remembers

    def prediction(
        self, z: Video, log_snr: Float[Array, " batch"], is_asked: bool = True
    ) -> Prediction:
        """What `guided` makes of the clips, averaged over the windows."""
        clips = self.shown | {"z": z}
        guided = functools.partial(self.guided, is_asked=is_asked)
        if self.windows.is_one_window:
            return guided(clips, log_snr).astype(jnp.float32)
        layout = _WINDOWS if self.stage.is_super_resolution else _WINDOWS_ONE_BY_ONE

        def add_chunk(total: Prediction, chunk: Chunk) -> tuple[Prediction, None]:
            cut = {name: constrain(chunk.cut(x), *layout) for name, x in clips.items()}
            predictions = jax.vmap(guided, in_axes=(0, None))(cut, log_snr)
            total = chunk.add(total, constrain(predictions, *layout))
            return constrain(total, *VIDEO), None

        branches = 2 if self.has_both and is_asked else 1
        channels = z.shape[-1] * (1 + self.stage.learned_variance) * branches
        total = constrain(jnp.zeros((*z.shape[:-1], channels), jnp.float32), *VIDEO)
        return jax.lax.scan(add_chunk, total, Chunk(*map(jnp.asarray, self.windows)))[0]

    def guided(
        self, clips: Condition, log_snr: Float[Array, " batch"], is_asked: bool = True
    ) -> Prediction:
        """The network's prediction under guidance, both branches in one call if one network.

        `clips` are the noisy clip "z" and what is shown with it, of the network's length. Where
        both branches are needed (`has_both`), the channels of the null one follow the other's. If
        the network is not asked without the text, it is the prediction with it.
        """
        shown = dict(clips)
        z, scale = shown.pop("z"), self.guidance_scale(log_snr)
        own, *guides = self.params if isinstance(self.params, WithGuide) else [self.params]
        predict, condition = self.stage.predict, self.condition | shown
        if scale is None or not is_asked:
            return predict(own, z, log_snr, condition)
        if guides:
            prediction = pair(*(predict(x, z, log_snr, condition) for x in (own, *guides)))
        else:
            both = pair(condition, self.null_condition | shown)
            prediction = predict(own, pair(z, z), pair(log_snr, log_snr), both)
        if self.has_both:
            return jnp.concatenate(unpaired(prediction), axis=-1)
        return guide(prediction, scale, self.stage.learned_variance)

    def _clean(
        self, prediction: Prediction, z: Video, log_snr: Float[Array, " batch"]
    ) -> tuple[Video, Video | None]:
        """The estimate of clean clips that a prediction means, and the learned variance."""
        fraction = None
        if self.stage.learned_variance:
            prediction, fraction = split_variance(prediction)
        return to_x0(self.stage.config.diffusion.prediction, prediction, z, log_snr), fraction

    def _led_away(
        self, x0: Video, null: Video, z: Video, log_snr: Float[Array, " batch"], state: Guiding
    ) -> tuple[Video, Guiding]:
        """The guided estimate of clean clips, and the next state."""
        scale, projection = self.guidance_scale(log_snr), self.numbers.projection
        assert scale is not None
        if projection is not None:
            assert state.average is not None
            x0, average = projected_guidance.guide(x0, null, state.average, scale, projection)
            return x0, state._replace(average=average)
        if self.numbers.rest_until is not None:
            return zero_guidance.guide(x0, null, z, log_snr, scale), state
        return null + expand_to(scale, x0) * (x0 - null), state

    def guidance_scale(self, log_snr: Float[Array, " batch"]) -> Float[Array, " batch"] | None:
        """The scale, within the times that have guidance, and else 1 (arXiv 2404.07724)."""
        numbers, time = self.numbers, self.stage.schedule.time(log_snr)
        if numbers.guidance_scale is None:
            return None
        is_guided = (time <= numbers.guidance_from) & (time >= numbers.guidance_to)
        return jnp.where(is_guided, numbers.guidance_scale, 1.0)


def for_network(stage: Stage, inputs: Inputs) -> Given:
    """What the steps need of `inputs`. Call it in a trace."""
    given: Any = jax.tree.map(jnp.asarray, inputs)
    condition, shown = {"text": given.text, "text_mask": given.text_mask}, {}
    if isinstance(stage, SuperResolutionStage):
        level = jnp.full(given.video.shape[0], stage.ssr.augmentation)
        condition["augmentation_level"] = level = stage.schedule.round_level(level)
        draw = functools.partial(normal, given.keys, _AUGMENTATION_STREAM)  # once for each clip
        shown["low_resolution"] = constrain(stage.shown(given.video, level, draw), *VIDEO)
    if stage.is_conditional:
        shown["known"] = given.known
    if given.null_text is None:
        null_condition = unconditional(stage, condition)
    else:
        null_condition = condition | {"text": given.null_text, "text_mask": given.null_mask}
    return Given(given.keys, condition, null_condition, shown)


def unconditional(stage: Stage, condition: Condition) -> Condition:
    """A condition with the null text in place of its text."""
    text, mask = stage.null_text()
    return condition | {
        "text": jnp.broadcast_to(text, condition["text"].shape),
        "text_mask": jnp.broadcast_to(mask, condition["text_mask"].shape),
    }


def _windows(stage: Stage, overlap: int | None, num_frames: int) -> Chunks:
    """How a stage cuts a video: a base by its clip, one window after the other."""
    if stage.is_super_resolution:
        ssr, parts = stage.ssr, space_size()
        return chunks(
            num_frames,
            ssr.window,
            ssr.overlap if num_frames > ssr.window else 0,
            kind=ssr.weights,
            size=ssr.chunk * parts,
            parallel=parts,
        )
    window = min(num_frames, stage.config.data.num_frames)
    overlap = window // 2 if overlap is None else overlap
    overlap = overlap if num_frames > window else 0
    return chunks(num_frames, window, overlap, kind="linear", size=1)
