import jax
import ml_collections
import pytest
from jax.sharding import PartitionSpec

from lumiere_jax.runtime import sharding
from lumiere_jax.runtime.errors import UserError


def mesh_config(data=-1, fsdp=1, space=1):
    return ml_collections.ConfigDict({"data": data, "fsdp": fsdp, "space": space})


def test_the_free_axis_takes_all_devices():
    mesh = sharding.create_mesh(mesh_config())
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "space": 1}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3, "fsdp": 2}, "mesh.data=3.*must be 1"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 0}, "1 or more"),
        ({"data": -1, "fsdp": 2}, "must divide 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        sharding.create_mesh(mesh_config(**sizes), jax.devices()[:1])


@pytest.mark.parametrize(
    ("path", "shape", "fsdp", "expected"),
    [
        # Output channels, also in the optimizer state and the EMA.
        ("down_0_0_block/conv_0/kernel", (3, 3, 64, 128), 8, (None, None, None, "fsdp")),
        ("optimizer/1/mu/conv_0/kernel", (3, 3, 64, 128), 8, (None, None, None, "fsdp")),
        ("text_projection/kernel", (256, 128), 8, (None, "fsdp")),
        # Input channels where those do not divide; never the taps of a kernel.
        ("conv_out/kernel", (3, 3, 2048, 3), 8, (None, None, "fsdp")),
        ("odd/kernel", (128, 128, 3, 3), 8, ()),
        # Whole: vectors, small kernels, and everything on a mesh without that axis.
        ("norm/scale", (2**20,), 8, ()),
        ("conv_in/kernel", (3, 3, 3, 64), 8, ()),
        ("down_0_0_block/conv_0/kernel", (3, 3, 64, 128), 1, ()),
    ],
)
def test_placement_of_parameters(path, shape, fsdp, expected):
    assert sharding.parameter_spec(path, shape, fsdp) == PartitionSpec(*expected)


def test_a_batch_that_cannot_be_shared_is_refused():
    mesh = jax.sharding.AbstractMesh((2, 3, 4), sharding.AXES)
    sharding.check_batch(12, mesh)
    with pytest.raises(UserError, match="batch_size=8.*multiple of 6"):
        sharding.check_batch(8, mesh)
    assert sharding.padded_batch(8, mesh) == 12


def test_names_mean_nothing_without_a_mesh_and_something_with_one():
    from lumiere_jax.models.layers import constrain

    x = jax.numpy.ones((2, 4, 4, 3))
    names = ("clips", "height", None, None)
    assert "sharding_constraint" not in str(jax.make_jaxpr(lambda y: constrain(y, *names))(x))
    with sharding.use_mesh(sharding.create_mesh(mesh_config())):
        jaxpr = str(jax.make_jaxpr(lambda y: constrain(y, *names))(x))
    assert "sharding_constraint" in jaxpr and "space" in jaxpr
