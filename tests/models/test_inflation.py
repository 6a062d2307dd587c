import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.models import inflation
from tests.quick_jit import quick_jit

GROUPS = 2


def random_like(tree, seed=0):
    """Every parameter drawn anew, so that nothing that starts at zero hides a fault."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        return (scale * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, tree)


def random_array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_params(module, *arguments):
    variables = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return random_like(variables["params"])


def context_for(batch, frames, embedding=True, text=True, mask=True):
    """A context at full frame rate `frames`, with the parts that are asked for."""
    length, dim = 5, 6
    seen = np.arange(length) < np.linspace(1, length, batch).astype(int)[:, None]
    return inflation.TemporalContext(
        batch,
        jnp.asarray(random_array(batch, frames, 8, seed=1)) if embedding else None,
        jnp.asarray(random_array(batch, length, dim, seed=2)) if text else None,
        jnp.asarray(seen) if mask else None,
    )


# (batch, frames, height, width, channels / GROUPS)
shapes = st.tuples(*[st.integers(1, n) for n in (3, 4, 3, 3, 4)])
few = settings(max_examples=4)


@few
@given(shapes, st.sampled_from([np.float32, jnp.bfloat16]))
def test_downsampling_starts_as_every_second_frame_exactly(shape, dtype):
    batch, half, height, width, channels = shape
    x = random_array(batch, 2 * half, height, width, channels).astype(dtype)
    module = inflation.TemporalDownsample(dtype=dtype)
    init = quick_jit(module.init_with_output, static_argnums=2)
    out, _ = init(jax.random.key(0), x.reshape(-1, height, width, channels), batch)
    np.testing.assert_array_equal(out.reshape(batch, half, height, width, channels), x[:, ::2])


@few
@given(shapes, st.sampled_from([np.float32, jnp.bfloat16]))
def test_upsampling_starts_as_repetition_exactly(shape, dtype):
    batch, frames, height, width, channels = shape
    x = random_array(*shape).astype(dtype)
    module = inflation.TemporalUpsample(dtype=dtype)
    init = quick_jit(module.init_with_output, static_argnums=2)
    out, _ = init(jax.random.key(0), x.reshape(-1, height, width, channels), batch)
    out = out.reshape(batch, 2 * frames, height, width, channels)
    np.testing.assert_array_equal(out, np.repeat(x, 2, axis=1))


@pytest.mark.parametrize("kind", ["conv", "attention"])
@settings(max_examples=3)
@given(shapes, st.booleans(), st.booleans())
def test_inflation_blocks_start_as_the_identity_exactly(kind, shape, embedding, text):
    batch, frames, height, width, multiple = shape
    block = {
        "conv": inflation.ConvInflationBlock(groups=GROUPS),
        "attention": inflation.AttentionInflationBlock(depth=2, head_dim=2, groups=GROUPS),
    }[kind]
    x = random_array(batch * frames, height, width, 2 * multiple)
    context = context_for(batch, frames, embedding, text)
    out, _ = quick_jit(block.init_with_output)(jax.random.key(0), x, context)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("module", [inflation.TemporalDownsample, inflation.TemporalUpsample])
def test_initial_kernels_of_resampling(module):
    channels = 64
    x = jnp.zeros((4, 1, 1, channels))
    init = quick_jit(module("he").init, static_argnums=2)
    he = init(jax.random.key(0), x, 1)["params"]["temporal"]["conv"]
    assert he["kernel"].shape == (3, 1, channels, channels)
    # 12288 draws: the standard deviation is known to 0.6%, the mean to 1% of it.
    expected = np.sqrt(2 / (3 * channels))
    assert abs(np.std(he["kernel"]) / expected - 1) < 0.03
    assert abs(np.mean(he["kernel"])) < 0.05 * expected
    assert not np.any(he["bias"])
    nearest = module("nearest").init(jax.random.key(0), x, 1)["params"]["temporal"]["conv"]
    np.testing.assert_array_equal(nearest["kernel"][1, 0], np.eye(channels))
    assert not np.any(nearest["kernel"][::2]) and not np.any(nearest["bias"])


def torch_temporal_conv(x, params, stride=1):
    """Conv3d with kernel (3, 1, 1) in float64 on `[batch, time, height, width, channels]`."""
    kernel = torch.tensor(np.asarray(params["conv"]["kernel"], np.float64))
    kernel = kernel.permute(3, 2, 0, 1)[..., None]
    bias = torch.tensor(np.asarray(params["conv"]["bias"], np.float64))
    out = F.conv3d(x.permute(0, 4, 1, 2, 3), kernel, bias, stride=(stride, 1, 1), padding=(1, 0, 0))
    return out.permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize("resample", ["none", "down", "up"])
def test_temporal_convolution_equals_torch_conv3d(resample):
    x = random_array(2, 6, 3, 2, 4)
    module = inflation.TemporalConv(5, resample=resample)
    folded = x.reshape(12, 3, 2, 4)
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, 2), folded)["params"]
    params = random_like(params)
    apply = quick_jit(module.apply, static_argnums=2)
    out = apply({"params": params}, folded, 2)
    x = torch.tensor(np.repeat(x, 2, axis=1) if resample == "up" else x, dtype=torch.float64)
    expected = torch_temporal_conv(x, params, 2 if resample == "down" else 1)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, atol=1e-5)


def double(tree):
    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf, np.float64)), tree)


def linear(x, params):
    return x @ params["kernel"] + params["bias"]


def torch_group_norm(x, params):
    """GroupNorm of each frame of `[batch, time, height, width, channels]`."""
    folded = x.reshape(-1, *x.shape[2:]).permute(0, 3, 1, 2)
    out = F.group_norm(folded, GROUPS, params["scale"], params["bias"], eps=1e-5)
    return out.permute(0, 2, 3, 1).reshape(x.shape)


def torch_modulate(h, params, context, frames):
    if context.embedding is None:
        return h
    stride = context.embedding.shape[1] // frames
    embedding = torch.tensor(np.asarray(context.embedding[:, ::stride], np.float64))
    scale, shift = linear(embedding, params["modulation"])[:, :, None, None].chunk(2, dim=-1)
    return h * (1 + scale) + shift


def torch_conv_block(x, params, context):
    """`ConvInflationBlock`, written anew in float64."""
    p = double(params)
    h = F.silu(torch_group_norm(x, p["norm_space"]))
    folded = h.reshape(-1, *h.shape[2:]).permute(0, 3, 1, 2)
    kernel = p["space"]["kernel"].permute(3, 2, 0, 1)
    h = F.conv2d(folded, kernel, p["space"]["bias"], padding=1).permute(0, 2, 3, 1).reshape(x.shape)
    h = torch_modulate(torch_group_norm(h, p["norm_time"]), p, context, x.shape[1])
    return x + linear(torch_temporal_conv(F.silu(h), params["time"]), p["projection"])


def torch_temporal_attention(x, p, context, head_dim):
    """`TemporalAttention`, in float64: torch's own attention, pixel by pixel and clip by clip."""
    batch, frames, height, width, channels = x.shape
    h = torch_modulate(torch_group_norm(x, p["norm"]), p, context, frames)
    half = channels // 2
    angles = torch.arange(frames)[:, None] * 10_000.0 ** (-torch.arange(half).double() / half)
    h = h + torch.cat([angles.cos(), angles.sin()], dim=1)[:, None, None]
    out = torch.zeros_like(x)
    for b in range(batch):
        key, value = linear(h[b], p["key"]), linear(h[b], p["value"])
        if context.text is not None:
            seen = slice(None) if context.text_mask is None else context.text_mask[b]
            text = torch.tensor(np.asarray(context.text[b][seen], np.float64))[:, None, None]
            text = text.expand(-1, height, width, -1)
            key = torch.cat([linear(text, p["text_key"]), key])
            value = torch.cat([linear(text, p["text_value"]), value])

        def heads(y):  # [length, height, width, c] to [pixels, heads, length, head_dim]
            y = y.reshape(len(y), height * width, channels // head_dim, head_dim)
            return y.permute(1, 2, 0, 3)

        y = F.scaled_dot_product_attention(
            heads(linear(h[b], p["query"])), heads(key), heads(value)
        )
        out[b] = y.permute(2, 0, 1, 3).reshape(frames, height, width, channels)
    return x + linear(out, p["out"])


def torch_attention_block(x, params, context, depth, head_dim):
    p, h = double(params), x
    for i in range(depth):
        layer = jax.tree.map(lambda leaf: leaf[i], p["attention"])  # noqa: B023
        h = torch_temporal_attention(h, layer, context, head_dim)
    return x + linear(h, p["projection"])


CONTEXTS = {
    "plain": {"embedding": False, "text": False, "mask": False},
    "conditioned": {"embedding": True, "text": False, "mask": False},
    "text": {"embedding": False, "text": True, "mask": False},
    "masked_text": {"embedding": True, "text": True, "mask": True},
}


@pytest.mark.parametrize("kind", CONTEXTS)
def test_attention_block_equals_torch(kind):
    x = random_array(2, 4, 3, 2, 12)
    # The clip has 8 frames; this level sees every second one.
    context = context_for(2, 8, **CONTEXTS[kind])
    block = inflation.AttentionInflationBlock(depth=2, head_dim=4, groups=GROUPS)
    folded = x.reshape(8, 3, 2, 12)
    params = random_params(block, folded, context)
    out = quick_jit(block.apply)({"params": params}, folded, context).reshape(x.shape)
    expected = torch_attention_block(torch.tensor(x, dtype=torch.float64), params, context, 2, 4)
    np.testing.assert_allclose(out, expected, atol=3e-5)
    assert np.abs(out - x).mean() > 0.1


@pytest.mark.parametrize("kind", ["plain", "conditioned"])
def test_conv_block_equals_torch(kind):
    x = random_array(2, 4, 3, 5, 6)
    context = context_for(2, 8, **CONTEXTS[kind])
    block = inflation.ConvInflationBlock(groups=GROUPS)
    folded = x.reshape(8, 3, 5, 6)
    params = random_params(block, folded, context)
    out = quick_jit(block.apply)({"params": params}, folded, context).reshape(x.shape)
    expected = torch_conv_block(torch.tensor(x, dtype=torch.float64), params, context)
    np.testing.assert_allclose(out, expected, atol=3e-5)
    assert np.abs(out - x).mean() > 0.1
