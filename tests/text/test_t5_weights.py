"""Weights from Hugging Face's files to their place on devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.safetensors_reading import TensorFiles
from lumiere_jax.runtime.sharding import local_mesh
from lumiere_jax.text import t5_weights
from lumiere_jax.text.t5_network import read_architecture
from tests.text.tiny_t5 import SIZES, write_tiny_t5


def opened(folder):
    return TensorFiles(folder), read_architecture(folder / "config.json")


def loaded(folder, dtype=jnp.float32):
    return flatten_dict(t5_weights.load(*opened(folder), dtype, local_mesh()), sep="/")


def fingerprint(folder, tokenizer="pieces"):
    return t5_weights.fingerprint(*opened(folder), tokenizer)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, second[path], err_msg=path)


def test_every_parameter_has_its_tensor(tmp_path):
    model = write_tiny_t5(tmp_path)
    params = loaded(tmp_path)
    scalars = sum(parameter.numel() for parameter in model.parameters())
    assert sum(leaf.size for leaf in params.values()) == scalars
    block = model.encoder.block[2].layer
    expected = {
        "token_embedding/embedding": model.shared.weight,
        "final_norm/scale": model.encoder.final_layer_norm.weight,
        "blocks/attention/query/kernel": block[0].SelfAttention.q.weight.T,
        "blocks/attention/out/kernel": block[0].SelfAttention.o.weight.T,
        "blocks/feed_forward/gate/kernel": block[1].DenseReluDense.wi_0.weight.T,
        "blocks/feed_forward/narrow/kernel": block[1].DenseReluDense.wo.weight.T,
    }
    for path, tensor in expected.items():
        found = params[path][2] if path.startswith("blocks") else params[path]
        np.testing.assert_array_equal(found, tensor.detach().numpy(), err_msg=path)


def test_files_may_be_split_and_may_hold_a_decoder(tmp_path):
    encoder = write_tiny_t5(tmp_path / "encoder")
    write_tiny_t5(tmp_path / "shards", shards=True)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZES))
    whole.load_state_dict(encoder.state_dict(), strict=False)
    whole.save_pretrained(tmp_path / "whole")
    assert any(name.startswith("decoder") for name in TensorFiles(tmp_path / "whole").names())
    expected = loaded(tmp_path / "encoder")
    for other in ("shards", "whole"):
        assert_same(loaded(tmp_path / other), expected)
        assert fingerprint(tmp_path / other) == fingerprint(tmp_path / "encoder")


def test_other_name_of_the_table(tmp_path):
    write_tiny_t5(tmp_path)
    expected, file = loaded(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, file)
    assert_same(loaded(tmp_path), expected)


def test_bfloat16(tmp_path):
    write_tiny_t5(tmp_path / "float32")
    write_tiny_t5(tmp_path / "bfloat16", dtype=torch.bfloat16)
    rounded = loaded(tmp_path / "float32", jnp.bfloat16)
    for path, leaf in rounded.items():
        # What is small and sums up stays in float32.
        is_matrix = path.endswith("kernel") or path == "token_embedding/embedding"
        assert leaf.dtype == (jnp.bfloat16 if is_matrix else jnp.float32), path
    stored = loaded(tmp_path / "bfloat16", jnp.bfloat16)
    matrices = [path for path in rounded if rounded[path].dtype == jnp.bfloat16]
    assert_same({p: rounded[p] for p in matrices}, {p: stored[p] for p in matrices})
    # The same encoder, wherever the rounding was done.
    assert fingerprint(tmp_path / "bfloat16") == fingerprint(tmp_path / "float32")


def test_fingerprint_tells_encoders_apart(tmp_path):
    write_tiny_t5(tmp_path)
    first, file = fingerprint(tmp_path), tmp_path / "model.safetensors"
    assert fingerprint(tmp_path) == first and len(first) == 16
    assert fingerprint(tmp_path, "bytes") != first
    tensors = load_file(file)
    for name in tensors:
        changed = tensors[name].copy()
        changed[-1] *= 1.5
        save_file(tensors | {name: changed}, file)
        assert fingerprint(tmp_path) != first, name
    save_file(tensors, file)
    assert fingerprint(tmp_path) == first
    description = json.loads((tmp_path / "config.json").read_text())
    description["dropout_rate"] = 0.3  # means nothing
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert fingerprint(tmp_path) == first
    description["relative_attention_max_distance"] = 64
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert fingerprint(tmp_path) != first


def test_weights_that_do_not_fit_their_description(tmp_path):
    write_tiny_t5(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, file)
    with pytest.raises(UserError, match=f"has no tensor '{name}'"):
        loaded(tmp_path)
    save_file(tensors | {name: tensors[name][:-1].copy()}, file)
    with pytest.raises(UserError, match=rf"'{name}' has shape \(23, 16\), and \(24, 16\) is"):
        loaded(tmp_path)


def test_host_holds_one_part_of_one_parameter_at_a_time(tmp_path, monkeypatch):
    """What is read is put on its device before anything else is read."""
    write_tiny_t5(tmp_path)
    events = []
    read, put = t5_weights._Parameter.read, jax.device_put
    monkeypatch.setattr(
        t5_weights._Parameter, "read", lambda *args: events.append("read") or read(*args)
    )
    monkeypatch.setattr(jax, "device_put", lambda *args: events.append("put") or put(*args))
    loaded(tmp_path)
    assert events == ["read", "put"] * 12
