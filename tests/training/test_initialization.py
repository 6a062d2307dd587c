import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.training.initialization import check_fit, state_shapes
from lumiere_jax.training.optimizer import create_optimizer
from tests.tiny_runs import tiny_config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_parameters_may_be_kept_in_half_and_carry_no_other_state(dtype):
    # AdamW's state, unlike that of stacked Muon, is named by the parameters.
    config = tiny_config("stunet", train__frozen_dtype=dtype, optimizer__name="adamw")
    stage, mesh = Stage.from_config(config), create_mesh(config.mesh)
    state = state_shapes(stage, create_optimizer(config.optimizer, 10), mesh)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.frozen)} == {jnp.dtype(dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    assert jax.tree.map(jnp.shape, state.ema) == jax.tree.map(jnp.shape, state.trainable)
    names = {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(state.optimizer)
    }
    assert any("temporal_" in name for name in names)
    assert not any(top in name for name in names for top in ("conv_in", "down_0_0_block"))


def test_unknown_frozen_dtype_is_refused():
    with pytest.raises(UserError, match="frozen_dtype 'int8' is unknown; use float32 or bfloat16"):
        Stage.from_config(tiny_config("stunet", train__frozen_dtype="int8"))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"conv": {"kernel": jnp.ones((3, 3))}}, "no parameter 'conv/kernel'; use equal sizes"),
        ({"conv": {"bias": jnp.ones(4)}}, r"has shape \(4,\), and this network's \(3,\)"),
    ],
)
def test_saved_parameters_without_a_place_are_refused(saved, message):
    network = {"conv": {"bias": jnp.ones(3)}, "more": {"bias": jnp.ones(3)}}
    check_fit(network, {"conv": {"bias": jnp.zeros(3)}}, "WORKDIR")
    with pytest.raises(UserError, match="WORKDIR: .*" + message):
        check_fit(network, saved, "WORKDIR")
