import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lumiere_jax.models.layers import (
    ResidualBlock,
    UpsampleConv,
    depth_to_space,
    rematerialize,
    repeat,
    space_to_depth,
)


class Repeated(nn.Module):
    """`repeat`, as a network uses it."""

    count: int
    remat: str = "none"

    @nn.compact
    def __call__(self, x, embedding):
        block = rematerialize(ResidualBlock, self.remat, repeated=True)
        return repeat(block(8, groups=4, name="blocks"), self.count, x, embedding)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_space_to_depth_is_pixel_unshuffle(side):
    x = np.random.default_rng(side).normal(size=(2, 6, 12, 5)).astype(np.float32)
    expected = torch.nn.functional.pixel_unshuffle(torch.tensor(x).permute(0, 3, 1, 2), side)
    result = space_to_depth(jnp.asarray(x), side)
    np.testing.assert_array_equal(result, expected.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(depth_to_space(result, side), x)


def test_upsampling_convolution_is_torchs_of_repeated_pixels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    kernel, bias = rng.normal(size=(3, 3, 4, 6)), rng.normal(size=6)
    aim = rng.normal(size=(2, 6, 10, 6))
    module = UpsampleConv(6)
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    drawn = module.init(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)

    def loss(params, x):
        out = module.apply({"params": params}, x)
        return (out * aim).sum(), out

    (_, out), (gradient, along_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        params, x
    )
    tensors = [torch.tensor(value, dtype=torch.float64) for value in (x, kernel, bias)]
    for tensor in tensors:
        tensor.requires_grad_()
    doubled = torch.nn.functional.interpolate(tensors[0].permute(0, 3, 1, 2), scale_factor=2)
    expected = torch.nn.functional.conv2d(
        doubled, tensors[1].permute(3, 2, 0, 1), tensors[2], padding=1
    ).permute(0, 2, 3, 1)
    (expected * torch.tensor(aim)).sum().backward()
    np.testing.assert_allclose(out, expected.detach(), atol=2e-5)
    found = (along_x, gradient["kernel"], gradient["bias"])
    for value, tensor in zip(found, tensors, strict=True):
        np.testing.assert_allclose(value, tensor.grad, atol=2e-4)  # sums of up to 120 terms


def make_inputs():
    rng = np.random.default_rng(0)
    x, embedding = rng.normal(size=(2, 4, 4, 8)), rng.normal(size=(2, 6))
    return jnp.asarray(x, jnp.float32), jnp.asarray(embedding, jnp.float32)


def make_params(count):
    params = Repeated(count).init(jax.random.key(0), *make_inputs())["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return tree.unflatten([leaf + more for leaf, more in zip(leaves, noise, strict=True)])


@pytest.mark.parametrize("count", [1, 3])
def test_repeated_blocks_follow_one_another(count):
    x, embedding = make_inputs()
    params = make_params(count)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params)} == {count}
    expected = x
    for i in range(count):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
        expected = ResidualBlock(8, groups=4).apply({"params": one}, expected, embedding)
    result = Repeated(count).apply({"params": params}, x, embedding)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_repeated_blocks_start_differently():
    params = Repeated(2).init(jax.random.key(0), *make_inputs())["params"]
    first, second = params["blocks"]["conv_0"]["kernel"]
    assert not np.allclose(first, second)
    # Each like a block of its own: LeCun's variance is 1 / inputs, whatever the leading axis.
    assert abs(np.var(first) * 8 * 9 - 1) < 0.3


@pytest.mark.parametrize("remat", ["full", "convolutions"])
def test_gradients_of_repeated_blocks_do_not_depend_on_remat(remat):
    inputs, params = make_inputs(), make_params(3)

    def gradient(network):
        loss = lambda p: jnp.sum(jnp.square(network.apply({"params": p}, *inputs)))  # noqa: E731
        return jax.grad(loss)(params)

    def close(first, second):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)

    jax.tree.map(close, gradient(Repeated(3, remat)), gradient(Repeated(3)))


def test_inputs_of_a_block_are_joined_by_channel():
    x, embedding = make_inputs()
    block = ResidualBlock(8, groups=4)
    both = jnp.concatenate([x, x[..., :4]], axis=-1)
    params = block.init(jax.random.key(0), both, embedding)
    joined = block.apply(params, both, embedding)
    assert np.array_equal(block.apply(params, (x, x[..., :4]), embedding), joined)
