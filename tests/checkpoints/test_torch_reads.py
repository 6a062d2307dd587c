"""Weights of a bundle in torch, by the rules of docs/bundles.md: that page's own code runs here."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from safetensors.torch import load_file
from torch.nn import functional

from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.models.inflation import ConvInflationBlock, TemporalContext

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights" / "small"
STAGES = tuple(json.loads((WEIGHTS / "manifest.json").read_text())["stages"])


@pytest.fixture(name="read", scope="module")
def fixture_read():
    """What the page's code defines, run in the root of the repository."""
    page = (ROOT / "docs" / "bundles.md").read_text()
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.S) if "to_torch" in c)
    found: dict = {}
    exec(code.replace('"weights/', f'"{ROOT}/weights/'), found)  # noqa: S102
    return found


def test_every_tensor_is_read(read):
    _, params, _ = checkpoint.load(WEIGHTS / "stunet")
    ours = {".".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}
    assert ours.keys() == read["weights"].keys() and len(read["state"]) == len(ours)
    for name, tensor in read["weights"].items():
        assert tensor.dtype == torch.bfloat16
        np.testing.assert_array_equal(tensor.float().numpy(), ours[name])


def own_and_shared(bundle, name, load_file):
    stage = json.loads((bundle / "manifest.json").read_text())["stages"][name]
    shared = own_and_shared(bundle, stage["shares"], load_file) if stage["shares"] else {}
    return shared | load_file(bundle / name / "weights.safetensors")


@pytest.fixture(name="bundles", scope="module")
def fixture_bundles(tmp_path_factory):
    """The shipped weights, and the same in int8."""
    int8 = tmp_path_factory.mktemp("bundle") / "int8"
    export([f"{name}={WEIGHTS / name}" for name in STAGES], int8, "int8")
    return {"bfloat16": WEIGHTS, "int8": int8}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_read(read, bundles, name, dtype):
    bundle = bundles[dtype]
    weights = own_and_shared(bundle, name, load_file)
    _, params, _ = checkpoint.load(bundle / name)
    ours = {".".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}
    assert {n for n in weights if not n.endswith("_scale")} == ours.keys()
    for path, expected in ours.items():
        made, tensor = read["to_torch"](path, weights)
        assert made.rpartition(".")[0] == path.rpartition(".")[0]
        order = {"kernel": "weight", "scale": "weight"}.get(path.rpartition(".")[2])
        assert order is None or made.endswith(order)
        np.testing.assert_array_equal(np.sort(tensor.numpy(), None), np.sort(expected, None))
        if path.endswith(".kernel") and expected.ndim in (2, 4):
            back = tensor.numpy().transpose(*range(2, expected.ndim), 1, 0)
            np.testing.assert_array_equal(back, expected)


def test_an_inflation_block_in_torch(read):
    state = read["state"]
    name, groups, features = "temporal_down_0_0", 8, 256
    channels = state[f"{name}.norm_space.weight"].shape[0]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 6, 6, channels)).astype(np.float32)
    embedding = rng.normal(size=(2, 4, features)).astype(np.float32)

    def layer(part):
        return state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"]

    given = torch.tensor(x).permute(0, 1, 4, 2, 3).reshape(8, channels, 6, 6)
    h = functional.silu(functional.group_norm(given, groups, *layer("norm_space")))
    h = functional.conv2d(h, *layer("space"), padding=1)
    h = functional.group_norm(h, groups, *layer("norm_time"))
    modulation = functional.linear(torch.tensor(embedding).reshape(8, -1), *layer("modulation"))
    scale, shift = modulation[:, :, None, None].chunk(2, 1)
    h = functional.silu(h * (1 + scale) + shift)
    h = h.reshape(2, 4, channels, 36).transpose(1, 2)  # [clip, channel, time, height · width]
    h = functional.conv2d(h, *layer("time.conv"), padding=(1, 0))
    h = h.transpose(1, 2).reshape(8, channels, 6, 6)
    h = functional.conv2d(h, *(w[..., None, None] if w.ndim == 2 else w for w in
                               layer("projection")))  # fmt: skip
    expected = (given + h).permute(0, 2, 3, 1).numpy()

    _, params, _ = checkpoint.load(WEIGHTS / "stunet")
    context = TemporalContext(2, jnp.asarray(embedding))
    flat = jnp.asarray(x).reshape(8, 6, 6, channels)
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(ConvInflationBlock(groups).apply)
        made = apply({"params": params[name]}, flat, context)
    assert np.abs(expected - flat).max() > 0.1  # the block does something
    np.testing.assert_allclose(made, expected, atol=2e-4, rtol=1e-4)


def test_stacked_layers_keep_their_axis(read):
    name = "temporal_down_2_0.attention.query"
    kernel, weight = read["weights"][f"{name}.kernel"], read["state"][f"{name}.weight"]
    assert torch.equal(kernel[0].float().T, weight[0]) and kernel.ndim == weight.ndim == 3
