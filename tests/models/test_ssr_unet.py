"""The U-Net as a super-resolution network; that it equals stage II is shown in open_weights/."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lumiere_jax.models.ssr_unet import SuperResolutionUNet
from tests.quick_jit import quick_jit

NETWORK = SuperResolutionUNet(
    widths=(16, 32),
    layers_per_level=(1, 1),
    attention_levels=(False, True),
    head_dim=8,
    text_features=24,
    pooling_heads=2,
    groups=8,
    self_attention=False,
    residual_divisor=2**0.5,
)


def inputs(frames=3, seed=0):
    rng = np.random.default_rng(seed)
    z, low = rng.normal(size=(2, 2, frames, 8, 8, 3)).astype("f4")
    text = rng.normal(size=(2, 5, 12)).astype("f4")
    arguments = z, np.array([100.0, 900.0], "f4"), text, np.ones((2, 5), bool)
    keywords = {"low_resolution": low, "augmentation_level": np.array([0.1, 0.3], "f4")}
    return arguments, keywords


def random_params(network):
    arguments, keywords = inputs()
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments, **keywords)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype("f4"), shapes)


def apply(network, params, arguments, keywords):
    return quick_jit(network.apply)({"params": params}, *arguments, **keywords)


@pytest.fixture(scope="module", name="params")
def fixture_params():
    return random_params(NETWORK)


def test_images_are_refined_one_by_one(params):
    (z, *rest), keywords = inputs()
    video = apply(NETWORK, params, (z, *rest), keywords)
    low = keywords.pop("low_resolution")
    frame = apply(NETWORK, params, (z[:, 1:2], *rest), keywords | {"low_resolution": low[:, 1:2]})
    np.testing.assert_allclose(video[:, 1:2], frame, atol=1e-5 * np.abs(frame).max())


def test_every_input_counts(params):
    arguments, keywords = inputs()
    out = apply(NETWORK, params, arguments, keywords)
    for name in keywords:
        other = apply(NETWORK, params, arguments, keywords | {name: 0.5 * keywords[name]})
        assert np.abs(out - other).max() > 1e-3 * np.abs(out).max(), name


def test_remat_and_inflation_keep_what_is_computed(params):
    arguments, keywords = inputs()
    video = NETWORK.clone(inflated=True, remat="full")
    shapes = jax.eval_shape(video.init, jax.random.key(0), *arguments, **keywords)["params"]
    assert {path[0] for path in flatten_dict(shapes)} - {path[0] for path in flatten_dict(params)}
    fresh = jax.jit(video.init)(jax.random.key(0), *arguments, **keywords)["params"]
    actual = apply(video, fresh | params, arguments, keywords)
    expected = apply(NETWORK, params, arguments, keywords)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())
