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

from lumiere_jax.models.attention import TextPooling, attend, split_heads
from lumiere_jax.models.inflation import TemporalConv
from lumiere_jax.models.layers import (
    Array,
    Conv,
    Dense,
    Dtype,
    ResidualBlock,
    TimeMLP,
    constrain,
    conv3x3,
    group_norm,
    layer_norm,
    nearest_upsample,
    rematerialize,
    repeat,
)
from lumiere_jax.runtime.errors import UserError

SKIP_SCALE = 2**-0.5


class TextCrossAttention(nn.Module):
    """Attention from pixels to text, residual, zero-initialized; linear in the pixels.

    Attributes:
      head_dim: channels a head.
      groups: groups of the pixels' GroupNorm.
      dtype: dtype of the computation; logits and softmax are float32.
    """

    head_dim: int = 64
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, text: Array, text_mask: Array | None) -> Array:
        """Adds attention to `x`.

        Args:
          x: `[frames, height, width, channels]`.
          text: `[batch, length, dim]`; each row serves `frames / batch` frames.
          text_mask: `[batch, length]` or None.

        Returns:
          An array like `x`.
        """
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
    """Residual 1-D convolution over time with kernel 3; exactly the identity at initialization.

    Attributes:
      groups: groups of the GroupNorm.
      dtype: dtype of the computation.
    """

    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, batch: int) -> Array:
        """Maps `[batch · time, height, width, channels]` to an array like it."""
        h = jax.nn.silu(group_norm(self.groups, self.dtype, "norm")(x))
        return x + TemporalConv(x.shape[-1], 1, nn.initializers.zeros, self.dtype, name="conv")(
            h, batch
        )


class EfficientUNet(nn.Module):
    """Super-resolution U-Net for images (time = 1) and, where `inflated`, for videos.

    The defaults are full scale: 1,043M parameters and, where inflated, 23M more, with text of
    4096 channels. The coarsest level is wider than Imagen's 1024, which would make 569M in all,
    because Lumiere's network is reported to have about 1B.

    Attributes:
      widths: channels of each level, from the finest to the coarsest.
      num_blocks: residual blocks of each level, on the way down and again on the way up.
      strides: 1 or 2 for each level: by how much it down-samples before its blocks.
      middle_blocks: residual blocks between the two ways, at the coarsest level.
      inflated: whether there are temporal convolutions, one after each group of blocks.
      out_channels: channels of the prediction.
      embedding_features: size of the conditioning vector.
      head_dim: channels of an attention head, at most; less where a width demands it.
      groups: groups of a GroupNorm, at most; fewer where a width demands it.
      remat: what a block stores for the backward pass, see `rematerialize`.
      dtype: dtype of the computation; parameters are float32.
    """

    widths: tuple[int, ...] = (128, 256, 512, 1536)
    num_blocks: tuple[int, ...] = (2, 4, 8, 8)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    middle_blocks: int = 2
    inflated: bool = False
    out_channels: int = 3
    embedding_features: int = 512
    head_dim: int = 64
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        z: Array,
        time: Array,
        text: Array,
        text_mask: Array | None = None,
        *,
        low_resolution: Array,
        augmentation_level: Array,
    ) -> Array:
        """Predicts v, ε or x0 (whatever it was trained for) from noisy pixels.

        Args:
          z: noisy video `[batch, time, height, width, 3]`.
          time: noise level as the cosine schedule's time × 1000, `[batch]`.
          text: embeddings of the prompts `[batch, length, dim]`.
          text_mask: true for real tokens, `[batch, length]`, or None for all.
          low_resolution: the clip to refine, up-sampled to the size of `z` and augmented with
            noise, `[batch, time, height, width, 3]`.
          augmentation_level: how much noise that was, in [0, 1], `[batch]`.

        Returns:
          `[batch, time, height, width, out_channels]`, float32.

        Raises:
          UserError: the sizes of the levels do not match one another; height or width is not
            divisible by the product of the strides; or `low_resolution` is not of z's size.
        """
        self._check(z, low_resolution)
        batch, text = z.shape[0], text.astype(self.dtype)
        embedding = self._embed(time, text, text_mask, augmentation_level)
        context = (embedding, text, text_mask, batch)
        h = jnp.concatenate([z, low_resolution], axis=-1).astype(self.dtype)
        h = conv3x3(self.widths[0], self.dtype, "conv_in")(h.reshape(-1, *h.shape[2:]))
        h = constrain(h, "clips", "height", None, None)
        pixels, skips, last = h, [], len(self.widths) - 1

        for level in range(last + 1):
            h = self._downsample(h, level)
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
    def _check(self, z: Array, low_resolution: Array) -> None:
        if not len(self.widths) == len(self.num_blocks) == len(self.strides):
            raise UserError(
                f"super-resolution network: widths={tuple(self.widths)}, "
                f"num_blocks={tuple(self.num_blocks)} and strides={tuple(self.strides)} must "
                "each have one entry a level."
            )
        if not set(self.strides) <= {1, 2}:
            raise UserError(
                f"super-resolution network: strides={tuple(self.strides)} must be 1 or 2 each."
            )
        factor, (height, width) = math.prod(self.strides), z.shape[2:4]
        if height % factor or width % factor:
            raise UserError(
                f"super-resolution network: height × width of {height}×{width} is not divisible "
                f"by {factor}, the product of its strides; choose a multiple."
            )
        if low_resolution.shape[:4] != z.shape[:4]:
            raise UserError(
                f"super-resolution network: the low-resolution clip {low_resolution.shape} must "
                f"be up-sampled to the batch, time, height and width of the video {z.shape}."
            )

    @nn.nowrap
    def _embed(
        self, time: Array, text: Array, text_mask: Array | None, augmentation_level: Array
    ) -> Array:
        """Returns the activated sum of the three conditionings, `[batch, features]`."""
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
        h: Array,
        name: str,
        level: int,
        count: int,
        context: tuple[Array, Array, Array | None, int],
    ) -> Array:
        """A group of blocks, text at the coarsest level, then time where inflated."""
        embedding, text, text_mask, batch = context
        features = self.widths[level]
        if h.shape[-1] != features:  # the one that takes the skip is not like the others
            block = rematerialize(ResidualBlock, self.remat)
            groups = math.gcd(self._groups(h), features)
            block = block(features, groups=groups, dtype=self.dtype, name=f"{name}_first_block")
            h, count = block(h, embedding), count - 1
        if count:
            block = rematerialize(ResidualBlock, self.remat, repeated=True)
            groups = self._groups(h)
            block = block(features, groups=groups, dtype=self.dtype, name=f"{name}_blocks")
            h = repeat(block, count, h, embedding)
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
    def _downsample(self, h: Array, level: int) -> Array:
        return Conv(
            self.widths[level],
            (3, 3),
            strides=self.strides[level],
            padding=1,
            dtype=self.dtype,
            name=f"down_{level}_conv",
        )(h)

    @nn.nowrap
    def _upsample(self, h: Array, level: int) -> Array:
        if self.strides[level] == 2:
            h = nearest_upsample(h)
        return conv3x3(self.widths[max(level - 1, 0)], self.dtype, f"up_{level}_conv")(h)
