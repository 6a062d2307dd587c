import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lumiere_jax.models import layers
from lumiere_jax.models.ssr import EfficientUNet, TemporalResidual, TextCrossAttention
from lumiere_jax.runtime.errors import UserError

# These programs run for an instant: most of their time is the compiler's.
fast_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

TINY = {
    "widths": (8, 16),
    "num_blocks": (1, 1),
    "strides": (2, 2),
    "middle_blocks": 1,
    "embedding_features": 16,
    "head_dim": 8,
    "groups": 4,
}


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_inputs(batch=2, frames=3, size=8):
    """Positional and keyword arguments of the network."""
    shape = (batch, frames, size, size, 3)
    mask = np.arange(5) < np.array([[5], [3]] * batch)[:batch]
    arguments = normal(shape), np.linspace(100, 900, batch, dtype=np.float32)
    arguments += normal((batch, 5, 12), 1), mask
    return arguments, {
        "low_resolution": normal(shape, 2),
        "augmentation_level": np.linspace(0.1, 0.3, batch, dtype=np.float32),
    }


def make_network(**sizes):
    """Network and random parameters, none of them zero."""
    network = EfficientUNet(**(TINY | sizes))
    arguments, keywords = make_inputs(frames=1)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments, **keywords)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    scale = [math.prod(x.shape[:-1]) ** -0.5 if len(x.shape) > 1 else 0.3 for x in leaves]
    leaves = [scale[i] * normal(x.shape, i) for i, x in enumerate(leaves)]
    return network, jax.tree.unflatten(structure, leaves)


@pytest.fixture(scope="module")
def image_network():
    return make_network()


@pytest.fixture(scope="module")
def video_network():
    return make_network(inflated=True)


@functools.cache
def compiled(network):
    return fast_jit(lambda params, inputs, keys: network.apply({"params": params}, *inputs, **keys))


def apply(network, params, arguments, keywords):
    return np.asarray(compiled(network)(params, tuple(arguments), keywords))


def test_image_parameters_keep_their_paths(image_network, video_network):
    image, video = image_network[1], video_network[1]
    temporal = {name for name in video if name.startswith("temporal_")}
    groups = {"down_0", "down_1", "middle", "up_1", "up_0"}
    assert temporal == {f"temporal_{group}" for group in groups}
    assert not any(name.startswith("temporal_") for name in image)
    rest = {name: params for name, params in video.items() if name not in temporal}
    assert jax.tree.map(jnp.shape, rest) == jax.tree.map(jnp.shape, image)


def test_inflated_network_starts_as_the_image_network_on_every_frame(image_network, video_network):
    (image, image_params), (video, _) = image_network, video_network
    arguments, keywords = make_inputs()

    def temporal(key):
        params = video.init(key, *arguments, **keywords)["params"]
        return {name: params[name] for name in params if name.startswith("temporal_")}

    params = image_params | fast_jit(temporal)(jax.random.key(0))
    result = apply(video, params, arguments, keywords)
    assert np.std(result) > 0.1
    # Two programs, which may round differently.
    expected = apply(image, image_params, arguments, keywords)
    np.testing.assert_allclose(result, expected, atol=2e-5)
    for t in range(3):
        frame = arguments[0][:, t : t + 1], *arguments[1:]
        low = keywords | {"low_resolution": keywords["low_resolution"][:, t : t + 1]}
        expected = apply(image, image_params, frame, low)
        np.testing.assert_allclose(result[:, t : t + 1], expected, atol=2e-5)


def test_temporal_residual_is_exactly_the_identity_at_initialization():
    x = jnp.asarray(normal((6, 4, 4, 8)))
    layer = TemporalResidual(groups=4)
    params = layer.init(jax.random.key(0), x, 2)
    np.testing.assert_array_equal(layer.apply(params, x, 2), x)


@pytest.mark.parametrize("frames", [1, 2])
def test_any_number_of_frames(video_network, frames):
    arguments, keywords = make_inputs(frames=frames)
    assert apply(*video_network, arguments, keywords).shape == (2, frames, 8, 8, 3)


def test_only_the_temporal_convolutions_connect_frames(image_network, video_network):
    arguments, keywords = make_inputs()
    changed = arguments[0].copy()
    changed[:, 0] += 1
    for (network, params), connected in ((image_network, False), (video_network, True)):
        first = apply(network, params, arguments, keywords)
        second = apply(network, params, (changed, *arguments[1:]), keywords)
        assert np.any(first[:, 0] != second[:, 0])
        assert np.any(first[:, 1] != second[:, 1]) == connected


def test_every_input_matters(video_network):
    arguments, keywords = make_inputs()
    base = apply(*video_network, arguments, keywords)
    for i in range(3):
        changed = [x + 0.5 * (i == j) if j < 3 else x for j, x in enumerate(arguments)]
        changed[2] = normal((2, 5, 12), 9) if i == 2 else changed[2]  # LayerNorm undoes a shift.
        assert np.abs(apply(*video_network, changed, keywords) - base).max() > 1e-3
    for name in keywords:
        changed = keywords | {name: keywords[name] + 0.5}
        assert np.abs(apply(*video_network, arguments, changed) - base).max() > 1e-3


def test_padding_of_the_text_does_not_matter(video_network):
    arguments, keywords = make_inputs()
    text = arguments[2].copy()
    text[1, 3:] = 7
    changed = *arguments[:2], text, arguments[3]
    np.testing.assert_allclose(
        apply(*video_network, changed, keywords),
        apply(*video_network, arguments, keywords),
        atol=1e-5,
    )


def test_memory_grows_with_pixels_and_not_with_their_square():
    network = EfficientUNet(**TINY | {"strides": (1, 2), "widths": (4, 8), "groups": 2})

    def temporaries(size):
        arguments, keywords = make_inputs(batch=1, frames=1, size=size)
        params = jax.eval_shape(network.init, jax.random.key(0), *arguments, **keywords)
        program = fast_jit(network.apply).lower(params, *arguments, **keywords).compile()
        return program.memory_analysis().temp_size_in_bytes

    # Attention between the pixels of the coarsest level would take 1 MB, then 16 MB, a head.
    assert temporaries(128) < 5 * temporaries(64)


def torch_group_norm(x, groups, params):
    x = torch.from_numpy(x).movedim(-1, 1)
    weight, bias = (torch.from_numpy(params[name]) for name in ("scale", "bias"))
    return torch.nn.functional.group_norm(x, groups, weight, bias, eps=1e-5)


def as_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def perturbed(layer, *inputs):
    params = layer.init(jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda x: x + 0.3 * normal(x.shape, x.size), params)


def test_temporal_residual_matches_torch():
    x, layer = normal((6, 2, 3, 8)), TemporalResidual(groups=4)
    params = perturbed(layer, jnp.asarray(x), 2)
    result = layer.apply({"params": params}, jnp.asarray(x), 2)
    params = as_float64(params)
    h = torch.nn.functional.silu(torch_group_norm(x.astype(np.float64), 4, params["norm"]))
    h = h.reshape(2, 3, 8, 2, 3).permute(0, 3, 4, 2, 1).reshape(-1, 8, 3)
    kernel = torch.from_numpy(params["conv"]["conv"]["kernel"][:, 0]).permute(2, 1, 0)
    bias = torch.from_numpy(params["conv"]["conv"]["bias"])
    h = torch.nn.functional.conv1d(h, kernel, bias, padding=1)
    h = h.reshape(2, 2, 3, 8, 3).permute(0, 4, 1, 2, 3).reshape(x.shape)
    np.testing.assert_allclose(result, x + h.numpy(), atol=1e-5)


def test_text_cross_attention_matches_torch():
    x, text = normal((6, 2, 3, 8)), normal((2, 5, 12), 1)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    layer, arrays = (
        TextCrossAttention(head_dim=4, groups=2),
        [jnp.asarray(a) for a in (x, text, mask)],
    )
    params = perturbed(layer, *arrays)
    result = layer.apply({"params": params}, *arrays)
    params = as_float64(params)

    def heads(name, y):
        y = y @ params[name]["kernel"] + params[name]["bias"]
        return torch.from_numpy(y.reshape(len(y), -1, 2, 4)).transpose(1, 2)

    pixels = torch_group_norm(x.astype(np.float64), 2, params["norm"])
    pixels = pixels.movedim(1, -1).reshape(6, 6, 8).numpy()
    words = text - text.mean(-1, keepdims=True, dtype=np.float64)
    words = words / np.sqrt(np.square(words).mean(-1, keepdims=True) + 1e-5)
    words = words * params["text_norm"]["scale"] + params["text_norm"]["bias"]
    # One frame after the other here; the network takes a clip's frames together.
    words, frame_mask = words.repeat(3, axis=0), mask.repeat(3, axis=0)
    out = torch.nn.functional.scaled_dot_product_attention(
        heads("query", pixels),
        heads("key", words),
        heads("value", words),
        attn_mask=torch.from_numpy(frame_mask)[:, None, None],
    )
    out = out.transpose(1, 2).reshape(x.shape).numpy()
    out = out @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(result, x + out, atol=1e-5)


def torch_conv(x, params, stride=1):
    """Convolution of [n, h, w, c] by a kernel of this project, with padding of half its size."""
    kernel, bias = params["kernel"], torch.from_numpy(params["bias"])
    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    y = torch.from_numpy(x).movedim(-1, 1)
    y = torch.nn.functional.conv2d(y, weight, bias, stride, kernel.shape[0] // 2)
    return y.movedim(1, -1).numpy()


def torch_block(x, embedding, params, groups):
    silu = torch.nn.functional.silu
    h = silu(torch_group_norm(x, groups, params["norm_0"])).movedim(1, -1).numpy()
    h = torch_group_norm(torch_conv(h, params["conv_0"]), groups, params["norm_1"])
    modulation = embedding @ params["modulation"]["kernel"] + params["modulation"]["bias"]
    scale, shift = torch.from_numpy(modulation)[:, :, None, None].chunk(2, dim=1)
    h = silu(h * (1 + scale) + shift).movedim(1, -1).numpy()
    h = torch_conv(h, params["conv_1"])
    return h + (torch_conv(x, params["shortcut"]) if "shortcut" in params else x)


def test_whole_network_matches_torch(monkeypatch):
    # One level with two blocks a group; attention and conditioning have references of their own.
    network, params = make_network(
        widths=(8,), num_blocks=(2,), strides=(2,), middle_blocks=2, groups=4
    )
    for name in ("down_0", "middle", "up_0"):
        out = params[f"{name}_attention"]["out"]
        params[f"{name}_attention"]["out"] = jax.tree.map(jnp.zeros_like, out)
    embedding = normal((2, 16), 5)
    monkeypatch.setattr(EfficientUNet, "_embed", lambda self, *inputs: jnp.asarray(embedding))
    arguments, keywords = make_inputs(frames=1)
    result = apply(network, params, arguments, keywords)

    p, embedding = as_float64(params), embedding.astype(np.float64)
    blocks = {
        name: [jax.tree.map(lambda leaf, i=i: leaf[i], p[f"{name}_blocks"]) for i in range(2)]
        for name in ("down_0", "middle")
    }
    x = np.concatenate([arguments[0], keywords["low_resolution"]], -1)[:, 0].astype(np.float64)
    pixels = torch_conv(x, p["conv_in"])
    h = torch_conv(pixels, p["down_0_conv"], stride=2)
    for block in blocks["down_0"]:
        h = torch_block(h, embedding, block, 4)
    skip = h
    for block in blocks["middle"]:
        h = torch_block(h, embedding, block, 4)
    h = np.concatenate([h, skip / np.sqrt(2)], axis=-1)
    h = torch_block(h, embedding, p["up_0_first_block"], 4)
    h = torch_block(h, embedding, jax.tree.map(lambda leaf: leaf[0], p["up_0_blocks"]), 4)
    h = torch_conv(h.repeat(2, axis=1).repeat(2, axis=2), p["up_0_conv"])
    h = torch_group_norm(h + pixels / np.sqrt(2), 4, p["norm_out"])
    h = torch_conv(torch.nn.functional.silu(h).movedim(1, -1).numpy(), p["conv_out"])
    np.testing.assert_allclose(result[:, 0], h, atol=1e-4)


def test_gradients_reach_every_parameter(video_network):
    network, params = video_network
    arguments, keywords = make_inputs()
    target = normal((2, 3, 8, 8, 3), 4)

    def loss(params):
        return jnp.sum(target * network.apply({"params": params}, *arguments, **keywords))

    gradients = fast_jit(jax.grad(loss))(params)
    # Softmax does not see what is added to every key alike.
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(gradient)), name
        assert np.any(gradient != 0) or "['key']['bias']" in name, name


def test_remat_stores_less_for_the_backward_pass(video_network, monkeypatch):
    monkeypatch.setattr(layers, "COSTLY_INPUTS", 16)
    network, params = video_network
    arguments, keywords = make_inputs()
    remat = network.clone(remat="full")

    def stored(network):
        def pullback(params):
            return jax.vjp(lambda p: network.apply({"params": p}, *arguments, **keywords), params)[
                1
            ]

        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(pullback, params)))

    some = network.clone(remat="convolutions")
    assert stored(remat) < 0.7 * stored(network)
    assert stored(remat) < stored(some) < stored(network)
    np.testing.assert_allclose(
        apply(remat, params, arguments, keywords),
        apply(network, params, arguments, keywords),
        atol=1e-5,
    )


@pytest.mark.parametrize("remat", ["full", "convolutions"])
def test_remat_does_not_change_gradients(video_network, monkeypatch, remat):
    monkeypatch.setattr(layers, "COSTLY_INPUTS", 16)
    network, params = video_network
    arguments, keywords = make_inputs()

    def gradient(network):
        def loss(params):
            return jnp.square(network.apply({"params": params}, *arguments, **keywords)).mean()

        return fast_jit(jax.grad(loss))(params)

    pairs = jax.tree.map(
        lambda *leaves: leaves, gradient(network), gradient(network.clone(remat=remat))
    )
    for expected, got in jax.tree.leaves(pairs, is_leaf=lambda x: isinstance(x, tuple)):
        np.testing.assert_allclose(
            got, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max() + 1e-7
        )


def test_bfloat16_changes_only_the_rounding(video_network):
    network, params = video_network
    arguments, keywords = make_inputs()
    expected = apply(network, params, arguments, keywords)
    half = apply(network.clone(dtype=jnp.bfloat16), params, arguments, keywords)
    assert half.dtype == np.float32
    error = np.sqrt(np.mean(np.square(half - expected)) / np.mean(np.square(expected)))
    assert 0 < error < 0.03


def count_parameters(network):
    arguments, keywords = make_inputs(batch=1, frames=1, size=16)
    text = np.zeros((1, 5, 4096), np.float32)  # T5-XXL's channels.
    arguments = *arguments[:2], text, arguments[3]
    params = jax.eval_shape(network.init, jax.random.key(0), *arguments, **keywords)["params"]
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def test_full_scale_has_the_stated_number_of_parameters():
    image = count_parameters(EfficientUNet(dtype=jnp.bfloat16))
    video = count_parameters(EfficientUNet(dtype=jnp.bfloat16, inflated=True))
    assert round(image / 1e6) == 1043
    assert round((video - image) / 1e6) == 23


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"remat": "half"}, "remat 'half' is unknown; choose from none, full"),
        ({"strides": (2, 3)}, "1 or 2"),
        ({"num_blocks": (1,)}, "one entry"),
    ],
)
def test_fields_that_do_not_fit_are_told(fields, message):
    with pytest.raises(UserError, match=message):
        EfficientUNet(**TINY | fields).check_fields(channels=3, text_dim=12)


def test_indivisible_sizes_are_told():
    with pytest.raises(UserError, match="10×10 is not divisible by 4"):
        EfficientUNet(**TINY).check_clip(3, 10, 10)
