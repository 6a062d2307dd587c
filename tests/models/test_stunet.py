import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from lumiere_jax.models.stunet import STUNet, is_temporal
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.errors import UserError
from tests.quick_jit import quick_jit

FIELDS = {
    "widths": (8, 8, 16),
    "layers_per_level": 1,
    "attention_levels": (False, False, True),
    "head_dim": 8,
    "text_features": 12,
    "pooling_heads": 2,
    "groups": 4,
}
T2I = UNet(**FIELDS)
MODEL = STUNet(**FIELDS, temporal_depth=1)
TWO_LEVELS = MODEL.clone(widths=(8, 8), attention_levels=(False, True))
FACTOR = 4
TEXT_DIM = 6
# XLA fuses the two programs differently, so sums round differently: equal to a few ulp of the
# largest output. (The modules alone are exact: test_inflation.py.)
ULPS = 16 * np.finfo(np.float32).eps


def inputs(batch=2, frames=8, height=8, width=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, frames, height, width, 3)).astype(np.float32)
    time = rng.uniform(0, 1000, size=batch).astype(np.float32)
    text = rng.normal(size=(batch, 5, TEXT_DIM)).astype(np.float32)
    mask = np.arange(5) < np.linspace(2, 5, batch).astype(int)[:, None]
    return x, time, text, mask


def randomize(params, seed=0):
    """Draws anew every parameter of a tree."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        scale = 0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        return (float(path[-1] == "scale") + scale * rng.normal(size=leaf.shape)).astype("f4")

    return path_aware_map(draw, params)


def is_image(path):
    return not is_temporal(path)


def abstract_params(model):
    return jax.eval_shape(model.init, jax.random.key(0), *inputs())["params"]


def initial_values(model, part):
    """The values that `model` gives at initialization to the parameters whose path is in `part`.

    All others are left out of the program, which then compiles in no time.
    """

    @quick_jit
    def init():
        flat = flatten_dict(model.init(jax.random.key(0), *inputs())["params"])
        return {path: leaf for path, leaf in flat.items() if part(path)}

    return init()


def is_resampling(path):
    return is_temporal(path) and path[0].endswith("_resample")


def is_projection(path):
    return is_temporal(path) and path[-2] == "projection"


def inflate(model):
    """A network that has just been inflated, as far as it is to act as the image network.

    The last projection of each block and the resampling have their initial values; every other
    parameter is random, since it is to have no influence at all, or is the image network's.
    """
    values = initial_values(model, lambda path: is_resampling(path) or is_projection(path))
    rest = flatten_dict(randomize(abstract_params(model)))
    return unflatten_dict(rest | jax.tree.map(np.asarray, values))


@pytest.fixture(scope="module")
def inflated():
    return inflate(MODEL)


@pytest.fixture(scope="module")
def random_params():
    """Random in every parameter, as if trained."""
    return randomize(abstract_params(MODEL))


@pytest.fixture(scope="module")
def two_levels():
    """Random parameters of the smallest network, and its output."""
    params = randomize(abstract_params(TWO_LEVELS))
    return params, quick_jit(TWO_LEVELS.apply)({"params": params}, *inputs())


@pytest.fixture(scope="module")
def apply():
    return quick_jit(lambda params, *arguments: MODEL.apply({"params": params}, *arguments))


@pytest.fixture(scope="module")
def apply_t2i():
    """The image network on frames; takes the parameters of either network."""

    def call(params, *arguments):
        params = {name: leaf for name, leaf in params.items() if is_image((name,))}
        return T2I.apply({"params": params}, *arguments)

    return quick_jit(call)


def test_parameters_of_the_image_network_keep_their_paths():
    image, video = (flatten_dict(abstract_params(model)) for model in (T2I, MODEL))
    kept = {path: leaf for path, leaf in video.items() if is_image(path)}
    assert {p: (v.shape, v.dtype) for p, v in kept.items()} == {
        p: (v.shape, v.dtype) for p, v in image.items()
    }
    assert all(path[0].startswith("temporal_") for path in video.keys() - image.keys())
    assert not any(path[0].startswith("temporal_") for path in image)


def test_every_layer_and_every_resizing_is_inflated():
    params = abstract_params(MODEL)
    spatial = [name.removesuffix("_block") for name in params if name.endswith("_block")]
    expected = {f"temporal_{name}" for name in spatial if name != "mid_0"}
    blocks = {name for name in params if re.match("temporal_(down|mid|up)_", name)}
    assert blocks == expected
    kinds = {
        name: "resample" if "temporal" in block else "attention" if "attention" in block else "conv"
        for name, block in params.items()
        if name in blocks
    }
    coarsest = len(FIELDS["widths"]) - 1
    for name, kind in kinds.items():
        if name.endswith("_resample"):
            assert kind == "resample"
        elif re.match(f"temporal_(down|up)_{coarsest}_|temporal_mid", name):
            assert kind == "attention"
        else:
            assert kind == "conv"


@pytest.mark.parametrize("frames", [8, 4])
def test_frozen_video_gives_the_image_networks_output(inflated, apply, apply_t2i, frames):
    x, *conditioning = inputs(frames=1)
    out = apply(inflated, np.repeat(x, frames, axis=1), *conditioning)
    expected = apply_t2i(inflated, x, *conditioning)
    assert np.std(expected) > 0.1
    expected = np.repeat(expected, frames, axis=1)
    np.testing.assert_allclose(out, expected, rtol=0, atol=ULPS * np.abs(expected).max())


def test_frames_that_survive_downsampling_start_as_images(inflated, apply, apply_t2i):
    x, *conditioning = inputs()
    out = apply(inflated, x, *conditioning)
    expected = apply_t2i(inflated, x, *conditioning)
    tolerance = ULPS * np.abs(expected).max()
    np.testing.assert_allclose(out[:, ::FACTOR], expected[:, ::FACTOR], rtol=0, atol=tolerance)
    assert np.abs(out - expected)[:, 1].max() > 1e-2


@pytest.fixture(scope="module")
def gradients():
    """Jitted gradient of a quadratic loss by all parameters of the smallest network."""
    arguments = inputs()

    def loss(params):
        out = TWO_LEVELS.apply({"params": params}, *arguments)
        return ((out - jnp.cos(jnp.arange(out.size)).reshape(out.shape)) ** 2).mean()

    return quick_jit(jax.grad(loss))


def test_training_moves_temporal_parameters_alone(gradients):
    inflated = inflate(TWO_LEVELS)
    # The step sees the whole tree, with weight decay: only the mask keeps the T2I part still.
    labels = path_aware_map(lambda path, _: "new" if is_temporal(path) else "old", inflated)
    optimizer = optax.multi_transform(
        {"new": optax.adamw(1e-2, weight_decay=0.1), "old": optax.set_to_zero()}, labels
    )

    @quick_jit
    def update(gradient, state, params):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    # At the first step the zero projections let no gradient through, at the second they do.
    params, state = inflated, optimizer.init(inflated)
    for _ in range(2):
        gradient = gradients(params)
        params, state = update(gradient, state, params)
    before, after, gradient = (flatten_dict(tree) for tree in (inflated, params, gradient))
    for path, leaf in before.items():
        if is_image(path):
            np.testing.assert_array_equal(after[path], leaf, err_msg="/".join(path))
        else:
            assert not np.array_equal(after[path], leaf), f"not trained: {path}"
    assert all(np.any(gradient[p]) for p in before if p[0] == "conv_in"), "nothing to be frozen"


@pytest.mark.parametrize("frames", [1, 6, 7])
def test_indivisible_frame_count_is_refused_and_the_factor_named(frames):
    with pytest.raises(UserError, match=f"{frames} frames are not divisible by 4.*multiple of 4"):
        MODEL.check_clip(frames, 8, 8)


def test_unknown_initialization_is_told():
    message = "temporal_initialization 'zero' is unknown; choose from nearest, he"
    with pytest.raises(UserError, match=message):
        MODEL.clone(temporal_initialization="zero").check_fields(channels=3, text_dim=TEXT_DIM)


def test_initialization_reaches_every_resampling():
    he = initial_values(MODEL.clone(temporal_initialization="he"), is_resampling)
    kernels = [leaf for path, leaf in he.items() if path[-1] == "kernel"]
    assert len(kernels) == 4
    assert all(np.count_nonzero(kernel) == kernel.size for kernel in kernels)


def test_trained_network_sees_motion_and_frame_position(random_params, apply):
    x, *conditioning = inputs()
    frozen = apply(random_params, np.repeat(x[:, :1], 8, axis=1), *conditioning)
    assert np.abs(frozen - frozen[:, :1]).max() > 1e-2, "frames do not know their position"
    out = apply(random_params, x, *conditioning)
    changed = x.copy()
    changed[:, 7] += 1.0
    assert np.abs(apply(random_params, changed, *conditioning) - out)[:, 0].max() > 1e-4


@pytest.mark.parametrize("part", ["time", "text", "mask"])
def test_conditioning_reaches_the_temporal_layers_alone(random_params, apply, part):
    # The image network's way for it is cut; what remains comes through the temporal modules.
    cut = {"time": ("time_mlp",), "text": ("text_pooling", "text_projection")}
    cut["mask"] = cut["text"]
    params = {
        name: jax.tree.map(np.zeros_like, leaf) if name in cut[part] else leaf
        for name, leaf in random_params.items()
    }
    if part != "time":  # A text of zeros still dilutes the pixels' keys by the number of tokens.
        params = path_aware_map(
            lambda path, leaf: leaf * 0 if path[0].endswith("_attention") else leaf, params
        )
    x, time, text, mask = inputs()
    other = {
        "time": (time / 2, text, mask),
        "text": (time, -text, mask),
        "mask": (time, text, ~mask),
    }
    out = apply(params, x, time, text, mask)
    assert np.abs(apply(params, x, *other[part]) - out).max() > 1e-3


def test_padding_tokens_have_no_influence(random_params, apply):
    x, time, text, mask = inputs()
    changed = np.where(mask[..., None], text, 50.0).astype(np.float32)
    out = apply(random_params, x, time, text, mask)
    np.testing.assert_array_equal(out, apply(random_params, x, time, changed, mask))


def test_clips_of_a_batch_do_not_touch_each_other(random_params, apply):
    x, time, text, mask = inputs()
    out = apply(random_params, x, time, text, mask)
    swapped = apply(random_params, x[::-1], time[::-1], text[::-1], mask[::-1])
    np.testing.assert_allclose(swapped[::-1], out, atol=1e-5 * np.abs(out).max())


def test_gradients_reach_every_temporal_parameter(gradients, two_levels):
    flat = flatten_dict(gradients(two_levels[0]))
    flat = {path: np.abs(gradient).max() for path, gradient in flat.items() if is_temporal(path)}
    for path, largest in flat.items():
        if path == ("temporal_text_pooling", "key", "bias"):
            continue  # Shifts all logits of its softmax alike, so its true gradient is zero.
        assert largest > 1e-6 * max(flat.values()), f"no gradient reaches {'/'.join(path)}"


def test_remat_changes_neither_parameters_nor_output(two_levels):
    params, expected = two_levels
    remat, arguments = TWO_LEVELS.clone(remat="full"), inputs()
    assert jax.tree.map(jnp.shape, abstract_params(remat)) == jax.tree.map(jnp.shape, params)
    out = quick_jit(remat.apply)({"params": params}, *arguments)
    np.testing.assert_allclose(out, expected, rtol=0, atol=ULPS * np.abs(expected).max())

    def loss(params):
        return remat.apply({"params": params}, *arguments).sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(loss))(params))
    assert jaxpr.count("remat") >= 2 * sum(name.startswith("temporal_down") for name in params)


@pytest.mark.parametrize("conditioning", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_switches(conditioning, text):
    model = MODEL.clone(temporal_conditioning=conditioning, temporal_text=text)
    paths = flatten_dict(abstract_params(model), sep="/")
    embedding = {"temporal_time_mlp", "temporal_text_pooling", "temporal_frame", "temporal_joint"}
    present = {path.split("/")[0] for path in paths}
    assert present & embedding == (embedding if conditioning else set())
    modulations = [p for p in paths if p.startswith("temporal_") and "/modulation/" in p]
    assert bool(modulations) == conditioning
    assert ("temporal_text_norm" in present) == text
    temporal = [p for p in paths if p.startswith("temporal_")]
    assert any(p.endswith("/attention/text_key/kernel") for p in temporal) == text


@pytest.fixture(scope="module")
def full_rate():
    """The smallest network without resampling in time, just inflated."""
    model = TWO_LEVELS.clone(temporal_resampling=False)
    return inflate(model), quick_jit(lambda params, *args: model.apply({"params": params}, *args))


def test_without_resampling_every_frame_starts_as_an_image(full_rate):
    params, apply = full_rate
    assert not any(is_resampling((name,)) for name in params)
    assert {name for name in params if is_temporal((name,))} < set(abstract_params(TWO_LEVELS))
    image = T2I.clone(widths=TWO_LEVELS.widths, attention_levels=TWO_LEVELS.attention_levels)
    images = {name: leaf for name, leaf in params.items() if is_image((name,))}
    x, *conditioning = inputs(frames=5)  # odd: nothing has to divide it
    expected = quick_jit(image.apply)({"params": images}, x, *conditioning)
    assert np.std(expected) > 0.1
    tolerance = ULPS * np.abs(expected).max()
    np.testing.assert_allclose(apply(params, x, *conditioning), expected, rtol=0, atol=tolerance)
    frozen = apply(params, np.repeat(x[:, :1], 5, axis=1), *conditioning)
    still = np.repeat(expected[:, :1], 5, axis=1)
    np.testing.assert_allclose(frozen, still, rtol=0, atol=tolerance)


def test_without_resampling_frames_still_see_each_other(full_rate):
    params, apply = randomize(full_rate[0]), full_rate[1]
    x, *conditioning = inputs(frames=5)
    changed = x.copy()
    changed[:, 4] += 1.0
    assert (
        np.abs(apply(params, changed, *conditioning) - apply(params, x, *conditioning))[:, 0].max()
        > 1e-4
    )


def test_plain_reading_of_the_paper_runs():
    plain = {"temporal_conditioning": False, "temporal_text": False}
    model = TWO_LEVELS.clone(**plain)
    params = randomize(abstract_params(model))
    x, *conditioning = inputs()
    out = quick_jit(model.apply)({"params": params}, x, *conditioning)
    assert out.shape == x.shape
    assert np.isfinite(out).all() and np.std(out) > 0.1


def test_bfloat16_stays_near_float32(two_levels):
    params, expected = two_levels
    half = TWO_LEVELS.clone(dtype=jnp.bfloat16)
    out = quick_jit(half.apply)({"params": params}, *inputs())
    assert out.dtype == jnp.float32
    assert 0 < np.std(out - expected) < 0.05 * np.std(expected)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(abstract_params(half)))
