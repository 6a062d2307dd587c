"""Attention of the text-to-image U-Net: pixels to pixels and text, and pooling of text."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from lumiere_jax.models.layers import (
    Dense,
    Dtype,
    FeatureMap,
    Text,
    TextMask,
    constrain,
    group_norm,
    layer_norm,
)
from lumiere_jax.runtime.arrays import Array

TEXT_NORMS = ("layer", "group")


def attend(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    mask: Bool[Array, "batch keys"] | None = None,
) -> Float[Array, "batch queries heads*dim"]:
    """Scaled dot-product attention (1706.03762, eq. 1) with logits and softmax in float32.

    `mask` is true where a key may be seen; None shows all.
    """
    bias = None if mask is None else jnp.where(mask, 0.0, -1e9)[:, None, None, :]
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits if bias is None else logits + bias, axis=-1)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
    return out.reshape(*out.shape[:2], -1)


def split_heads(
    x: Float[Array, "*rows channels"], head_dim: int
) -> Float[Array, "*rows channels//{head_dim} {head_dim}"]:
    """Splits the last axis into heads."""
    return x.reshape(*x.shape[:-1], -1, head_dim)


def repeat_for_frames(x: Shaped[Array, "batch ..."], frames: int) -> Shaped[Array, "{frames} ..."]:
    """Repeats each row of `x` so that there are `frames` rows."""
    return jnp.repeat(x, frames // x.shape[0], axis=0)


class TextAttention(nn.Module):
    """Self-attention over pixels whose keys and values include the text's, residual.

    The text has key and value projections of its own and is concatenated to the pixels'
    (Imagen, 2205.11487, appendix B.1; "added KV" of DeepFloyd IF).
    """

    head_dim: int = 64  # channels of a head
    groups: int = 32  # groups of the pixels' GroupNorm
    text_norm: str = "layer"  # of each token; "group": of 32 groups, see below
    dtype: Dtype = jnp.float32
    self_attention: bool = True  # whether pixels attend to pixels; if not, to the text alone

    @nn.compact
    def __call__(self, x: FeatureMap, text: Text, text_mask: TextMask | None) -> FeatureMap:
        """Adds attention to `x`; each row of the text serves `frames / batch` frames."""
        frames, height, width, channels = x.shape

        def dense(name: str, y: Array) -> Array:
            return Dense(channels, dtype=self.dtype, name=name)(y)

        pixels = group_norm(self.groups, self.dtype, "norm")(x)
        pixels = pixels.reshape(frames, height * width, channels)
        text = self._normalize(text)
        key = repeat_for_frames(dense("text_key", text), frames)
        value = repeat_for_frames(dense("text_value", text), frames)
        mask = None if text_mask is None else repeat_for_frames(text_mask, frames)
        if self.self_attention:
            key = jnp.concatenate([key, dense("key", pixels)], axis=1)
            value = jnp.concatenate([value, dense("value", pixels)], axis=1)
            if mask is not None:
                mask = jnp.pad(mask, ((0, 0), (0, height * width)), constant_values=True)
        query, key, value = (
            split_heads(y, self.head_dim) for y in (dense("query", pixels), key, value)
        )
        out = dense("out", attend(query, key, value, mask))
        return constrain(x + out.reshape(x.shape), "clips", "height", None, None)

    @nn.nowrap
    def _normalize(self, text: Text) -> Text:
        if self.text_norm == "layer":
            return layer_norm(self.dtype, "text_norm")(text)
        # Over channels and all tokens, padding included, as in DeepFloyd IF; exact, because
        # embeddings of text have a few channels of large mean.
        return group_norm(32, self.dtype, "text_norm", exact=True)(text)


class TextPooling(nn.Module):
    """Attention-pooled text: one query, the mean token, attends to all tokens and itself.

    The number of heads divides the text's channels.
    """

    features: int
    heads: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, text: Text, text_mask: TextMask | None
    ) -> Float[Array, "batch {self.features}"]:
        """Pools the tokens that `text_mask` shows; all where it is None."""
        dim = text.shape[-1]
        text = layer_norm(self.dtype, "norm_in")(text)
        if text_mask is None:
            text_mask = jnp.ones(text.shape[:2], bool)
        weight = text_mask.astype(self.dtype)[..., None]
        count = jnp.maximum(weight.sum(axis=1, keepdims=True), 1)  # No token: a mean of zero.
        mean = (text * weight).sum(axis=1, keepdims=True) / count
        position = self.param("position", nn.initializers.normal(dim**-0.5), (1, dim))
        mean = mean + position.astype(self.dtype)
        tokens = jnp.concatenate([mean, text], axis=1)
        mask = jnp.pad(text_mask, ((0, 0), (1, 0)), constant_values=True)

        def heads(name: str, y: Array) -> Array:
            y = Dense(dim, dtype=self.dtype, name=name)(y)
            return split_heads(y, dim // self.heads)

        pooled = attend(heads("query", mean), heads("key", tokens), heads("value", tokens), mask)
        out = Dense(self.features, dtype=self.dtype, name="out")(pooled[:, 0])
        out = constrain(out, "clips", None)
        return layer_norm(self.dtype, "norm_out")(out)
