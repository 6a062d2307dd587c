"""A stage of the cascade: its network, schedule and text encoder, made from its config."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lumiere_jax import text
from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.data.masks import MaskMix
from lumiere_jax.diffusion.discrete import DiscreteSchedule
from lumiere_jax.diffusion.low_resolution import downsample, upsample_low_resolution
from lumiere_jax.diffusion.multidiffusion import normalized_weights, windows
from lumiere_jax.diffusion.schedule import CosineSchedule, Schedule, with_time_power
from lumiere_jax.models.lora import LORA, fresh_lora, merge_lora
from lumiere_jax.models.parameters import Params
from lumiere_jax.models.ssr import EfficientUNet
from lumiere_jax.models.ssr_unet import SuperResolutionUNet
from lumiere_jax.models.stunet import STUNet, is_temporal
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.errors import UserError

STAGES = {
    "t2i": None,
    "stunet": "t2i",
    "t2i_ssr": None,
    "ssr": "t2i_ssr",
    "stunet_conditional": "stunet",
    "style": "t2i",
}
"""Every stage, and the one that it is initialized from."""

CASCADE = ("t2i", "stunet", "t2i_ssr", "ssr")
"""The stages that text-to-video takes, in the order in which they are trained."""

_NETWORKS = {
    "unet": UNet, "stunet": STUNet, "ssr": EfficientUNet, "ssr_unet": SuperResolutionUNet,
}  # fmt: skip
INPUT_LAYER = "conv_in"
IMAGE_STAGES = ("t2i", "style")
"""Stages that make single images."""

Batch = dict[str, jax.Array]


def create_network(config: ConfigDict) -> nn.Module:
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


def check_config(config: ConfigDict) -> None:
    """Makes sure that the fields of a config, beside the network's, fit one another.

    Raises:
      UserError: naming the field that does not.
    """
    stage, data, trainable = config.stage, config.data, config.train.trainable
    if stage not in STAGES:
        raise UserError(f"stage {stage!r} is unknown; use one of {list(STAGES)}.")
    if trainable not in ("all", "temporal"):
        raise UserError(f"train.trainable {trainable!r} is unknown; use all or temporal.")
    if trainable == "temporal" and stage in (*IMAGE_STAGES, "t2i_ssr"):
        raise UserError(f"stage {stage!r} has no temporal parameters; set train.trainable to all.")
    if config.train.frozen_dtype not in ("float32", "bfloat16"):
        raise UserError(
            f"train.frozen_dtype {config.train.frozen_dtype!r} is unknown; use float32 or bfloat16."
        )
    if config.train.num_steps < 1:
        raise UserError(f"train.num_steps={config.train.num_steps} must be 1 or more.")
    if stage in IMAGE_STAGES and data.num_frames != 1:
        raise UserError(
            f"stage {stage!r} trains on single frames; data.num_frames={data.num_frames} must be 1."
        )
    _check_diffusion(config)
    if stage == "style" and not 0 <= config.style.rank <= 1024:
        raise UserError(f"style.rank={config.style.rank} must be between 0 (no LoRA) and 1024.")
    if stage == "stunet_conditional":
        MaskMix(config.masks)
        if config.model.in_channels != 7:
            raise UserError(
                f"model.in_channels={config.model.in_channels}: stage {stage!r} takes 7, the noisy "
                "video, the known one and its mask."
            )
    if "ssr" in config:
        ssr = config.ssr
        if ssr.crop > data.resolution or ssr.crop % ssr.factor or data.resolution % ssr.factor:
            raise UserError(
                f"ssr.crop={ssr.crop} and data.resolution={data.resolution} must be multiples of "
                f"ssr.factor={ssr.factor}, and the crop not larger than the clip."
            )
        normalized_weights(data.num_frames, ssr.window, ssr.overlap, ssr.weights)  # checks them


def _check_diffusion(config: ConfigDict) -> None:
    diffusion = config.diffusion
    schedule = diffusion.get("schedule", "cosine")
    learned = diffusion.get("learned_variance", False)
    if schedule not in ("cosine", "discrete"):
        raise UserError(f"diffusion.schedule {schedule!r} is unknown; use cosine or discrete.")
    if schedule == "discrete" and diffusion.log_snr_shift:
        raise UserError(
            f"diffusion.log_snr_shift={diffusion.log_snr_shift}: the steps of schedule 'discrete' "
            "are fixed; set it to 0."
        )
    if schedule == "discrete" and diffusion.weighting != "plain":
        raise UserError(
            f"diffusion.weighting {diffusion.weighting!r} needs a schedule that is continuous in "
            "time; use plain with schedule 'discrete'."
        )
    if learned and (schedule, diffusion.prediction) != ("discrete", "epsilon"):
        raise UserError(
            "diffusion.learned_variance needs diffusion.schedule='discrete' and "
            f"diffusion.prediction='epsilon'; got {schedule!r} and {diffusion.prediction!r}."
        )
    channels = config.model.get("out_channels", 3)
    if channels != (6 if learned else 3):
        raise UserError(
            f"model.out_channels={channels} with diffusion.learned_variance={learned}: a learned "
            "variance takes 3 channels beside the 3 of the prediction."
        )
    if config.sampling.sampler == "ddpm" and not learned:
        raise UserError(
            "sampling.sampler 'ddpm' needs diffusion.learned_variance; use 'ancestral' without."
        )


def create_schedule(config: ConfigDict) -> Schedule:
    """The noise schedule that a stage's config describes."""
    if config.diffusion.get("schedule", "cosine") == "discrete":
        schedule = DiscreteSchedule(config.sampling.get("timestep_spacing", "leading"))
    else:
        schedule = CosineSchedule(shift=config.diffusion.log_snr_shift)
    return with_time_power(schedule, config.sampling.get("time_power", 1.0))


def known_part(video: jax.Array, mask: jax.Array) -> jax.Array:
    """What a conditional stage is shown: ⟨C, M⟩ of the paper's ⟨J, C, M⟩ (section 4).

    Args:
      video: `[batch, time, height, width, 3]`.
      mask: `[batch, time, height, width, 1]`, true where a pixel is known.

    Returns:
      `[batch, time, height, width, 4]`: the known pixels, others 0, and the mask.
    """
    mask = mask.astype(video.dtype)
    return jnp.concatenate([video * mask, mask], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the cascade, without its parameters: one that makes images or videos from text.

    Attributes:
      name: a key of `STAGES`.
      config: its whole config.
      network: the Linen module.
      schedule: the noise schedule.
      text_encoder: from prompts to embeddings.
      is_super_resolution: whether it refines a low-resolution clip.
      is_conditional: whether it is shown some pixels of the clip that it is to make.
    """

    name: str
    config: ConfigDict
    network: nn.Module
    schedule: Schedule
    text_encoder: text.TextEncoder
    is_super_resolution: ClassVar[bool] = False
    is_conditional: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: ConfigDict, *, shapes_only: bool = False) -> "Stage":
        """Makes the stage that `config` describes, of the kind that its name asks for.

        Args:
          config: see `default_config`.
          shapes_only: the stage is traced for shapes and plans, and needs no text encoder's
            weights.

        Raises:
          UserError: where the config does not make sense.
        """
        check_config(config)
        encoder = text.create(config.text)
        if shapes_only:
            encoder = text.ShapesOnly(encoder.dim, encoder.max_length)
        return _KINDS.get(config.stage, cls)(
            name=config.stage,
            config=config,
            network=create_network(config.model),
            schedule=create_schedule(config),
            text_encoder=encoder,
        )

    @property
    def learned_variance(self) -> bool:
        """Whether the network's second half of channels tells the variance of a reverse step."""
        return self.config.diffusion.get("learned_variance", False)

    @property
    def is_distilled(self) -> bool:
        """Whether it learns from a teacher of the same stage, see `training.distill`."""
        return "distillation" in self.config

    @property
    def starts_from(self) -> str | None:
        """The stage of the checkpoint that it is initialized from; None if there is none."""
        return self.name if self.is_distilled else STAGES[self.name]

    @property
    def draw_mask(self) -> MaskMix | None:
        """What a training clip shows of itself; None where nothing is shown."""
        return None

    def is_trainable(self, path: tuple[str, ...]) -> bool:
        """The freezing rule: all parameters, or those that came with inflation."""
        return self.config.train.trainable == "all" or is_temporal(path)

    def null_text(self) -> tuple[np.ndarray, np.ndarray]:
        """The unconditional text: embeddings `[1, length, dim]` and mask `[1, length]`.

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
        coarsest = self.config.data.resolution // (
            model.get("patch", 1) * 2 ** (len(model.widths) - 1)
        )
        return coarsest % parts == 0

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters; call it under `jax.jit` or `jax.eval_shape`."""
        encoder = self.text_encoder
        embeddings = jnp.zeros((1, encoder.max_length, encoder.dim))
        mask = jnp.ones((1, encoder.max_length), bool)
        clip, extra = self._blank_input()
        return self.network.init(key, clip, jnp.zeros(1), embeddings, mask, **extra)["params"]

    def _blank_input(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A clip for the network, and what it takes beside clip, time and text."""
        return jnp.zeros((1, *self.clip_shape())), {}

    def predict(
        self, params: Params, z: jax.Array, log_snr: jax.Array, condition: dict[str, Any]
    ) -> jax.Array:
        """The network's prediction for noisy clips.

        Args:
          params: of the network.
          z: `[batch, time, height, width, 3]`.
          log_snr: `[batch]`.
          condition: "text", "text_mask" and, for super-resolution, "low_resolution" and
            "augmentation_level"; for a conditional stage "known", see `known_part`.
        """
        time = self.schedule.network_time(log_snr)
        return self.network.apply({"params": params}, z, time, **condition)

    def training_clip(
        self, batch: Batch, crop_key: jax.Array, augment_key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What the network is to make of a batch, and what it is shown beside the text.

        Args:
          batch: see `data.pipeline.train_batches`.
          crop_key: PRNG key for crops.
          augment_key: PRNG key for noise on what is shown.

        Returns:
          Clean clips `[batch, time, height, width, 3]`, and their condition but for the text.
        """
        del crop_key, augment_key
        return batch["video"], {}


class ConditionalStage(Stage):
    """A stage that is shown some pixels of its clip: ⟨J, C, M⟩ of the paper (section 4)."""

    is_conditional = True

    @property
    def draw_mask(self) -> MaskMix:
        """What a training clip shows of itself."""
        return MaskMix(self.config.masks)

    def is_trainable(self, path: tuple[str, ...]) -> bool:
        """Also the input convolution, which has new channels."""
        return super().is_trainable(path) or path[0] == INPUT_LAYER

    def _blank_input(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.zeros((1, *self.clip_shape()[:-1], self.config.model.in_channels)), {}

    def predict(
        self, params: Params, z: jax.Array, log_snr: jax.Array, condition: dict[str, Any]
    ) -> jax.Array:
        """See `Stage.predict`; the network takes what is known as further channels."""
        condition = dict(condition)
        z = jnp.concatenate([z, condition.pop("known").astype(z.dtype)], axis=-1)
        return super().predict(params, z, log_snr, condition)

    def training_clip(
        self, batch: Batch, crop_key: jax.Array, augment_key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """See `Stage.training_clip`."""
        return batch["video"], {"known": known_part(batch["video"], batch["mask"])}


class StyleStage(Stage):
    """An image network that is fine-tuned on a style: all of it, or low-rank changes (LoRA)."""

    def is_trainable(self, path: tuple[str, ...]) -> bool:
        """With a rank, the low-rank changes alone."""
        return path[0] == LORA if self.config.style.rank else super().is_trainable(path)

    def init_params(self, key: jax.Array) -> Params:
        """See `Stage.init_params`."""
        params, rank = super().init_params(key), self.config.style.rank
        return {**params, LORA: fresh_lora(params, rank, key)} if rank else params

    def predict(
        self, params: Params, z: jax.Array, log_snr: jax.Array, condition: dict[str, Any]
    ) -> jax.Array:
        """See `Stage.predict`."""
        return super().predict(merge_lora(params), z, log_snr, condition)


class SuperResolutionStage(Stage):
    """A stage that refines a low-resolution clip; it learns from space-time crops."""

    is_super_resolution = True

    @property
    def upsampling(self) -> str:
        """How the low-resolution clip is brought to size, see `upsample_low_resolution`."""
        return self.config.ssr.get("upsampling", "bilinear")

    def clip_shape(self) -> tuple[int, int, int, int]:
        """The size of a crop, `(time, height, width, 3)`."""
        ssr = self.config.ssr
        return min(self.config.data.num_frames, ssr.window), ssr.crop, ssr.crop, 3

    def splits_into(self, parts: int, frames: int) -> bool:
        """See `Stage.splits_into`; devices take whole windows, and split rows between steps."""
        ssr = self.config.ssr
        overlap = ssr.overlap if frames > ssr.window else 0
        rows, number = self.config.data.resolution, len(windows(frames, ssr.window, overlap))
        return rows % parts == 0 and parts <= number

    def _blank_input(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        clip = jnp.zeros((1, *self.clip_shape()))
        return clip, {"low_resolution": clip, "augmentation_level": jnp.zeros(1)}

    def training_clip(
        self, batch: Batch, crop_key: jax.Array, augment_key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """See `Stage.training_clip`; every low-resolution crop gets noise of a random level."""
        low, video = self.training_crops(batch["video"], crop_key)
        level_key, noise_key = jax.random.split(augment_key)
        level = jax.random.uniform(level_key, (video.shape[0],))
        level = self.schedule.round_level(level)
        noise = jax.random.normal(noise_key, low.shape)
        low = self.schedule.augment(low, level, noise)
        return video, {"low_resolution": low, "augmentation_level": level}

    def training_crops(self, video: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Random space-time crops.

        Args:
          video: `[batch, time, height, width, 3]` at the high resolution.
          key: PRNG key.

        Returns:
          The up-sampled low-resolution crops and the true ones, both
          `[batch, window, crop, crop, 3]`. Crops begin at multiples of the factor.
        """
        factor, size = self.config.ssr.factor, self.clip_shape()
        high = np.array(video.shape[1:4]) - size[:3]

        def crop(clip: jax.Array, clip_key: jax.Array) -> jax.Array:
            time, row, column = jax.random.split(clip_key, 3)
            start = (
                jax.random.randint(time, (), 0, high[0] + 1),
                factor * jax.random.randint(row, (), 0, high[1] // factor + 1),
                factor * jax.random.randint(column, (), 0, high[2] // factor + 1),
                0,
            )
            return jax.lax.dynamic_slice(clip, start, size)

        video = jax.vmap(crop)(video, jax.random.split(key, video.shape[0]))
        low = upsample_low_resolution(downsample(video, factor), size[1:3], self.upsampling)
        return low, video


_KINDS: dict[str, type[Stage]] = {
    "stunet_conditional": ConditionalStage,
    "style": StyleStage,
    "t2i_ssr": SuperResolutionStage,
    "ssr": SuperResolutionStage,
}
"""Stages that are more than a network from text to images or videos."""
