"""Space-Time U-Net (STUNet): the text-to-image U-Net, inflated (2401.12945, section 3.1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.models.attention import TextPooling
from lumiere_jax.models.inflation import (
    TEMPORAL_INITIALIZATIONS,
    AttentionInflationBlock,
    ConvInflationBlock,
    TemporalContext,
    TemporalDownsample,
    TemporalUpsample,
)
from lumiere_jax.models.layers import (
    Dense,
    FeatureMap,
    Text,
    TextMask,
    TimeMLP,
    check_choice,
    layer_norm,
    rematerialize,
    sinusoidal_embedding,
)
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

TEMPORAL_PREFIX = "temporal_"


def is_temporal(path: tuple[str, ...]) -> bool:
    """Whether the parameter at `path` came with inflation; all others are the image network's."""
    return path[0].startswith(TEMPORAL_PREFIX)


class STUNet(UNet):
    """Space-Time U-Net: predicts all frames of a clip in one pass.

    The parameters of the text-to-image U-Net keep their paths; every new one is below a
    top-level name that starts with `temporal_`. At initialization (with "nearest") the frames that
    survive all temporal down-sampling, one in 2^(levels - 1), have the text-to-image U-Net's
    output; the others mix its coarse features of an earlier frame with the fine ones of their
    own, which is the same thing where the frames are equal.

    Without `temporal_resampling` all levels work at the full frame rate, as in networks that
    inflate space alone, with which the paper compares; then any number of frames will do.
    """

    temporal_initialization: str = "nearest"  # or "he", of the temporal resampling modules
    temporal_depth: int = 4  # attention layers of an attention-based inflation block
    temporal_conditioning: bool = True  # time, frame and pooled text scale and shift (our choice)
    temporal_text: bool = True  # whether temporal attention also attends to the text (likewise)
    temporal_resampling: bool = True  # time is resampled where space is

    @nn.nowrap
    def check_fields(self, channels: int, text_dim: int) -> None:
        """See `UNet.check_fields`."""
        super().check_fields(channels, text_dim)
        initialization = self.temporal_initialization
        check_choice("temporal_initialization", initialization, TEMPORAL_INITIALIZATIONS)

    @nn.nowrap
    def check_clip(self, frames: int, height: int, width: int) -> None:
        """See `UNet.check_clip`; here the number of frames counts as well."""
        super().check_clip(frames, height, width)
        factor = 2 ** (len(self.widths) - 1) if self.temporal_resampling else 1
        if frames % factor:
            raise UserError(
                f"{frames} frames are not divisible by {factor}, the factor by which a space-time "
                f"U-Net of {len(self.widths)} levels down-samples time; use a multiple of {factor}."
            )

    @nn.nowrap
    def condition(
        self,
        x: Float[Array, "batch time height width channels"],
        time: Float[Array, " batch"],
        text: Text,
        text_mask: TextMask | None,
    ) -> TemporalContext:
        """Makes the context of the temporal modules."""
        batch, frames = x.shape[:2]
        embedding = None
        if self.temporal_conditioning:
            embedding = self._frame_embedding(frames, time, text.astype(self.dtype), text_mask)
        if self.temporal_text:
            text = layer_norm(self.dtype, "temporal_text_norm")(text)
        return TemporalContext(batch, embedding, text if self.temporal_text else None, text_mask)

    @nn.nowrap
    def _frame_embedding(
        self, frames: int, time: Array, text: Text, mask: TextMask | None
    ) -> Float[Array, "batch {frames} features"]:
        features = self.embedding_features or 4 * self.widths[0]
        pooling = TextPooling(
            features, self.pooling_heads, self.dtype, name="temporal_text_pooling"
        )
        time_mlp = TimeMLP(self.widths[0], features, dtype=self.dtype, name="temporal_time_mlp")
        positions = sinusoidal_embedding(jnp.arange(frames), features, 1000.0).astype(self.dtype)
        frame = Dense(features, dtype=self.dtype, name="temporal_frame")(positions)
        joint = (time_mlp(time) + pooling(text, mask))[:, None] + frame
        joint = Dense(features, dtype=self.dtype, name="temporal_joint")(jax.nn.silu(joint))
        return jax.nn.silu(joint)

    @nn.nowrap
    def inflate_layer(
        self, x: FeatureMap, context: TemporalContext, level: int, name: str
    ) -> FeatureMap:
        """The inflation block that follows a layer: attention at the coarsest level only."""
        name = f"{TEMPORAL_PREFIX}{name}"
        if level == len(self.widths) - 1:
            block = rematerialize(AttentionInflationBlock, self.remat)
            sizes = (self.temporal_depth, self.head_dim)
            return block(*sizes, self.groups, self.dtype, name=name)(x, context)
        block = rematerialize(ConvInflationBlock, self.remat)
        return block(self.groups, self.dtype, name=name)(x, context)

    @nn.nowrap
    def inflate_resample(self, x: FeatureMap, context: TemporalContext, name: str) -> Array:
        """Halves or doubles the frame rate after the spatial resampling of that name."""
        if not self.temporal_resampling:
            return x
        module = TemporalDownsample if name.startswith("down") else TemporalUpsample
        # Or the latter would store every frame twice.
        resample = rematerialize(module, self.remat, static=(2,))
        name, kind = f"{TEMPORAL_PREFIX}{name}", self.temporal_initialization
        return resample(kind, self.dtype, name=name)(x, context.batch)
