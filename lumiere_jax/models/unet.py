"""Text-to-image U-Net of the Imagen family (2205.11487), in pixel space.

BigGAN residual blocks with scale-shift conditioning, text keys and values inside the spatial
attention, attention-pooled text added to the time embedding. DeepFloyd IF's stage I is one of
its configurations, and its stage II one of `ssr_unet.py`'s. The space-time U-Net (`stunet.py`) is
this network with its three hooks filled in, so that the paths of these parameters are the same in
both.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.models.attention import TEXT_NORMS, TextAttention, TextPooling
from lumiere_jax.models.layers import (
    ACTIVATIONS,
    REMAT_POLICIES,
    Dense,
    Dtype,
    FeatureMap,
    ResidualBlock,
    Text,
    TextMask,
    TimeMLP,
    check_choice,
    constrain,
    conv3x3,
    depth_to_space,
    group_norm,
    rematerialize,
    space_to_depth,
)
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError


class UNet(nn.Module):
    """Text-to-image U-Net; on a video it works frame by frame.

    Level 0 is the finest. Each level has `layers_per_level` layers on the way down and one more
    on the way up; a layer is a residual block, followed by attention where `attention_levels`
    says so. Between levels a residual block resamples by 2. In the middle, at the coarsest
    level, attention stands between two residual blocks, whatever `attention_levels` says.

    With `patch`, one position of level 0 stands for a square of pixels, whose values are its
    channels on the way in and out (as in simple diffusion, 2301.11093): fewer positions with more
    channels keep a matrix unit busier.
    """

    widths: tuple[int, ...] = (512, 1024, 1536, 2048)  # channels of each level
    layers_per_level: int | tuple[int, ...] = 3  # on the way down; of all levels, or one each
    attention_levels: tuple[bool, ...] = (False, False, True, True)  # for each level
    in_channels: int = 3  # channels of the input
    out_channels: int = 3  # of the prediction; twice a pixel's with a learned variance
    patch: int = 1  # side of the squares of pixels
    embedding_features: int = 0  # size of the conditioning vector; 0: four times the finest width
    head_dim: int = 64  # channels of an attention head; must divide the widths that have attention
    text_features: int = 2048  # channels to which the text is projected for attention
    pooling_heads: int = 64  # heads of the text pooling; must divide the encoder's channels
    groups: int = 32  # groups of every GroupNorm; must divide every width
    activation: str = "silu"  # "silu" or "gelu"
    text_norm: str = "layer"  # normalization of the text inside attention: "layer" or "group"
    self_attention: bool = True  # whether pixels attend to pixels, or to the text alone
    residual_divisor: float = 1.0  # what the output of every residual block is divided by
    augmentation: bool = False  # whether the network sees the noise level of a low-resolution image
    remat: str = "none"  # what a layer stores for the backward pass, see `rematerialize`
    dtype: Dtype = jnp.float32  # of the computation; parameters are float32

    @nn.nowrap
    def condition(self, x: Array, time: Array, text: Text, text_mask: TextMask | None) -> Any:
        """Hook before the first layer: makes the `context` that the other hooks receive."""
        return x.shape[0]

    @nn.nowrap
    def inflate_layer(self, x: FeatureMap, context: Any, level: int, name: str) -> FeatureMap:
        """Hook after each layer of a level; the identity here."""
        return x

    @nn.nowrap
    def inflate_resample(self, x: FeatureMap, context: Any, name: str) -> Array:
        """Hook after the spatial resampling of a name, as "down_0_resample"; the identity here."""
        return x

    @nn.nowrap
    def _layers(self) -> tuple[int, ...]:
        """Layers of every level on the way down."""
        layers = self.layers_per_level
        return (layers,) * len(self.widths) if isinstance(layers, int) else tuple(layers)

    @nn.nowrap
    def check_fields(self, channels: int, text_dim: int) -> None:
        """Raises a `UserError` that names the field, if fields do not fit one another.

        Args:
          channels: of the noisy clip and of what the network sees with it.
          text_dim: of the text embeddings.
        """
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("text_norm", self.text_norm, TEXT_NORMS)
        check_choice("remat", self.remat, REMAT_POLICIES)
        if len(self.attention_levels) != len(self.widths):
            raise UserError(
                f"attention_levels has {len(self.attention_levels)} entries for "
                f"{len(self.widths)} levels (widths={tuple(self.widths)}); give one per level."
            )
        if len(self._layers()) != len(self.widths):
            raise UserError(
                f"layers_per_level={self.layers_per_level} for {len(self.widths)} levels; give one "
                "number, or one per level."
            )
        attended = {w for w, yes in zip(self.widths, self.attention_levels, strict=True) if yes}
        attended.add(self.widths[-1])
        for field, of, sizes in [
            ("groups", "widths", self.widths),
            ("head_dim", "the widths with attention", sorted(attended)),
            ("pooling_heads", "the channels of the text embeddings", [text_dim]),
        ]:
            if any(size % getattr(self, field) for size in sizes):
                raise UserError(
                    f"{field}={getattr(self, field)} does not divide {of}, {list(sizes)}; "
                    f"choose {field} so that it does."
                )
        if self.text_norm == "group" and self.text_features % 32:
            raise UserError(
                "text_norm 'group' has 32 groups, which do not divide "
                f"text_features={self.text_features}; choose a multiple of 32, or 'layer'."
            )
        if channels != self.in_channels:
            raise UserError(f"the network takes {self.in_channels} channels; got {channels}.")

    @nn.nowrap
    def check_clip(self, frames: int, height: int, width: int) -> None:
        """Raises a `UserError`, with the factor, if the network takes no clips of this size."""
        factor = self.patch * 2 ** (len(self.widths) - 1)
        if height % factor or width % factor:
            of_patches = f" of patches of {self.patch} pixels" if self.patch > 1 else ""
            raise UserError(
                f"height × width of {height}×{width} is not divisible by {factor}, the factor by "
                f"which a U-Net of {len(self.widths)} levels{of_patches} down-samples; choose a "
                "multiple."
            )

    @nn.nowrap
    def _embed(
        self, time: Array, text: Text, mask: TextMask | None, level: Array | None
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch length {self.text_features}"]]:
        """Returns the conditioning and the text's features for attention."""
        features = self.embedding_features or 4 * self.widths[0]
        pooling = TextPooling(features, self.pooling_heads, self.dtype, name="text_pooling")
        projection = Dense(self.text_features, dtype=self.dtype, name="text_projection")

        def embed(name: str, value: Array) -> Array:
            return TimeMLP(self.widths[0], features, self.activation, self.dtype, name=name)(value)

        joint = embed("time_mlp", time) + pooling(text, mask)
        if self.augmentation:
            assert level is not None
            # The same unit as `time`.
            joint = joint + embed("augmentation_mlp", 1000 * level)
        return ACTIVATIONS[self.activation](joint), projection(text)

    @nn.nowrap
    def _block(
        self, h: Array | tuple[Array, Array], embedding: Array, level: int, name: str,
        resample: str = "none",
    ) -> Array:  # fmt: skip
        block = rematerialize(ResidualBlock, self.remat)
        features, divisor = self.widths[level], self.residual_divisor
        fields = (features, resample, self.groups, self.activation, self.dtype, divisor)
        return block(*fields, name=f"{name}_block")(h, embedding)

    @nn.nowrap
    def _attention(self, h: Array, text: Text, mask: TextMask | None, name: str) -> Array:
        attention = rematerialize(TextAttention, self.remat)
        sizes = (self.head_dim, self.groups, self.text_norm, self.dtype, self.self_attention)
        return attention(*sizes, name=f"{name}_attention")(h, text, mask)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *time height width {self.in_channels}"],
        time: Float[Array, " batch"],
        text: Text,
        text_mask: TextMask | None = None,
        augmentation_level: Float[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *time height width {self.out_channels}"]:
        """Predicts v, ε or x0 (whatever it was trained for) from noisy pixels, in float32.

        Args:
          x: an image or a video for each example; `check_clip` says which sizes fit.
          time: noise level as the schedule tells it to networks, 0 to 1000.
          text: embeddings of the prompts.
          text_mask: None shows all tokens.
          augmentation_level: in [0, 1], for networks with `augmentation`.
        """
        context = self.condition(x, time, text, text_mask)
        text = text.astype(self.dtype)
        embedding, text = self._embed(time, text, text_mask, augmentation_level)
        h = space_to_depth(x.reshape(-1, *x.shape[-3:]), self.patch)
        h = conv3x3(self.widths[0], self.dtype, "conv_in")(h)
        h = constrain(h, "clips", "height", None, None)
        skips, last = [h], len(self.widths) - 1

        def layer(h: Array | tuple[Array, Array], level: int, name: str) -> Array:
            h = self._block(h, embedding, level, name)
            if self.attention_levels[level]:
                h = self._attention(h, text, text_mask, name)
            return self.inflate_layer(h, context, level, name)

        def resample(h: Array, level: int, way: str) -> Array:
            h = self._block(h, embedding, level, f"{way}_{level}_resample", way)
            return self.inflate_resample(h, context, f"{way}_{level}_resample")

        for level in range(last + 1):
            for i in range(self._layers()[level]):
                h = layer(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < last:
                h = resample(h, level, "down")
                skips.append(h)

        h = self._block(h, embedding, last, "mid_0")
        h = self._attention(h, text, text_mask, "mid_0")
        h = self._block(h, embedding, last, "mid_1")
        h = self.inflate_layer(h, context, last, "mid_1")

        for level in reversed(range(last + 1)):
            for i in range(self._layers()[level] + 1):
                h = layer((h, skips.pop()), level, f"up_{level}_{i}")
            if level > 0:
                h = resample(h, level, "up")

        h = ACTIVATIONS[self.activation](group_norm(self.groups, self.dtype, "norm_out")(h))
        channels = self.out_channels * self.patch**2
        h = conv3x3(channels, self.dtype, "conv_out", zero=True)(h)
        h = depth_to_space(h, self.patch)
        return h.reshape(*x.shape[:-1], self.out_channels).astype(jnp.float32)
