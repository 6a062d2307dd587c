"""The encoder of T5 (arXiv 1910.10683) and of its successors T5 v1.1, mT5 and ByT5, in Linen."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from lumiere_jax.models.layers import Dense
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text.t5_folder import KINDS, encoder_beside

FEED_FORWARDS = ("relu", "gated-gelu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes of an encoder, by their names in the `config.json` of Hugging Face."""

    vocab_size: int  # rows of the table of embeddings, some of which no token uses
    d_model: int  # size of an embedding
    d_kv: int  # size of a head; heads together may be wider or narrower than `d_model`
    d_ff: int  # width of the feed-forward layer
    num_layers: int  # blocks of attention and feed-forward layer
    num_heads: int  # of attention
    feed_forward_proj: str = "relu"  # "relu" (T5) or "gated-gelu" (T5 v1.1, arXiv 2002.05202)
    relative_attention_num_buckets: int = 32  # of distances that share a bias
    relative_attention_max_distance: int = 128  # from which on all distances share one
    layer_norm_epsilon: float = 1e-6  # added to the mean square


T5_V1_1_XXL = Architecture(
    vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
    feed_forward_proj="gated-gelu",
)  # fmt: skip
"""What Imagen (arXiv 2205.11487) conditions on."""


def read_architecture(path: Path) -> Architecture:
    """Reads a `config.json`; a `UserError` if it is missing, damaged, or of another family."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = found["model_type"]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error}); give the folder of a T5 encoder as Hugging Face "
            "has it: config.json, safetensors files and spiece.model."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no description of a model ({error}); copy it again.") from error
    if kind not in KINDS:
        beside = encoder_beside(path.parent)
        hint = f"; the T5 of this pipeline is in {beside}" if beside else ""
        supported = f"{' and '.join(KINDS)} are supported"
        raise UserError(f"{path} describes a model of type {kind!r}; {supported}{hint}.")
    fields = {}
    for field in dataclasses.fields(Architecture):
        value = found.get(field.name, field.default)
        if value is dataclasses.MISSING:
            raise UserError(f"{path} does not say {field.name}; copy it again.")
        assert isinstance(field.type, type)
        is_right = isinstance(value, field.type) and not isinstance(value, bool)
        if not is_right or (field.type is not str and value <= 0):
            raise UserError(f"{path}: {field.name}={value!r} is not valid; copy it again.")
        fields[field.name] = value
    if fields["feed_forward_proj"] not in FEED_FORWARDS:
        raise UserError(
            f"{path}: feed_forward_proj={fields['feed_forward_proj']!r} is not supported; "
            f"known are {', '.join(FEED_FORWARDS)}."
        )
    buckets = fields["relative_attention_num_buckets"]
    distance = fields["relative_attention_max_distance"]
    if buckets % 4 or distance <= buckets // 4:
        raise UserError(
            f"{path}: relative_attention_num_buckets={buckets} must be a multiple of 4, and "
            f"relative_attention_max_distance={distance} more than a quarter of it."
        )
    return Architecture(**fields)


def relative_buckets(
    length: int, buckets: int, max_distance: int
) -> Int[np.ndarray, "{length} {length}"]:
    """Which bias the positions of a query and a key share.

    Half of the buckets are for keys after the query. Of each half, the first half are single
    distances, and the others grow logarithmically up to `max_distance` (arXiv 1910.10683, 2.1).
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]
    half, distance = buckets // 2, np.abs(offset)
    exact = half // 2
    # In float32, as the original: a distance at a border must fall on the same side.
    growth = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    large = np.minimum(exact + growth.astype(np.int64), half - 1)
    return np.where(offset > 0, half, 0) + np.where(distance < exact, distance, large)


class T5Encoder(nn.Module):
    """From token numbers to embeddings.

    Weights of matrices and their products are of `dtype`; the sum that blocks add to, norms,
    attention logits and softmax are float32.
    """

    architecture: Architecture  # the sizes
    dtype: Any = jnp.float32  # float32 or bfloat16
    keep_padding: bool = False  # whether padding has embeddings of its own, not zero

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch length"], mask: Bool[Array, "batch length"]
    ) -> Float32[Array, "batch length {self.architecture.d_model}"]:
        """Encodes prompts; the result is zero at padding, unless that is kept.

        `mask` is False at padding, which no token attends to.
        """
        sizes, length = self.architecture, tokens.shape[1]
        table = nn.Embed(
            sizes.vocab_size, sizes.d_model, param_dtype=self.dtype, name="token_embedding"
        )
        x = table(tokens).astype(jnp.float32)
        buckets = sizes.relative_attention_num_buckets
        shared = relative_buckets(length, buckets, sizes.relative_attention_max_distance)
        bias = nn.Embed(buckets, sizes.num_heads, name="relative_bias")(shared)
        # One block at a time: compiled once, and of weights that are split no more than one
        # block's are gathered at a time.
        blocks = nn.scan(
            _Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=sizes.num_layers,
        )(sizes, self.dtype, name="blocks")
        x, _ = blocks(x, bias.transpose(2, 0, 1), mask)
        x = _norm(sizes, jnp.float32, "final_norm")(x)
        return x if self.keep_padding else jnp.where(mask[..., None], x, 0.0)


class _Block(nn.Module):
    architecture: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, bias: Array, mask: Array) -> tuple[Array, None]:
        sizes = self.architecture
        attention = _Attention(sizes, self.dtype, name="attention")
        x = x + attention(_norm(sizes, self.dtype, "attention_norm")(x), bias, mask)
        feed_forward = _FeedForward(sizes, self.dtype, name="feed_forward")
        return x + feed_forward(_norm(sizes, self.dtype, "feed_forward_norm")(x)), None


class _Attention(nn.Module):
    """Attention with a bias for the distance, and without the usual scale of the logits."""

    architecture: Architecture
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length dim"],
        bias: Float[Array, "heads length length"],
        mask: Bool[Array, "batch length"],
    ) -> Float[Array, "batch length dim"]:
        sizes = self.architecture
        heads = (*x.shape[:2], sizes.num_heads, sizes.d_kv)
        inner = sizes.num_heads * sizes.d_kv
        query, key, value = (
            _dense(inner, self.dtype, name)(x).reshape(heads) for name in ("query", "key", "value")
        )
        logits = jnp.einsum(
            "nqhd,nkhd->nhqk", query, key,
            precision=_precision(self.dtype), preferred_element_type=jnp.float32,
        )  # fmt: skip
        logits = jnp.where(mask[:, None, None], logits + bias, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", weights, value, precision=_precision(self.dtype))
        return _dense(sizes.d_model, self.dtype, "out")(mixed.reshape(*x.shape[:2], inner))


class _FeedForward(nn.Module):
    architecture: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch length dim"]) -> Float[Array, "batch length dim"]:
        sizes = self.architecture
        if sizes.feed_forward_proj == "relu":
            hidden = jax.nn.relu(_dense(sizes.d_ff, self.dtype, "wide")(x))
        else:
            gate = _dense(sizes.d_ff, self.dtype, "gate")(x)
            hidden = _dense(sizes.d_ff, self.dtype, "wide")(x)
            hidden = jax.nn.gelu(gate, approximate=True) * hidden
        return _dense(sizes.d_model, self.dtype, "narrow")(hidden)


def _norm(sizes: Architecture, dtype: Any, name: str) -> nn.Module:
    """Division by the root mean square, without a mean and a bias (arXiv 1910.07467)."""
    return nn.RMSNorm(epsilon=sizes.layer_norm_epsilon, dtype=dtype, name=name)


def _dense(features: int, dtype: Any, name: str) -> nn.Module:
    return Dense(
        features, use_bias=False, dtype=dtype, param_dtype=dtype, precision=_precision(dtype),
        name=name,
    )  # fmt: skip


def _precision(dtype: Any) -> jax.lax.Precision | None:
    """Float32 means float32, also on a TPU, whose default is bfloat16."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
