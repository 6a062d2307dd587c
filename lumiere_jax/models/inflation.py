"""What turns a text-to-image U-Net into a space-time U-Net (Lumiere, 2401.12945, section 3.1).

Feature maps are folded, `[batch · time, height, width, channels]`. Every module here is, at
initialization, the identity or nearest-neighbour resampling in time, so that on a clip of equal
frames an inflated network starts as the image network.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.models.attention import split_heads
from lumiere_jax.models.layers import (
    Conv,
    Dense,
    Dtype,
    FeatureMap,
    Text,
    TextMask,
    UpsampleConv,
    constrain,
    conv3x3,
    group_norm,
    keep,
    modulate,
    repeat,
    sinusoidal_embedding,
)
from lumiere_jax.runtime.arrays import Array

TEMPORAL_INITIALIZATIONS = ("nearest", "he")


@flax.struct.dataclass
class TemporalContext:
    """What the temporal modules of one forward pass share."""

    batch: int = flax.struct.field(pytree_node=False)  # number of clips
    embedding: Float[Array, "batch time features"] | None = None  # activated, of every frame
    text: Text | None = None  # text embeddings for temporal attention, or None
    text_mask: TextMask | None = None  # true for real tokens; None shows all

    def frame_embedding(self, frames: int) -> Float[Array, "{self.batch}*{frames} features"] | None:
        """Conditioning of every frame at a level with `frames` frames a clip."""
        if self.embedding is None:
            return None
        stride = self.embedding.shape[1] // frames
        return self.embedding[:, ::stride].reshape(self.batch * frames, -1)


def temporal_kernel_init(kind: str) -> nn.initializers.Initializer:
    """Initializer of a `[3, 1, in, out]` temporal kernel of a resampling module.

    "nearest" is the identity at the centre tap, that is nearest-neighbour resampling, the paper's
    choice; "he" is He normal (1502.01852), which the paper compares with.
    """
    assert kind in TEMPORAL_INITIALIZATIONS, kind
    return nn.initializers.he_normal() if kind == "he" else _identity


def _identity(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
    del key
    eye = jnp.eye(shape[2], shape[3], dtype=dtype)
    return jnp.zeros(shape, dtype).at[shape[0] // 2, 0].set(eye)


class TemporalConv(nn.Module):
    """1-D convolution over time with kernel 3 and zero padding, as a 2-D one over (time, space).

    The kernel is `[3, 1, in, out]`.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Dtype = jnp.float32
    resample: str = "none"  # "down": every second frame of the output; "up": every frame twice

    @nn.compact
    def __call__(
        self, x: FeatureMap, batch: int
    ) -> Float[Array, "new_frames height width {self.features}"]:
        """Convolves the frames of each of the `batch` clips."""
        frames, height, width, channels = x.shape
        x = x.reshape(batch, frames // batch, height * width, channels)
        init, dtype = self.kernel_init, self.dtype
        conv: nn.Module
        if self.resample == "up":
            conv = UpsampleConv(self.features, dtype, (3, 1), init, name="conv")
        else:
            stride = 2 if self.resample == "down" else 1
            conv = Conv(
                self.features, (3, 1), (stride, 1), padding=((1, 1), (0, 0)), dtype=dtype,
                kernel_init=init, name="conv",
            )  # fmt: skip
        x = conv(x)
        return x.reshape(-1, height, width, self.features)


class TemporalDownsample(nn.Module):
    """Temporal convolution, then every second frame (section 3.1); `x[:, ::2]` at first.

    The stride is part of the convolution, which is the same function at half the cost.
    """

    initialization: str = "nearest"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: FeatureMap, batch: int
    ) -> Float[Array, "frames//2 height width channels"]:
        """Halves the frame rate of each of the `batch` clips."""
        init = temporal_kernel_init(self.initialization)
        return TemporalConv(x.shape[-1], init, self.dtype, "down", name="temporal")(x, batch)


class TemporalUpsample(nn.Module):
    """Every frame twice, then a temporal convolution (section 3.1); `repeat(x, 2)` at first."""

    initialization: str = "nearest"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, batch: int) -> Float[Array, "2*frames height width channels"]:
        """Doubles the frame rate of each of the `batch` clips."""
        init = temporal_kernel_init(self.initialization)
        return TemporalConv(x.shape[-1], init, self.dtype, "up", name="temporal")(x, batch)


class ConvInflationBlock(nn.Module):
    """Convolution-based inflation block: 2-D in space, 1-D in time, projection; residual.

    Section 3.1 and figure 4 of the paper, factorized as R(2+1)D (1711.11248). GroupNorm and
    swish before each convolution, scale-shift conditioning and the zero-initialized projection
    are this project's choice.
    """

    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, context: TemporalContext) -> FeatureMap:
        """Adds the block's output to `x`."""
        channels, frames = x.shape[-1], x.shape[0] // context.batch
        h = jax.nn.silu(group_norm(self.groups, self.dtype, "norm_space")(x))
        h = keep(conv3x3(channels, self.dtype, "space")(h), channels)
        h = group_norm(self.groups, self.dtype, "norm_time")(h)
        embedding = context.frame_embedding(frames)
        if embedding is not None:
            h = modulate(h, Dense(2 * channels, dtype=self.dtype, name="modulation")(embedding))
        h = TemporalConv(channels, dtype=self.dtype, name="time")(jax.nn.silu(h), context.batch)
        zeros = nn.initializers.zeros
        h = Dense(channels, dtype=self.dtype, kernel_init=zeros, name="projection")(h)
        return constrain(x + h, "clips", "height", None, None)


def attend_in_time(
    query: Float[Array, "batch pixels frames heads dim"],
    keys: Sequence[Float[Array, "batch *_ heads dim"]],
    values: Sequence[Float[Array, "batch *_ heads dim"]],
    text_mask: TextMask | None,
) -> Float[Array, "batch pixels frames heads*dim"]:
    """Attention of a pixel's frames to one another and to the clip's text, under one softmax.

    The keys and values are of the frames, like `query`, and, if there is text, of its tokens,
    `[batch, length, heads, dim]`, which all pixels share; they are never repeated for each.
    """
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    logits = [product("bpqhd,bpkhd->bphqk", query, keys[0])]
    if len(keys) > 1:
        text = product("bpqhd,bkhd->bphqk", query, keys[1])
        if text_mask is not None:
            text = jnp.where(text_mask[:, None, None, None], text, -1e9)
        logits.append(text)
    weights = jax.nn.softmax(jnp.concatenate(logits, -1) * query.shape[-1] ** -0.5, axis=-1)
    weights, frames = weights.astype(query.dtype), query.shape[2]
    out = jnp.einsum("bphqk,bpkhd->bpqhd", weights[..., :frames], values[0])
    if len(values) > 1:
        out += jnp.einsum("bphqk,bkhd->bpqhd", weights[..., frames:], values[1])
    return out.reshape(*out.shape[:3], -1)


class TemporalAttention(nn.Module):
    """Attention over the frames of each pixel, and over the text if there is one; residual."""

    head_dim: int = 64
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, context: TemporalContext) -> FeatureMap:
        """Adds attention to `x`."""
        batch, (_, height, width, channels) = context.batch, x.shape
        frames, pixels = x.shape[0] // batch, height * width

        def heads(name: str, y: Array) -> Array:
            return split_heads(Dense(channels, dtype=self.dtype, name=name)(y), self.head_dim)

        h = group_norm(self.groups, self.dtype, "norm")(x)
        embedding = context.frame_embedding(frames)
        if embedding is not None:
            h = modulate(h, Dense(2 * channels, dtype=self.dtype, name="modulation")(embedding))
        h = h.reshape(batch, frames, pixels, channels).swapaxes(1, 2)
        h += sinusoidal_embedding(jnp.arange(frames), channels).astype(self.dtype)
        keys, values = [heads("key", h)], [heads("value", h)]
        if context.text is not None:
            text = context.text.astype(self.dtype)
            keys.append(heads("text_key", text))
            values.append(heads("text_value", text))
        attended = attend_in_time(heads("query", h), keys, values, context.text_mask)
        out = Dense(channels, dtype=self.dtype, name="out")(attended).swapaxes(1, 2)
        return constrain(x + out.reshape(x.shape), "clips", "height", None, None)


class AttentionInflationBlock(nn.Module):
    """Attention-based inflation block: stacked temporal attention, projection; residual.

    Section 3.1 of the paper: at the coarsest level only. The depth, positions and the
    zero-initialized projection are this project's choice.
    """

    depth: int = 4
    head_dim: int = 64
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, context: TemporalContext) -> FeatureMap:
        """Adds the block's output to `x`."""
        attention = TemporalAttention(self.head_dim, self.groups, self.dtype, name="attention")
        h = repeat(attention, self.depth, x, context)
        zeros = nn.initializers.zeros
        h = Dense(x.shape[-1], dtype=self.dtype, kernel_init=zeros, name="projection")(h)
        return x + h
