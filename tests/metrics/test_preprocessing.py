import jax
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.metrics.preprocessing import RESIZES, prepare
from lumiere_jax.runtime.errors import UserError

SIDES = st.integers(1, 70)


def frames(height: int, width: int, seed: int = 0) -> np.ndarray:
    shape = (2, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=30)
@given(SIDES, SIDES, SIDES, SIDES)
def test_tf1_resize_equals_tensorflows(height, width, new_height, new_width):
    x = frames(height, width)
    expected = tf.compat.v1.image.resize_bilinear(x, (new_height, new_width))
    got = RESIZES["tf1"](x, new_height, new_width)
    np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.parametrize("name", ["torch", "torch_aa"])
@settings(max_examples=15)
@given(SIDES, SIDES, SIDES, SIDES)
def test_torch_resizes_equal_pytorchs(name, height, width, new_height, new_width):
    x = frames(height, width)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2).float(),
        (new_height, new_width),
        mode="bilinear",
        antialias=name == "torch_aa",
    )
    got = RESIZES[name](x, new_height, new_width)
    np.testing.assert_allclose(got, expected.permute(0, 2, 3, 1), atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (64, 64), (448, 300)])
def test_center_keeps_the_aspect_ratio(height, width):
    # A picture whose red is its row and green its column, in the unit of the short side.
    short = min(height, width)
    row, column = np.mgrid[:height, :width] / short
    x = np.stack([row, column, 0 * row], axis=-1)[None] * 100
    out = np.asarray(prepare(x, "torch_aa", "center"))[0]
    assert out.shape == (224, 224, 3)
    value = (out[..., :2] + 1) * 255 / 2 / 100
    step = [value[200, 112, 0] - value[20, 112, 0], value[112, 200, 1] - value[112, 20, 1]]
    np.testing.assert_allclose(step, [180 / 224] * 2, rtol=2e-2)
    middle = [height / short / 2, width / short / 2]
    np.testing.assert_allclose(value[111:113, 111:113].mean(axis=(0, 1)), middle, rtol=2e-2)


def test_range_is_minus_one_to_one():
    x = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 32, 48, 3), np.uint8)
    low, high = jax.jit(prepare)(x)
    assert (np.asarray(low) == -1).all() and (np.asarray(high) == 1).all()
    assert low.shape == (224, 224, 3)


def test_unknown_names_are_told():
    with pytest.raises(UserError, match="resize 'cubic' is unknown; choose from tf1"):
        prepare(frames(8, 8), "cubic")
    with pytest.raises(UserError, match="crop 'left' is unknown"):
        prepare(frames(8, 8), crop="left")
