import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from lumiere_jax.metrics import i3d, i3d_weights
from lumiere_jax.metrics.preprocessing import prepare
from tests.metrics.i3d_torch import TorchI3D
from tests.quick_jit import quick_jit

GOLDEN = json.loads((Path(__file__).parent / "fvd_golden.json").read_text())


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return i3d_weights.load(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def logits(weights):
    params = i3d.fold(weights)
    apply = jax.jit(lambda frames: i3d.I3D().apply({"params": params}, prepare(frames)))
    return lambda frames: np.asarray(apply(frames), np.float64)


@pytest.mark.parametrize("frames", [9, 16, 30])
def test_black_and_white_clips_have_the_logits_of_the_original(logits, frames):
    golden = GOLDEN[f"const_{frames}f"]
    black, white = logits(
        np.array([0, 255], np.uint8).reshape(2, 1, 1, 1, 1)
        * np.ones((1, frames, 64, 64, 3), np.uint8)
    )
    for name, got in (("black", black), ("white", white)):
        np.testing.assert_allclose(got[:5], golden[f"{name}_first5"], atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(got), golden[f"{name}_l2"], atol=1e-4)
    np.testing.assert_allclose(np.sum((black - white) ** 2), golden["sqdist"], rtol=1e-5)


def test_resized_noise_has_the_logits_of_the_original(logits):
    golden = GOLDEN["u8_rand7_4x16x64x64_tf1resize"]
    noise = (np.random.RandomState(7).rand(4, 16, 64, 64, 3) * 255).astype(np.uint8)
    got = logits(noise)
    np.testing.assert_allclose(got[:, :5], golden["first5"], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), golden["l2"], atol=1e-4)


def test_network_equals_pytorch_on_other_sizes(weights):
    """Fewer rows and more frames: other paddings and poolings than those of the golden values."""
    clip = np.random.default_rng(0).uniform(-1, 1, (1, 19, 224, 230, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = TorchI3D(weights).eval()(torch.tensor(clip).permute(0, 4, 1, 2, 3)).numpy()
    got = quick_jit(i3d.I3D().apply)({"params": i3d.fold(weights)}, clip)
    np.testing.assert_allclose(got, expected, atol=1e-4)
