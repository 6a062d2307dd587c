"""The encoder against that of `transformers`, with random weights, on the CPU."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.safetensors_reading import TensorFiles
from lumiere_jax.runtime.sharding import local_mesh
from lumiere_jax.text import t5_weights
from lumiere_jax.text.t5_network import T5_V1_1_XXL, T5Encoder, read_architecture, relative_buckets
from tests.quick_jit import quick_jit
from tests.text.tiny_t5 import write_tiny_t5

CONFIGS = {
    "v1.1": {},
    "original": {"feed_forward_proj": "relu"},
    "wide heads": {"d_kv": 12, "num_heads": 3},
    "narrow heads": {"d_kv": 2, "num_heads": 2},
    "few buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
    "large epsilon": {"layer_norm_epsilon": 0.1, "num_layers": 1},
}


def random_prompts(batch, length, seed=0):
    """Token numbers and masks of prompts of all lengths, one of them full."""
    rng = np.random.default_rng(seed)
    lengths = np.array([length, *rng.integers(1, length + 1, batch - 1)])
    mask = np.arange(length) < lengths[:, None]
    tokens = np.where(mask, rng.integers(2, 400, (batch, length)), 0).astype(np.int32)
    return tokens, mask


def ours(folder, tokens, mask, dtype=jnp.float32):
    architecture = read_architecture(folder / "config.json")
    params = t5_weights.load(TensorFiles(folder), architecture, dtype, local_mesh())
    network = T5Encoder(architecture, dtype)
    return np.asarray(quick_jit(network.apply)({"params": params}, tokens, mask))


def theirs(model, tokens, mask):
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        )
    return found.last_hidden_state.float().numpy()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("length", [1, 7, 150])
def test_float32_is_that_of_transformers(tmp_path, name, length):
    model = write_tiny_t5(tmp_path, seed=length, **CONFIGS[name])
    tokens, mask = random_prompts(4, length, seed=length)
    got, expected = ours(tmp_path, tokens, mask), theirs(model, tokens, mask)
    assert got.dtype == np.float32 and got.shape == (4, length, 16)
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-4)
    assert np.abs(expected[mask]).max() > 1 and not got[~mask].any()


def test_long_prompt_of_a_wider_encoder(tmp_path):
    sizes = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 160, "num_layers": 6}
    model = write_tiny_t5(tmp_path, **sizes)
    tokens, mask = random_prompts(3, 512)
    got, expected = ours(tmp_path, tokens, mask), theirs(model, tokens, mask)
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-4)


def test_bfloat16_is_near_float32(tmp_path):
    model = write_tiny_t5(tmp_path, d_model=64, d_ff=160, num_layers=6)
    tokens, mask = random_prompts(4, 40)
    expected = theirs(model, tokens, mask)[mask]
    got = ours(tmp_path, tokens, mask, jnp.bfloat16)[mask]
    assert got.dtype == np.float32
    error = np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))
    # Rounding to 8 bits of every weight and product, summed in float32 over 12 layers.
    assert 1e-4 < error < 0.03
    # No worse than PyTorch in bfloat16, which rounds the sum of the blocks as well.
    rounded = theirs(model.to(torch.bfloat16), tokens, mask)[mask]
    assert error < np.sqrt(np.mean((rounded - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (64, 500), (4, 2), (32, 64)])
def test_relative_buckets(buckets, distance):
    length = 700
    offset = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    expected = T5Attention._relative_position_bucket(offset, True, buckets, distance)
    got = relative_buckets(length, buckets, distance)
    np.testing.assert_array_equal(got, expected.numpy())
    assert got.max() == buckets - 1 and got.min() == 0


def test_size_of_xxl():
    # T5EncoderModel of google/t5-v1_1-xxl, without its memory.
    config = transformers.T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.T5EncoderModel(config)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert t5_weights.count(T5_V1_1_XXL) == expected == 4_762_310_656


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "umt5"}, "model of type 'umt5'; t5 and mt5 are supported"),
        ({"model_type": None}, "model of type None"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj='gated-silu' is not supported"),
        ({"d_kv": 0}, "d_kv=0 is not valid"),
        ({"num_heads": "4"}, "num_heads='4' is not valid"),
        ({"num_layers": True}, "num_layers=True is not valid"),
        ({"d_ff": ...}, "does not say d_ff"),
        ({"relative_attention_num_buckets": 6}, "=6 must be a multiple of 4"),
        ({"relative_attention_max_distance": 8}, "max_distance=8 more than a quarter"),
    ],
)
def test_description_that_cannot_be_used(tmp_path, change, message):
    write_tiny_t5(tmp_path)
    path = tmp_path / "config.json"
    found = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))
    with pytest.raises(UserError, match=message) as error:
        read_architecture(path)
    assert str(path) in str(error.value)


def test_description_that_is_missing_or_damaged(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match="config.json cannot be read.*safetensors.*spiece.model"):
        read_architecture(path)
    for damaged in ("{", "[]", "{}"):
        path.write_text(damaged)
        with pytest.raises(UserError, match="no description of a model"):
            read_architecture(path)


def test_description_of_an_old_file_leaves_defaults_out(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        '{"model_type": "t5", "vocab_size": 9, "d_model": 8, "d_kv": 2, "d_ff": 4,'
        ' "num_layers": 1, "num_heads": 3}'
    )
    expected = transformers.T5Config()
    found = read_architecture(path)
    for name in ("feed_forward_proj", "relative_attention_num_buckets",
                 "relative_attention_max_distance", "layer_norm_epsilon"):  # fmt: skip
        assert getattr(found, name) == getattr(expected, name)
