import dataclasses
import json
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.cascade.state import create_state
from lumiere_jax.checkpoints import averages, checkpoint
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
    """Saves steps 1, 2, … with these held-out losses, which the run's metrics have as well."""
    lines = [{"step": step, "eval_loss": loss} for step, loss in enumerate(losses, 1) if loss]
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpoints = Checkpointer(workdir, keep_last=keep_last, keep_best=keep_best)
    for step, loss in enumerate(losses, 1):
        checkpoints.save(new_state(step, step), config, loss)
    checkpoints.wait()
    steps = checkpoints.steps()
    checkpoints.close()
    return steps


def restore(workdir, config=CONFIG, state=None):
    checkpoints = Checkpointer(workdir, keep_last=2, keep_best=1)
    try:
        shapes = jax.eval_shape(lambda: state or new_state())
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


def test_a_checkpoint_is_named_by_its_step_wherever_a_workdir_is(tmp_path, monkeypatch, capsys):
    save(tmp_path / "run", [0.5, 0.25, 1.0], keep_last=1)
    best = tmp_path / "run" / "checkpoints" / "2"
    (tmp_path / "best").symlink_to(best)
    monkeypatch.chdir(tmp_path / "run")
    for place in (best, str(best) + "/", "checkpoints/2", tmp_path / "best"):
        config, params, step = checkpoint.load(place)
        state = new_state(2, 2)
        assert step == 2 and checkpoint.load_config(place) == config
        assert_same_tree(params, {**state.ema, **state.frozen})
    with pytest.raises(UserError, match=r"no checkpoint of step 1 in .*, only of 2, 3; give one"):
        checkpoint.load("checkpoints/1")
    with pytest.raises(UserError, match=f"--workdir={best} is a checkpoint; .*--config.init_from"):
        Checkpointer(best, keep_last=1, keep_best=1)
    with pytest.raises(UserError, match=f"until the end of a run: give {tmp_path / 'run'}, or"):
        averages.load(best, 0.1)
    Checkpointer(tmp_path / "run", keep_last=1, keep_best=1).say_best()
    told = capsys.readouterr().out
    assert "least held-out loss, 0.25 (1 at step 3), is at step 2;" in told and str(best) in told
    for name, losses in (("none", [None, None]), ("last", [0.5, 0.25])):
        save(tmp_path / name, losses)
        Checkpointer(tmp_path / name, keep_last=1, keep_best=1).say_best()
    assert capsys.readouterr().out == ""


def test_a_run_is_not_continued_as_if_it_had_started_elsewhere(tmp_path, capsys):
    """`new_state(1)` has the same frozen parameters in each run."""
    first, moved, other = (str(tmp_path / name) for name in ("first", "moved", "other"))
    for place, losses in ((first, [None]), (moved, [None]), (other, [None, None])):
        save(Path(place), losses)
    save(tmp_path / "run", [None], config=tiny_config("stunet", first))

    def resume(init_from):
        config = tiny_config("stunet", init_from)
        config.init_from = init_from
        restore(tmp_path / "run", config)
        return config.init_from, capsys.readouterr().out

    assert resume(first) == resume(f"{tmp_path}/./first") == resume("") == (first, "")
    assert resume(moved) == (moved, f"resumed with init_from={moved!r}, formerly {first!r}\n")
    gone, told = str(tmp_path / "gone"), f"init_from stays {first!r}, where this run started; "
    assert resume(gone) == (first, f"{told}{gone} is not read\n")
    assert resume(f"{other}/checkpoints/1")[0] == f"{other}/checkpoints/1"
    with pytest.raises(UserError, match=f"started from other parameters .*{first}.* in {other};"):
        resume(other)
    # Without frozen ones, with those that are where it started.
    config = tiny_config("stunet", other)
    with pytest.raises(UserError, match="started from other parameters"):
        checkpoint._check_start(first, config, {}, MESH, tmp_path)
    checkpoint._check_start(gone, config, {}, MESH, tmp_path)
    assert config.init_from == gone


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
    # The next process knows the losses, and keeps the best one as it saves more.
    checkpoints = Checkpointer(tmp_path, keep_last=keep[0], keep_best=keep[1])
    assert checkpoints.steps() == kept
    checkpoints.save(new_state(9, 9), CONFIG, 9.0)
    checkpoints.close()
    best = [n for n in np.argsort([x or np.inf for x in losses])[: keep[1]] + 1 if losses[n - 1]]
    newest = [len(losses)] if keep[0] > 1 else []
    assert checkpoints.steps() == sorted({*best, *newest, 9})


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


def test_what_does_not_change_the_network_may_change_and_is_told(tmp_path, capsys):
    save(tmp_path, [None])
    restore(tmp_path)
    assert capsys.readouterr().out == ""
    config = tiny_config("stunet", model__dtype="bfloat16", train__num_steps=99, seed=5)
    config.optimizer.learning_rate = 1e-9
    config.text.folder, config.text.dtype = "elsewhere", "float32"
    config.diffusion.log_snr_shift = -1.5
    assert int(restore(tmp_path, config).step) == 1
    told = capsys.readouterr().out.splitlines()
    assert "resumed with train.num_steps=99, formerly 4" in told and len(told) == 7
    assert "resumed with diffusion.log_snr_shift=-1.5, formerly -6.0" in told


@pytest.mark.parametrize("field, value", [("factor", 2), ("noise_on", "low_resolution")])
def test_another_task_of_super_resolution_is_refused(tmp_path, field, value):
    save(tmp_path, [None], config=tiny_config("ssr"))
    config = tiny_config("ssr", **{f"ssr__{field}": value})
    with pytest.raises(UserError, match=f"has ssr.{field}=.*, but this run asks for {value!r}"):
        restore(tmp_path, config)
    saved = tiny_config("t2i_ssr").to_dict()  # as at the start from the stage before
    with pytest.raises(UserError, match=f"ssr.{field}=.*{value!r}"):
        checkpoint.check_same_fields(saved, config, checkpoint.INHERITED_FIELDS, tmp_path, "x")


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
    save(tmp_path, [None, None])
    files = [tmp_path / "checkpoints" / str(step) / "config" / "metadata" for step in (1, 2)]
    whole = [file.read_text() for file in files]
    for file in files:
        file.write_text("{")
    for _ in range(2):  # and the second try is none either
        with pytest.raises(UserError, match="no checkpoint in .* can be read"):
            restore(tmp_path)
    for file, text in zip(files, whole, strict=True):
        file.write_text(text)
    assert int(restore(tmp_path).step) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ema: ema | {"more": jnp.zeros(3)}, r"holds nothing as more, .*asks for \[3\]"),
        (
            lambda ema: jax.tree.map(lambda leaf: leaf[:1], ema),
            r"holds \[5\] as .*bias.*asks for \[1\]",
        ),
    ],
)
def test_arrays_of_another_config_are_refused_and_no_damage(tmp_path, change, message):
    save(tmp_path, [None])
    state = new_state()
    other = dataclasses.replace(state, ema=change(state.ema))
    with pytest.raises(UserError, match=message):
        restore(tmp_path, state=other)
    assert int(restore(tmp_path).step) == 1


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
