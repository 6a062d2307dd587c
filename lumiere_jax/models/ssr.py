"""Spatial super-resolution network: Imagen's Efficient U-Net (2205.11487, appendix B), inflated.

Lumiere's super-resolution network is an inflated one (2401.12945, section 3), but its backbone
is not public: the Efficient U-Net and the zero-initialized temporal convolutions are this
project's choice. Most residual blocks sit at the coarse levels, each level resamples *before*
its blocks on the way down and *after* them on the way up, and there is no spatial
self-attention, so memory grows with the number of pixels and no faster.

Every parameter of the inflation is below a top-level name with the prefix `temporal_`; all
others have the same path in the image network (`inflated=False`) and in the video network.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.models.attention import TextPooling, attend, split_heads
from lumiere_jax.models.inflation import TemporalConv
from lumiere_jax.models.layers import (
    REMAT_POLICIES,
    Dense,
    Dtype,
    FeatureMap,
    ResidualBlock,
    Text,
    TextMask,
    TimeMLP,
    UpsampleConv,
    check_choice,
    constrain,
    conv3x3,
    group_norm,
    layer_norm,
    rematerialize,
    repeat,
)
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

SKIP_SCALE = 2**-0.5


class TextCrossAttention(nn.Module):
    """Attention from pixels to text, residual, zero-initialized; linear in the pixels."""

    head_dim: int = 64
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, text: Text, text_mask: TextMask | None) -> FeatureMap:
        """Adds attention to `x`; each row of the text serves `frames / batch` frames."""
        channels = x.shape[-1]

        def heads(name: str, y: Array) -> Array:
            return split_heads(Dense(channels, dtype=self.dtype, name=name)(y), self.head_dim)

        # The frames of a clip share its text: their pixels are one list of queries.
        pixels = group_norm(self.groups, self.dtype, "norm")(x)
        pixels = pixels.reshape(text.shape[0], -1, channels)
        text = layer_norm(self.dtype, "text_norm")(text)
        attended = attend(
            heads("query", pixels), heads("key", text), heads("value", text), text_mask
        )
        out = Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")
        return x + out(attended).reshape(x.shape)


class TemporalResidual(nn.Module):
    """Residual 1-D convolution over time with kernel 3; exactly the identity at initialization."""

    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, batch: int) -> FeatureMap:
        """Adds a convolution over the frames of each of the `batch` clips to `x`."""
        h = jax.nn.silu(group_norm(self.groups, self.dtype, "norm")(x))
        zeros = nn.initializers.zeros
        return x + TemporalConv(x.shape[-1], zeros, self.dtype, name="conv")(h, batch)


class EfficientUNet(nn.Module):
    """Super-resolution U-Net for images (time = 1) and, where `inflated`, for videos.

    The defaults are full scale: 1,043M parameters and, where inflated, 23M more, with text of
    4096 channels. The coarsest level is wider than Imagen's 1024, which would make 569M in all,
    because Lumiere's network is reported to have about 1B.
    """

    widths: tuple[int, ...] = (128, 256, 512, 1536)  # channels of each level, the finest first
    num_blocks: tuple[int, ...] = (2, 4, 8, 8)  # of each level, down and again up
    strides: tuple[int, ...] = (2, 2, 2, 2)  # 1 or 2: down-sampling before a level
    middle_blocks: int = 2  # residual blocks between the two ways, at the coarsest level
    inflated: bool = False  # temporal convolutions, one after each group of blocks
    out_channels: int = 3  # of the prediction
    embedding_features: int = 512  # size of the conditioning vector
    head_dim: int = 64  # channels of an attention head, at most; less where a width demands it
    groups: int = 32  # groups of a GroupNorm, at most; fewer where a width demands it
    remat: str = "none"  # what a block stores for the backward pass, see `rematerialize`
    dtype: Dtype = jnp.float32  # of the computation; parameters are float32

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "batch time height width 3"],
        time: Float[Array, " batch"],
        text: Text,
        text_mask: TextMask | None = None,
        *,
        low_resolution: Float[Array, "batch time height width 3"],
        augmentation_level: Float[Array, " batch"],
    ) -> Float[Array, "batch time height width {self.out_channels}"]:
        """Predicts v, ε or x0 (whatever it was trained for) from a noisy video, in float32.

        Args:
          z: noisy video; `check_clip` says which sizes fit.
          time: noise level as the schedule tells it to networks, 0 to 1000.
          text: embeddings of the prompts.
          text_mask: None shows all tokens.
          low_resolution: the clip to refine, up-sampled and augmented with noise.
          augmentation_level: how much noise that was, in [0, 1].
        """
        batch, text = z.shape[0], text.astype(self.dtype)
        embedding = self._embed(time, text, text_mask, augmentation_level)
        context = (embedding, text, text_mask, batch)
        h = jnp.concatenate([z, low_resolution], axis=-1).astype(self.dtype)
        h = conv3x3(self.widths[0], self.dtype, "conv_in")(h.reshape(-1, *h.shape[2:]))
        h = constrain(h, "clips", "height", None, None)
        pixels, skips, last = h, [], len(self.widths) - 1

        for level in range(last + 1):
            name, stride = f"down_{level}_conv", self.strides[level]
            h = conv3x3(self.widths[level], self.dtype, name, stride=stride)(h)
            h = self._blocks(h, f"down_{level}", level, self.num_blocks[level], context)
            skips.append(h)

        h = self._blocks(h, "middle", last, self.middle_blocks, context)

        for level in reversed(range(last + 1)):
            h = jnp.concatenate([h, SKIP_SCALE * skips.pop()], axis=-1)
            h = self._blocks(h, f"up_{level}", level, self.num_blocks[level], context)
            h = self._upsample(h, level)

        # Pixels get past the first stride, or a narrow network could not see all of the noise.
        h = group_norm(self._groups(h), self.dtype, "norm_out")(h + SKIP_SCALE * pixels)
        h = conv3x3(self.out_channels, self.dtype, "conv_out", zero=True)(jax.nn.silu(h))
        return h.reshape(*z.shape[:-1], self.out_channels).astype(jnp.float32)

    @nn.nowrap
    def check_fields(self, channels: int, text_dim: int) -> None:
        """See `UNet.check_fields`."""
        check_choice("remat", self.remat, REMAT_POLICIES)
        if not len(self.widths) == len(self.num_blocks) == len(self.strides):
            raise UserError(
                f"super-resolution network: widths={tuple(self.widths)}, "
                f"num_blocks={tuple(self.num_blocks)} and strides={tuple(self.strides)} must "
                "each have one entry per level."
            )
        if not set(self.strides) <= {1, 2}:
            raise UserError(
                f"super-resolution network: strides={tuple(self.strides)} must be 1 or 2 each."
            )

    @nn.nowrap
    def check_clip(self, frames: int, height: int, width: int) -> None:
        """See `UNet.check_clip`."""
        factor = math.prod(self.strides)
        if height % factor or width % factor:
            raise UserError(
                f"super-resolution network: height × width of {height}×{width} is not divisible "
                f"by {factor}, the product of its strides; choose a multiple."
            )

    @nn.nowrap
    def _embed(
        self, time: Array, text: Text, text_mask: TextMask | None, augmentation_level: Array
    ) -> Float[Array, "batch {self.embedding_features}"]:
        """Returns the activated sum of the three conditionings."""
        features = self.embedding_features
        pooling_heads = text.shape[-1] // math.gcd(text.shape[-1], self.head_dim)
        noise = TimeMLP(features, features, name="time_mlp")(time)
        # The same unit as `time`, so that the frequencies fit.
        level = TimeMLP(features, features, name="augmentation_mlp")(1000 * augmentation_level)
        pooling = TextPooling(features, pooling_heads, self.dtype, name="text_pooling")
        return jax.nn.silu(noise + level + pooling(text, text_mask)).astype(self.dtype)

    @nn.nowrap
    def _groups(self, *arrays: Array) -> int:
        return math.gcd(self.groups, *(x.shape[-1] for x in arrays))

    @nn.nowrap
    def _blocks(
        self,
        h: FeatureMap,
        name: str,
        level: int,
        count: int,
        context: tuple[Array, Text, TextMask | None, int],
    ) -> Float[Array, "frames height width new_channels"]:
        """A group of blocks, text at the coarsest level, then time where inflated."""
        embedding, text, text_mask, batch = context
        features = self.widths[level]
        if h.shape[-1] != features:  # the one that takes the skip is not like the others
            block = rematerialize(ResidualBlock, self.remat)
            groups = math.gcd(self._groups(h), features)
            first = block(features, groups=groups, dtype=self.dtype, name=f"{name}_first_block")
            h, count = first(h, embedding), count - 1
        if count:
            block = rematerialize(ResidualBlock, self.remat, repeated=True)
            groups = self._groups(h)
            others = block(features, groups=groups, dtype=self.dtype, name=f"{name}_blocks")
            h = repeat(others, count, h, embedding)
        if level == len(self.widths) - 1:
            head_dim = math.gcd(self.head_dim, features)
            h = TextCrossAttention(head_dim, self._groups(h), self.dtype, name=f"{name}_attention")(
                h, text, text_mask
            )
        if self.inflated:
            temporal = TemporalResidual(self._groups(h), self.dtype, name=f"temporal_{name}")
            h = temporal(h, batch)
        return h

    @nn.nowrap
    def _upsample(self, h: Array, level: int) -> Array:
        conv = UpsampleConv if self.strides[level] == 2 else conv3x3
        return conv(self.widths[max(level - 1, 0)], self.dtype, name=f"up_{level}_conv")(h)
