import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AbstractDevice, AbstractMesh

from lumiere_jax.models import convolution
from lumiere_jax.models.convolution import convolve

CASES = {  # kernel, strides, padding
    "space": ((3, 3), (1, 1), ((1, 1), (1, 1))),
    "half the size": ((3, 3), (2, 2), ((1, 1), (1, 1))),
    "a phase of doubling": ((2, 2), (1, 1), ((1, 0), (0, 1))),
    "time": ((3, 1), (1, 1), ((1, 1), (0, 0))),
    "half the frames": ((3, 1), (2, 1), ((1, 1), (0, 0))),
    "a point": ((1, 1), (1, 1), "SAME"),
}


def gradients(x, kernel, strides, padding, weights):
    """By JAX: of input and kernel."""
    loss = lambda x, kernel: (convolve(x, kernel, strides, padding) * weights).sum()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)


def expected(x, kernel, strides, padding, weights):
    """By PyTorch."""
    padding = ((0, 0), (0, 0)) if padding == "SAME" else padding  # of one tap
    (top, bottom), (left, right) = padding
    x, kernel = (torch.tensor(a, requires_grad=True) for a in (x, kernel))
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, kernel.permute(3, 2, 0, 1), stride=tuple(strides))
    loss = (y.permute(0, 2, 3, 1) * torch.tensor(weights)).sum()
    loss.backward()
    return loss.detach().numpy(), (x.grad.numpy(), kernel.grad.numpy())


def number_of_convolutions():
    """In a forward pass and its gradients."""
    weights = jnp.ones((6, 8, 8, 5))
    arrays = jnp.ones((6, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    jaxpr = jax.make_jaxpr(lambda *arrays: gradients(*arrays, (1, 1), ((1, 1), (1, 1)), weights))
    return str(jaxpr(*arrays)).count("conv_general_dilated[")


def test_only_long_sums_on_cpus_are_parted(monkeypatch):
    assert number_of_convolutions() == 3
    monkeypatch.setattr(convolution, "_POSITIONS", 128)
    assert number_of_convolutions() == 5  # three sums of two frames each
    device = AbstractDevice(platform="tpu", device_kind="TPU v5", num_cores=1)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("data",), abstract_device=device)):
        assert number_of_convolutions() == 3


def test_any_number_of_frames_can_be_exported():
    (n,) = jax.export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, 8, 8, 3), (3, 3, 3, 5))]
    made = jax.export.export(jax.jit(lambda x, kernel: convolve(x, kernel, padding="SAME")))(
        *shapes
    )
    assert made.call(jnp.ones((200, 8, 8, 3)), jnp.ones((3, 3, 3, 5))).shape == (200, 8, 8, 5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("positions", [4096, 20, 1])
def test_same_gradients_as_pytorch(monkeypatch, name, positions):
    """With one sum, with several, and with as many as there can be."""
    monkeypatch.setattr(convolution, "_POSITIONS", positions)
    size, strides, padding = CASES[name]
    generator = np.random.default_rng(0)
    x, kernel = generator.normal(size=(6, 8, 8, 3)), generator.normal(size=(*size, 3, 5))
    shape = (6, 8 // strides[0], 8 // strides[1], 5)
    weights = generator.normal(size=shape)
    with jax.enable_x64(True):
        value, found = gradients(x, kernel, strides, padding, weights)
    loss, (of_x, of_kernel) = expected(x, kernel, strides, padding, weights)
    np.testing.assert_allclose(value, loss, rtol=1e-9)
    np.testing.assert_allclose(found[0], of_x, atol=1e-12)
    np.testing.assert_allclose(found[1], of_kernel, atol=1e-12)
