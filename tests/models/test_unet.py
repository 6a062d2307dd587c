import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from lumiere_jax.models.attention import TextAttention
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.errors import UserError
from tests.models import diffusers_parity as parity
from tests.quick_jit import quick_jit

# The tiny configuration of DeepFloyd IF's kind.
TINY_IF = UNet(
    widths=(32, 64),
    layers_per_level=1,
    attention_levels=(False, True),
    out_channels=6,
    head_dim=8,
    text_features=32,
    pooling_heads=2,
    activation="gelu",
    text_norm="group",
)
# (network, text dim, input shape)
PARITY_CASES = {
    "tiny_if": (TINY_IF, 32, (2, 32, 32, 3)),
    "four_levels": (
        TINY_IF.clone(
            widths=(32, 32, 64, 96),
            layers_per_level=3,
            attention_levels=(False, True, True, True),
            head_dim=16,
            text_features=64,
            pooling_heads=4,
        ),
        48,
        (1, 8, 16, 3),
    ),
    "silu_layer_norm": (
        UNet(
            widths=(48, 24, 48),
            layers_per_level=1,
            attention_levels=(True, False, True),
            in_channels=5,
            head_dim=6,
            text_features=48,
            pooling_heads=5,
            groups=8,
        ),
        20,
        (3, 12, 20, 5),
    ),
}
TEXT_LENGTH = 7

# A small network for everything but parity; LayerNorm of the text, so that masks are exact.
SMALL = UNet(
    widths=(16, 32),
    layers_per_level=1,
    attention_levels=(False, True),
    head_dim=8,
    text_features=24,
    pooling_heads=2,
    groups=8,
)
SMALL_TEXT_DIM = 12


def inputs(shape, text_dim, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    time = rng.uniform(0, 1000, size=shape[0]).astype(np.float32)
    text = rng.normal(size=(shape[0], TEXT_LENGTH, text_dim)).astype(np.float32)
    return x, time, text


def abstract_params(unet, text_dim, height=16, width=16):
    x = jnp.zeros((1, height, width, unet.in_channels))
    arguments = x, jnp.zeros(1), jnp.zeros((1, TEXT_LENGTH, text_dim))
    return jax.eval_shape(unet.init, jax.random.key(0), *arguments)["params"]


def random_params(unet, text_dim, seed=0):
    """Draws every parameter, so that no zero initialization hides a fault."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        scale = 0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        mean = float(path[-1].key == "scale")
        return jnp.asarray(mean + scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(unet, text_dim))


def assert_relatively_close(actual, expected, tolerance):
    error = np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"relative error {error:.2e}"


def images(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def twins(case):
    """Our network and torch's with the same random parameters, and inputs for both."""
    unet, text_dim, shape = PARITY_CASES[case]
    twin = parity.torch_unet(unet, text_dim)
    parity.randomize(twin, seed=1)
    params = parity.flax_params(twin, len(unet.widths))
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(jnp.shape, abstract_params(unet, text_dim))
    return unet, params, twin, inputs(shape, text_dim)


def test_equals_diffusers_with_all_levels_of_deepfloyd_if():
    unet, params, twin, (x, time, text) = twins("four_levels")
    with torch.no_grad():
        tensors = (torch.tensor(a) for a in (x.transpose(0, 3, 1, 2), time, text))
        expected = twin(*tensors).sample
    out = quick_jit(unet.apply)({"params": params}, x, time, text)
    assert_relatively_close(out, images(expected), 1e-4)


@pytest.mark.parametrize("case", ["tiny_if", "silu_layer_norm"])
def test_equals_diffusers_forward_and_input_gradients(case):
    unet, params, twin, (x, time, text) = twins(case)
    x_torch = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    text_torch = torch.tensor(text, requires_grad=True)
    expected = twin(x_torch, torch.tensor(time), text_torch).sample
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    x_grad, text_grad = torch.autograd.grad(expected, (x_torch, text_torch), cotangent)

    @quick_jit
    def forward_and_gradients(params, x, time, text, cotangent):
        out, vjp = jax.vjp(lambda x, text: unet.apply({"params": params}, x, time, text), x, text)
        return out, *vjp(cotangent)

    out, our_x_grad, our_text_grad = forward_and_gradients(params, x, time, text, images(cotangent))
    assert out.dtype == jnp.float32
    assert_relatively_close(out, images(expected), 1e-4)
    assert_relatively_close(our_x_grad, images(x_grad), 1e-4)
    assert_relatively_close(our_text_grad, text_grad.numpy(), 1e-4)


@pytest.mark.parametrize(("size", "billions"), [("XL", 4.305), ("L", 0.935), ("M", 0.372)])
def test_deepfloyd_if_stage_one_is_a_configuration(size, billions):
    unet = parity.if_stage_one(size)
    twin = parity.torch_unet(unet, parity.IF_TEXT_DIM, device="meta")
    expected = parity.convert(twin.state_dict(), len(unet.widths))
    ours = flatten_dict(abstract_params(unet, parity.IF_TEXT_DIM), sep="/")
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in expected.items()}
    count = sum(leaf.size for leaf in ours.values())
    assert count == sum(p.numel() for p in twin.parameters())
    assert round(count / 1e9, 3) == billions


def test_group_norm_of_text_is_exact_where_means_are_large():
    text = 1000 + np.random.default_rng(0).normal(size=(2, 5, 64)).astype(np.float32)
    attention = TextAttention(head_dim=8, groups=8, text_norm="group")
    _, state = attention.init_with_output(
        jax.random.key(0), jnp.zeros((2, 4, 4, 16)), jnp.asarray(text), None,
        capture_intermediates=lambda module, _: module.name == "text_norm", mutable=True,
    )  # fmt: skip
    actual = state["intermediates"]["text_norm"]["__call__"][0]
    expected = torch.nn.functional.group_norm(torch.tensor(text.transpose(0, 2, 1)).double(), 32)
    np.testing.assert_allclose(actual, expected.numpy().transpose(0, 2, 1), atol=2e-3)


@pytest.fixture(scope="module")
def small():
    """Jitted application of SMALL, and random parameters for it."""
    params = random_params(SMALL, SMALL_TEXT_DIM)

    @quick_jit
    def apply(x, time, text, mask):
        return SMALL.apply({"params": params}, x, time, text, mask)

    return apply


def test_padding_tokens_have_no_influence(small):
    x, time, text = inputs((2, 8, 12, 3), SMALL_TEXT_DIM)
    mask = np.arange(TEXT_LENGTH) < np.array([[4], [4]])
    out = small(x, time, text, mask)
    changed = np.where(mask[..., None], text, 50.0)
    np.testing.assert_array_equal(out, small(x, time, changed, mask))
    dropped = small(x, time, text[:, :4], None)
    np.testing.assert_allclose(out, dropped, atol=1e-5 * np.abs(out).max())
    assert np.abs(out - small(x, time, text, None)).max() > 1e-2, "the mask itself does nothing"


def test_a_mask_row_serves_its_own_example(small):
    x, time, text = inputs((2, 8, 12, 3), SMALL_TEXT_DIM)
    mask = np.arange(TEXT_LENGTH) < np.array([[2], [6]])
    together = small(x, time, text, mask)
    swapped = small(x[::-1], time[::-1], text[::-1], mask[::-1])
    np.testing.assert_allclose(together, swapped[::-1], atol=1e-5 * np.abs(together).max())


def test_a_mask_without_tokens_is_finite(small):
    x, time, text = inputs((2, 8, 12, 3), SMALL_TEXT_DIM)
    assert np.isfinite(small(x, time, text, np.zeros(text.shape[:2], bool))).all()


def test_video_is_treated_frame_by_frame(small):
    x, time, text = inputs((2, 4, 8, 12, 3), SMALL_TEXT_DIM)
    mask = np.arange(TEXT_LENGTH) < np.array([[2], [6]])
    video = small(x, time, text, mask)
    frames = np.stack([small(x[:, i], time, text, mask) for i in range(4)], axis=1)
    assert video.shape == (2, 4, 8, 12, 3)
    np.testing.assert_allclose(video, frames, atol=1e-5 * np.abs(frames).max())


def test_bfloat16_stays_near_float32(small):
    x, time, text = inputs((2, 8, 12, 3), SMALL_TEXT_DIM)
    mask = np.arange(TEXT_LENGTH) < np.array([[2], [6]])
    params = random_params(SMALL, SMALL_TEXT_DIM)
    half = SMALL.clone(dtype=jnp.bfloat16)
    out = quick_jit(half.apply)({"params": params}, x, time, text, mask)
    expected = small(x, time, text, mask)
    assert out.dtype == jnp.float32
    assert 0 < np.std(out - expected) < 0.03 * np.std(expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract_params(half, 12))} == {jnp.dtype("f4")}


def test_patches_are_pixels_of_a_coarser_image():
    """A network with patches is one without that works on their values as channels."""
    x, time, text = inputs((2, 16, 8, 3), SMALL_TEXT_DIM)
    params = jax.jit(SMALL.clone(patch=2).init)(jax.random.key(0), x, time, text)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    result = quick_jit(SMALL.clone(patch=2).apply)({"params": params}, x, time, text)
    shuffled = torch.nn.functional.pixel_unshuffle(torch.tensor(x).permute(0, 3, 1, 2), 2)
    coarse = shuffled.permute(0, 2, 3, 1).numpy()
    expected = quick_jit(SMALL.clone(in_channels=12, out_channels=12).apply)(
        {"params": params}, coarse, time, text
    )
    expected = torch.nn.functional.pixel_shuffle(
        torch.tensor(np.array(expected)).permute(0, 3, 1, 2), 2
    )
    np.testing.assert_allclose(result, expected.permute(0, 2, 3, 1).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({}, (7, 8), "7×8 is not divisible by 2"),
        ({}, (8, 9), "8×9 is not divisible by 2"),
        ({"patch": 2}, (8, 10), "8×10 is not divisible by 4, .* 2 levels of patches of 2"),
    ],
)
def test_indivisible_sizes_are_told(fields, size, message):
    with pytest.raises(UserError, match=message):
        SMALL.clone(**fields).check_clip(1, *size)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widths": (16, 16, 16)}, "attention_levels has 2 entries for 3 levels"),
        ({"layers_per_level": (1, 2, 3)}, r"layers_per_level=\(1, 2, 3\) for 2"),
        ({"in_channels": 4}, "takes 4 channels; got 3"),
        ({"groups": 32}, "groups=32 does not divide"),
        ({"head_dim": 5}, "head_dim=5 does not divide"),
        ({"pooling_heads": 5}, "pooling_heads=5 does not divide"),
        ({"activation": "relu6"}, "activation 'relu6' is unknown; choose from silu, gelu"),
        ({"text_norm": "batch"}, "text_norm 'batch' is unknown; choose from layer, group"),
        ({"text_norm": "group"}, "text_features=24"),
        ({"remat": "half"}, "remat 'half' is unknown"),
    ],
)
def test_fields_that_do_not_fit_are_told(fields, message):
    with pytest.raises(UserError, match=message):
        SMALL.clone(**fields).check_fields(channels=3, text_dim=SMALL_TEXT_DIM)
