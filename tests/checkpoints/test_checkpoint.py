import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.state import create_state
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.checkpoints.checkpoint import Checkpointer
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh, state_shardings, with_shardings
from lumiere_jax.training.optimizer import create_optimizer
from tests.tiny_runs import assert_same_arrays, saved_arrays, tiny_config, train

CONFIG = tiny_config("stunet")


def bits(rng, *shape):
    """Any finite numbers at all, denormal ones and minus zero among them."""
    numbers = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    numbers = np.where(np.isfinite(numbers), numbers, -0.0)
    numbers.flat[0] = 1e-42
    return jnp.asarray(numbers)


MESH = create_mesh(CONFIG.mesh)


def new_state(seed=0, step=0):
    rng = np.random.default_rng(seed)
    trainable = {"temporal_a": {"kernel": bits(rng, 3, 5), "bias": bits(rng, 5)}}
    frozen = {"conv": {"kernel": bits(rng, 4, 4)}}
    state = create_state(trainable, frozen, create_optimizer(CONFIG.optimizer, 10))
    draw = jax.tree.map(lambda leaf: bits(rng, *leaf.shape) if leaf.ndim else leaf, state)
    return draw.replace(step=jnp.int32(step))


def save(workdir, losses, keep_last=2, keep_best=1, config=CONFIG):
    """Saves steps 1, 2, … with these held-out losses."""
    checkpoints = Checkpointer(workdir, keep_last=keep_last, keep_best=keep_best)
    for step, loss in enumerate(losses, 1):
        checkpoints.save(new_state(step, step), config, loss)
    checkpoints.wait()
    steps = checkpoints.steps()
    checkpoints.close()
    return steps


def restore(workdir, config=CONFIG):
    checkpoints = Checkpointer(workdir, keep_last=2, keep_best=1)
    try:
        shapes = jax.eval_shape(new_state)
        return checkpoints.restore(with_shardings(shapes, state_shardings(shapes, MESH)), config)
    finally:
        checkpoints.close()


def assert_same_tree(first, second):
    first, second = (jax.tree_util.tree_leaves_with_path(tree) for tree in (first, second))
    assert_same_arrays(
        *({jax.tree_util.keystr(p): np.asarray(x) for p, x in tree} for tree in (first, second))
    )


def test_round_trip_bit_for_bit(tmp_path):
    assert save(tmp_path, [0.5, None]) == [1, 2]
    restored = restore(tmp_path)
    assert_same_tree(restored, new_state(2, 2))
    assert restored.step.dtype == jnp.int32


def test_load_gives_the_average_and_the_frozen_parameters(tmp_path):
    save(tmp_path, [None])
    state = new_state(1, 1)
    config, params, step = checkpoint.load(tmp_path)
    assert step == 1
    assert_same_tree(params, {**state.ema, **state.frozen})
    assert config.model.widths == [8, 16]
    assert config.to_dict().keys() == CONFIG.to_dict().keys()


def test_what_is_saved_does_not_follow_the_next_step(tmp_path):
    """Saving goes on in the background while the arrays are given to the next step."""
    checkpoints = Checkpointer(tmp_path, keep_last=9, keep_best=0)
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 + 1, state), donate_argnums=0)
    state = new_state(7, 1)
    state = state.replace(frozen={"large": jnp.arange(2.0**20)})
    checkpoints.save(state, CONFIG)
    jax.block_until_ready(step(state))
    checkpoints.close()
    expected = new_state(7, 1)
    saved = saved_arrays(tmp_path, 1)
    np.testing.assert_array_equal(saved["frozen['large']"], np.arange(2.0**20))
    for name, leaf in expected.ema["temporal_a"].items():
        np.testing.assert_array_equal(saved[f"ema['temporal_a']['{name}']"], leaf)


@pytest.mark.parametrize(
    ("losses", "keep", "kept"),
    [
        ([3.0, 1.0, 2.0, 5.0, 4.0], (2, 1), [2, 4, 5]),
        ([3.0, 1.0, 2.0, 5.0, 4.0], (1, 2), [2, 3, 5]),
        ([3.0, 1.0, 2.0, 5.0, 4.0], (1, 0), [5]),
        ([None, 1.0, None, None, 4.0, None], (2, 1), [2, 5, 6]),
        ([None, None, None, None], (2, 1), [3, 4]),
    ],
)
def test_keeps_the_newest_and_the_lowest_loss(tmp_path, losses, keep, kept):
    assert save(tmp_path, losses, *keep) == kept
    # The same as seen by the next process.
    assert Checkpointer(tmp_path, keep_last=keep[0], keep_best=keep[1]).steps() == kept


def test_step_that_exists_is_left_as_it_is(tmp_path):
    save(tmp_path, [None])
    checkpoints = Checkpointer(tmp_path, keep_last=2, keep_best=1)
    assert checkpoints.latest_step() == 1
    checkpoints.save(new_state(seed=99, step=1), CONFIG)
    checkpoints.close()
    assert_same_tree(restore(tmp_path), new_state(1, 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage": "ssr"}, "is a checkpoint of stage 'stunet', but this run is stage 'ssr'"),
        ({"model.head_dim": 16}, "has model.head_dim=8, but this run asks for 16"),
        ({"model.widths": (8, 8)}, r"has model.widths=\[8, 16\], but this run asks for \(8, 8\)"),
        ({"text.max_length": 8}, "has text.max_length=24, but this run asks for 8"),
        (
            {"text.weights": "0123"},
            r"other weights of the text encoder \(text.weights=''\).*'0123'",
        ),
        ({"diffusion.prediction": "v"}, "diffusion.prediction='x0'.*'v'"),
        ({"optimizer.name": "adafactor"}, "optimizer.name='muon'.*'adafactor'"),
        ({"train.trainable": "all"}, "train.trainable='temporal'.*'all'"),
    ],
)
def test_checkpoint_of_another_network_is_refused(tmp_path, fields, message):
    save(tmp_path, [None])
    config = tiny_config("stunet")
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message) as error:
        restore(tmp_path, config)
    assert str(tmp_path / "checkpoints" / "1") in str(error.value)


def test_what_does_not_change_the_network_may_change(tmp_path):
    save(tmp_path, [None])
    config = tiny_config("stunet", model__dtype="bfloat16", train__num_steps=99, seed=5)
    config.optimizer.learning_rate = 1e-9
    config.text.folder, config.text.dtype = "elsewhere", "float32"
    assert int(restore(tmp_path, config).step) == 1


def test_checkpoint_from_before_a_field_was_there(tmp_path):
    before = tiny_config("stunet")
    before.text = {"name": "hashed", "dim": before.text.dim, "max_length": 24}
    checkpoints = Checkpointer(tmp_path, keep_last=1, keep_best=0)
    checkpoints.save(new_state(1, 1), before)
    checkpoints.close()
    assert int(restore(tmp_path, tiny_config("stunet")).step) == 1


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")
    Checkpointer(tmp_path, keep_last=1, keep_best=0).close()
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()  # as a kill leaves it
    with pytest.raises(UserError, match="checkpoints holds no complete checkpoint"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("damage", ["config", "ema", "arrays"])
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, capsys, damage):
    save(tmp_path, [None, None])
    place = tmp_path / "checkpoints" / "2"
    files = {
        "config": [place / "config" / "metadata"],
        "ema": list((place / "ema").glob("manifest*")),
        "arrays": [path for path in place.rglob("d/*") if path.is_file()],
    }[damage]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be read.*move the folder") as error:
        checkpoint.load(tmp_path)
    assert str(place) in str(error.value) and "\n" not in str(error.value)
    # A run goes on from the one before, and says so; nothing is lost.
    assert_same_tree(restore(tmp_path), new_state(1, 1))
    assert f"warning: the checkpoint {place}" in capsys.readouterr().out
    assert (tmp_path / "damaged_checkpoints" / "2" / "config").is_dir()
    assert checkpoint.load(tmp_path)[2] == 1
    checkpoints = Checkpointer(tmp_path, keep_last=2, keep_best=0)
    checkpoints.save(new_state(2, 2), CONFIG)  # the same step again
    checkpoints.close()
    assert_same_tree(restore(tmp_path), new_state(2, 2))


def test_only_damaged_checkpoints_are_no_fresh_start(tmp_path):
    save(tmp_path, [None])
    (tmp_path / "checkpoints" / "1" / "config" / "metadata").write_text("{")
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        restore(tmp_path)


def test_a_run_of_version_0_1_0_opens_and_goes_on(tmp_path):
    """Its one step was trained by commit b604bd8, before the modules were moved."""
    with tarfile.open(Path(__file__).with_name("run_of_0.1.0.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    config, params, step = checkpoint.load(tmp_path)
    assert (config.stage, step, checkpoint.fingerprint(params)) == ("t2i", 1, "97a49e98b4dc324b")
    sizes = dict.fromkeys(("head_dim", "embedding_features", "text_features"), 4)
    config = tiny_config(
        "t2i", model__widths=(4, 4), model__groups=2, text__dim=4, data__resolution=8,
        train__num_steps=1, **{f"model__{name}": size for name, size in sizes.items()},
    )  # fmt: skip
    state = train(config, tmp_path)
    assert int(state.step) == 1 and checkpoint.fingerprint(state.ema) == "97a49e98b4dc324b"
