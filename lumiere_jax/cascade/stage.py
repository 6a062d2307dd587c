"""A stage of the cascade: its network, schedule and text encoder, made from its config."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped
from ml_collections import ConfigDict, FrozenConfigDict

from lumiere_jax import text
from lumiere_jax.cascade.config import STAGES, StageConfig, SuperResolutionConfig
from lumiere_jax.data.crops import RandomCrop
from lumiere_jax.data.masks import MaskMix
from lumiere_jax.diffusion.discrete import DiscreteSchedule
from lumiere_jax.diffusion.distillation import mean_estimate, step_estimates, visited_log_snrs
from lumiere_jax.diffusion.low_resolution import downsample, upsample_low_resolution
from lumiere_jax.diffusion.multidiffusion import windows
from lumiere_jax.diffusion.schedule import CosineSchedule, Schedule, with_spacing
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.models.lora import LORA, fresh_lora, merge_lora
from lumiere_jax.models.parameters import Params
from lumiere_jax.models.ssr import EfficientUNet
from lumiere_jax.models.ssr_unet import SuperResolutionUNet
from lumiere_jax.models.stunet import STUNet, is_temporal
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.errors import UserError

CASCADE = ("t2i", "stunet", "t2i_ssr", "ssr")
"""The stages that text-to-video takes, in the order in which they are trained."""

_NETWORKS = {
    "unet": UNet, "stunet": STUNet, "ssr": EfficientUNet, "ssr_unet": SuperResolutionUNet,
}  # fmt: skip
INPUT_LAYER, OUTPUT_LAYER = "conv_in", "conv_out"

Batch = dict[str, jax.Array]
Clips = Float[Array, "batch time height width 3"]
Noisy = Float[Array, "batch time height width channels"]  # 3 channels, or 7 with what is known


def create_network(config: ConfigDict | FrozenConfigDict) -> UNet | EfficientUNet:
    """Makes the network of `config.model`: `name`, `dtype`, and the fields of its class.

    Raises:
      UserError: for an unknown network, field or dtype.
    """
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "name"}
    if config.name not in _NETWORKS:
        raise UserError(f"model.name {config.name!r} is unknown; use one of {list(_NETWORKS)}.")
    network = _NETWORKS[config.name]
    known = {f.name for f in dataclasses.fields(network)} - {"parent", "name"}
    if set(fields) - known:
        raise UserError(
            f"model has unknown fields {sorted(set(fields) - known)}; "
            f"network {config.name!r} knows {sorted(known)}."
        )
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if fields["dtype"] not in dtypes:
        raise UserError(f"model.dtype {fields['dtype']!r} is unknown; use one of {list(dtypes)}.")
    return network(**{**fields, "dtype": dtypes[fields["dtype"]]})


def create_schedule(config: StageConfig) -> Schedule:
    """The noise schedule that a stage's config describes."""
    schedule: Schedule
    if config.diffusion.schedule == "discrete":
        schedule = DiscreteSchedule(config.sampling.timestep_spacing)
    else:
        diffusion = config.diffusion
        shift = diffusion.shift(config.data.num_frames)
        schedule = CosineSchedule(shift, diffusion.interpolated_shift)
    sampling = config.sampling
    return with_spacing(schedule, Spacing(sampling.time_power, sampling.last_log_snr))


def as_floats(video: Shaped[Array, "*clips"]) -> Float[Array, "*clips"]:
    """Clips in [-1, 1], from bytes, as they travel to the device, or as they are."""
    if video.dtype != jnp.uint8:
        return video
    return video.astype(jnp.float32) / 127.5 - 1.0


def known_part(
    video: Float[ArrayLike, "batch time height width 3"],
    mask: Shaped[ArrayLike, "batch time height width 1"],
) -> Float[Array, "batch time height width 4"]:
    """What a conditional stage is shown: ⟨C, M⟩ of the paper's ⟨J, C, M⟩ (section 4).

    That is the known pixels, others 0, and the mask, which is true where a pixel is known.
    """
    video = jnp.asarray(video)
    mask = jnp.asarray(mask).astype(video.dtype)
    return jnp.concatenate([video * mask, mask], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the cascade, which makes images or videos from text; without its parameters."""

    name: str  # a key of `STAGES`
    config: StageConfig
    network: UNet | EfficientUNet
    schedule: Schedule
    text_encoder: text.TextEncoder  # from prompts to embeddings
    is_super_resolution: ClassVar[bool] = False  # whether it refines a low-resolution clip
    is_conditional: ClassVar[bool] = False  # whether it is shown some pixels of its clip

    @classmethod
    def from_config(cls, config: ConfigDict | StageConfig, *, shapes_only: bool = False) -> "Stage":
        """Makes the stage that `config` describes, of the kind that its name asks for.

        Args:
          config: of a file of `configs/` or a checkpoint, see `default_config`; here it is checked.
          shapes_only: the stage is traced for shapes and plans, and needs no text encoder's
            weights.

        Raises:
          UserError: naming the field of the config that makes no sense.
        """
        config = config if isinstance(config, StageConfig) else StageConfig.parse(config)
        encoder = text.create(config.text)
        if shapes_only:
            encoder = text.ShapesOnly(encoder.dim, encoder.max_length)
        stage = _KINDS.get(config.stage, cls)(
            name=config.stage,
            config=config,
            network=create_network(config.model),
            schedule=create_schedule(config),
            text_encoder=encoder,
        )
        known = 4 if stage.is_conditional else 0  # see `known_part`
        stage.network.check_fields(3 + known, encoder.dim)
        frames, crop, *_ = stage.clip_shape()
        for side in (crop, config.data.resolution):
            stage.network.check_clip(frames, side, side)
        return stage

    @property
    def learned_variance(self) -> bool:
        """Whether the network's second half of channels tells the variance of a reverse step."""
        return self.config.diffusion.learned_variance

    @property
    def ssr(self) -> SuperResolutionConfig:
        """The section `ssr` of its config; only a super-resolution stage has one."""
        assert self.config.ssr is not None, f"{self.name} is no super-resolution stage"
        return self.config.ssr

    @property
    def is_distilled(self) -> bool:
        """Whether it learns from a teacher of the same stage, see `training.distill`."""
        return self.config.distillation is not None

    @property
    def steps_at_once(self) -> int:
        """Steps that the network predicts in one call; above 1 for some students."""
        settings = self.config.distillation
        return settings.steps_at_once if settings else 1

    @functools.cached_property
    def student_table(self) -> Float[Array, "steps k_and_1"]:
        """Log-SNRs that a student and its teacher visit, see `visited_log_snrs`."""
        settings = self.config.distillation
        assert settings is not None, f"{self.name} is not distilled"
        with jax.ensure_compile_time_eval():
            return visited_log_snrs(self.schedule, settings.start_steps, settings.steps[0])

    @property
    def starts_from(self) -> str | None:
        """The stage of the checkpoint that it is initialized from; None if there is none."""
        return self.name if self.is_distilled else STAGES[self.name]

    @property
    def crop(self) -> RandomCrop | None:
        """What is cut out of a training clip; None for all of it."""
        return None

    @property
    def draw_mask(self) -> MaskMix | None:
        """What a training clip shows of itself; None where nothing is shown."""
        return None

    def is_trainable(self, path: tuple[str, ...]) -> bool:
        """The freezing rule: all parameters, or those that came with inflation.

        Outputs that predict several steps are new, too.
        """
        if path[0] == OUTPUT_LAYER and self.steps_at_once > 1:
            return True
        return self.config.train.trainable == "all" or is_temporal(path)

    def null_text(self) -> tuple[Float[ArrayLike, "1 length dim"], Bool[ArrayLike, "1 length"]]:
        """The unconditional text: embeddings and mask.

        Ask once before a function that asks for it is traced: an encoder may have to compute it.
        """
        return self.text_encoder([""])

    def clip_shape(self) -> tuple[int, int, int, int]:
        """What the network is trained on: `(time, height, width, 3)`."""
        data = self.config.data
        return data.num_frames, data.resolution, data.resolution, 3

    def splits_into(self, parts: int, frames: int) -> bool:
        """Whether sampling can share a clip of `frames` frames between `parts` devices.

        They split rows of pixels, also those of the network's coarsest feature map.
        """
        model = self.config.model
        factor = model.get("patch", 1) * 2 ** (len(model.widths) - 1)
        return self.config.data.resolution // factor % parts == 0

    def init_params(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters; call it under `jax.jit` or `jax.eval_shape`."""
        encoder = self.text_encoder
        embeddings = jnp.zeros((1, encoder.max_length, encoder.dim))
        mask = jnp.ones((1, encoder.max_length), bool)
        clip, extra = self._blank_input()
        return self.network.init(key, clip, jnp.zeros(1), embeddings, mask, **extra)["params"]

    @functools.cached_property
    def param_shapes(self) -> Params:
        """Shapes of `init_params`; the network is traced once for all who ask."""
        return jax.eval_shape(self.init_params, jax.random.key(0))

    def _blank_input(self) -> tuple[jax.Array, dict[str, Any]]:
        """A clip for the network, and what it takes beside clip, time and text."""
        return jnp.zeros((1, *self.clip_shape())), {}

    def predict(
        self, params: Params, z: Noisy, log_snr: Float[Array, " batch"], condition: dict[str, Any],
        is_mean: bool = True,
    ) -> Float[Array, "batch time height width _"]:  # fmt: skip
        """The network's prediction for noisy clips.

        The condition has "text", "text_mask" and, for super-resolution, "low_resolution" and
        "augmentation_level"; for a conditional stage "known", see `known_part`. Of a network that
        predicts several steps it is the one prediction that leads where they do or, unless
        `is_mean`, all of them, in channels one after the other.
        """
        params, z, condition = self._arguments(params, z, condition)
        time = self.schedule.network_time(log_snr)
        prediction: Any = self.network.apply({"params": params}, z, time, **condition)
        if is_mean and self.steps_at_once > 1:
            steps = step_estimates(prediction, self.steps_at_once)
            return mean_estimate(steps, self.student_table, log_snr)
        return prediction

    def _arguments(
        self, params: Params, z: Noisy, condition: dict[str, Any]
    ) -> tuple[Params, Noisy, dict[str, Any]]:
        """What the network of this kind of stage is applied to."""
        return params, z, condition

    def training_clip(
        self, batch: Batch, augment_key: PRNGKeyArray
    ) -> tuple[Clips, dict[str, Array]]:
        """The clean clips that the network is to make of a batch, and their condition but the text.

        The batch is of `data.pipeline.train_batches`, with `crop` and `draw_mask`; the key is for
        noise on what is shown.
        """
        del augment_key
        return as_floats(batch["video"]), {}


class ConditionalStage(Stage):
    """A stage that is shown some pixels of its clip: ⟨J, C, M⟩ of the paper (section 4)."""

    is_conditional = True

    @property
    def draw_mask(self) -> MaskMix:
        """What a training clip shows of itself."""
        assert self.config.masks is not None
        return MaskMix(self.config.masks)

    def is_trainable(self, path: tuple[str, ...]) -> bool:
        """Also the input convolution, which has new channels."""
        return super().is_trainable(path) or path[0] == INPUT_LAYER

    def _blank_input(self) -> tuple[jax.Array, dict[str, Any]]:
        return jnp.zeros((1, *self.clip_shape()[:-1], self.config.model.in_channels)), {}

    def _arguments(
        self, params: Params, z: Noisy, condition: dict[str, Any]
    ) -> tuple[Params, Noisy, dict[str, Any]]:
        """The network takes what is known as further channels."""
        condition = dict(condition)
        z = jnp.concatenate([z, condition.pop("known").astype(z.dtype)], axis=-1)
        return params, z, condition

    def training_clip(
        self, batch: Batch, augment_key: PRNGKeyArray
    ) -> tuple[Clips, dict[str, Array]]:
        """See `Stage.training_clip`."""
        video = as_floats(batch["video"])
        return video, {"known": known_part(video, batch["mask"])}


class StyleStage(Stage):
    """An image network that is fine-tuned on a style: all of it, or low-rank changes (LoRA)."""

    @property
    def rank(self) -> int:
        """Of the low-rank changes that are trained; 0 where all weights are."""
        return self.config.style.rank if self.config.style else 0

    def is_trainable(self, path: tuple[str, ...]) -> bool:
        """With a rank, the low-rank changes alone."""
        return path[0] == LORA if self.rank else super().is_trainable(path)

    def init_params(self, key: PRNGKeyArray) -> Params:
        """See `Stage.init_params`."""
        params = super().init_params(key)
        return {**params, LORA: fresh_lora(params, self.rank, key)} if self.rank else params

    def _arguments(
        self, params: Params, z: Noisy, condition: dict[str, Any]
    ) -> tuple[Params, Noisy, dict[str, Any]]:
        """With the low-rank changes in its weights."""
        return merge_lora(params), z, condition


class SuperResolutionStage(Stage):
    """A stage that refines a low-resolution clip; it learns from space-time crops."""

    is_super_resolution = True

    def clip_shape(self) -> tuple[int, int, int, int]:
        """The size of a crop, `(time, height, width, 3)`."""
        ssr = self.ssr
        return min(self.config.data.num_frames, ssr.window), ssr.crop, ssr.crop, 3

    @property
    def crop(self) -> RandomCrop:
        """A part of a clip whose low resolution is a part of the clip's, as at sampling."""
        return RandomCrop(self.clip_shape()[:3], self.ssr.factor)

    def splits_into(self, parts: int, frames: int) -> bool:
        """See `Stage.splits_into`; devices take whole windows, and split rows between steps."""
        ssr = self.ssr
        overlap = ssr.overlap if frames > ssr.window else 0
        rows, number = self.config.data.resolution, len(windows(frames, ssr.window, overlap))
        return rows % parts == 0 and parts <= number

    def _blank_input(self) -> tuple[jax.Array, dict[str, Any]]:
        clip = jnp.zeros((1, *self.clip_shape()))
        return clip, {"low_resolution": clip, "augmentation_level": jnp.zeros(1)}

    def training_clip(
        self, batch: Batch, augment_key: PRNGKeyArray
    ) -> tuple[Clips, dict[str, Array]]:
        """See `Stage.training_clip`; every low-resolution crop gets noise of a random level."""
        video = as_floats(batch["video"])
        small = downsample(video, self.ssr.factor)
        level_key, noise_key = jax.random.split(augment_key)
        level = self.schedule.round_level(jax.random.uniform(level_key, (video.shape[0],)))
        shown = self.shown(small, level, lambda shape: jax.random.normal(noise_key, shape))
        return video, {"low_resolution": shown, "augmentation_level": level}

    def shown(
        self,
        small: Float[Array, "batch time height width 3"],
        level: Float[Array, " batch"],
        draw: Callable[[tuple[int, ...]], Array],
    ) -> Float[Array, "batch time large_height large_width 3"]:
        """What the network is shown of low-resolution clips: enlarged, with augmentation noise.

        Noise that is added to enlarged pixels is lost to the mean over `factor` squared of them,
        so where the factor is large it belongs on the small ones. `draw` makes standard normal
        noise of a shape.
        """
        size = small.shape[2] * self.ssr.factor, small.shape[3] * self.ssr.factor
        if self.ssr.noise_on == "low_resolution":
            noisy = self.schedule.augment(small, level, draw(small.shape))
            return upsample_low_resolution(noisy, size, self.ssr.upsampling)
        large = upsample_low_resolution(small, size, self.ssr.upsampling)
        return self.schedule.augment(large, level, draw(large.shape))


_KINDS: dict[str, type[Stage]] = {
    "stunet_conditional": ConditionalStage,
    "style": StyleStage,
    "t2i_ssr": SuperResolutionStage,
    "ssr": SuperResolutionStage,
}
"""Stages that are more than a network from text to images or videos."""
