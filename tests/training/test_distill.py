"""Distillation of a trained stage: its rounds, resuming, and what its checkpoint is."""

import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.training import samples
from lumiere_jax.training.distill import rounds
from lumiere_jax.training.initialization import initial_params, initial_state
from lumiere_jax.training.optimizer import create_optimizer
from tests.tiny_runs import assert_same_arrays, distil, metric, saved_arrays, tiny_config, train

PROMPT = "a large red circle moving right"
STEPS = 2


def distill_config(teacher, **fields):
    """Two rounds, from 4 steps to 2 to 1, of two updates each."""
    config = importlib.import_module("configs.distill").get_config(f"from={teacher}")
    fields = {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(
        {
            "train.num_steps": STEPS,
            "train.checkpoint_every": 1,
            "train.eval_every": 0,
            "train.sample_every": 0,
            "distillation.start_steps": 4,
            "distillation.steps": (2, 1),
            "distillation.guidance_scale": 2.0,
        }
        | fields
    )
    return config.lock()  # as flags leave it


def flat(workdir):
    return {path: np.asarray(x) for path, x in flatten_dict(checkpoint.load(workdir)[1]).items()}


@pytest.fixture(name="teacher", scope="module")
def fixture_teacher(tmp_path_factory):
    """A checkpoint of the smallest space-time U-Net, of random weights."""
    workdir = tmp_path_factory.mktemp("distill") / "teacher"
    config = tiny_config(
        "stunet", allow_untrained_start=True, model__widths=(8,), model__attention_levels=(False,),
        data__num_frames=2, optimizer__name="adamw",
    )  # fmt: skip
    stage, mesh = Stage.from_config(config), create_mesh(config.mesh)
    state = initial_state(stage, create_optimizer(config.optimizer, 4), mesh)
    generator = np.random.default_rng(0)  # layers that start at zero would hide all others
    trained, frozen = jax.tree.map(
        lambda x: x + 0.1 * generator.normal(size=x.shape).astype(x.dtype),
        (state.trainable, state.frozen),
    )
    state = state.replace(step=state.step + 4, trainable=trained, ema=trained, frozen=frozen)
    checkpoints = checkpoint.Checkpointer(workdir, keep_last=1, keep_best=0)
    checkpoints.save(state, config)
    checkpoints.close()
    return workdir


@pytest.fixture(name="student", scope="module")
def fixture_student(teacher, tmp_path_factory):
    """Two uninterrupted rounds."""
    workdir = tmp_path_factory.mktemp("distill") / "student"
    distil(distill_config(teacher), workdir)
    return workdir


class Interruption(Exception):
    pass


def test_interrupted_rounds_go_on_bit_for_bit(teacher, student, tmp_path, monkeypatch, capsys):
    """Stopped after the first update of each round, and the teacher's folder is gone then."""
    workdir = tmp_path / "student"
    for place in ("round_2", "."):

        def interrupt(shown, stage, params, step, folder, *others, place=place):
            if folder.resolve() == (workdir / place).resolve():
                raise Interruption

        config = distill_config(teacher, train__sample_every=1)
        config.init_from = str(teacher if place == "round_2" else tmp_path / "moved")
        with monkeypatch.context() as patch, pytest.raises(Interruption):
            patch.setattr(samples, "write_training_samples", interrupt)
            distil(config, workdir)
        assert list(metric(workdir / place, "loss")) == [1]
    config.train.sample_every = 0
    distil(config, workdir)
    assert capsys.readouterr().out.count("restored step 1") == 2
    for name in ("round_2", "."):
        for step in (1, STEPS):
            ours = saved_arrays(workdir / name, step)
            assert_same_arrays(ours, saved_arrays(student / name, step))
        losses = metric(workdir / name, "loss")
        assert losses == metric(student / name, "loss") and min(losses.values()) > 1e-4


def test_a_student_is_a_checkpoint_that_samples_in_few_steps_without_guidance(student):
    for place, steps in ((student / "round_2", 2), (student, 1)):
        config, _, step = checkpoint.load(place)
        assert (config.stage, step) == ("stunet", STEPS)
        options = SamplingOptions.from_config(config)
        assert (options.sampler, options.num_steps, options.guidance_scale) == ("ddim", steps, 1)
    videos = LumierePipeline.from_checkpoints(student, show_progress=False)([PROMPT])
    assert videos.shape == (1, 2, 16, 16, 3) and np.abs(videos).max() <= 1


def test_the_image_weights_stay_and_each_round_starts_from_the_one_before(teacher, student):
    before, first, last = (flat(p) for p in (teacher, student / "round_2", student))
    assert before.keys() == first.keys() == last.keys()
    for path, leaf in before.items():
        if not is_temporal(path):
            assert leaf.tobytes() == first[path].tobytes() == last[path].tobytes()
    moved = [path for path in first if not np.array_equal(first[path], last[path])]
    assert len(moved) > 10
    # The teacher of a round is in its checkpoints: all of what the round before gave.
    place = (student / "checkpoints" / "2" / "teacher").resolve()
    saved = flatten_dict(
        checkpoint._read(place, checkpoint._placed(checkpoint._shapes(place), None))
    )
    assert {path for path in first if is_temporal(path)} == saved.keys()
    for path, leaf in saved.items():
        assert np.asarray(leaf).tobytes() == first[path].tobytes()


@pytest.mark.parametrize("stage", ["ssr", "stunet_conditional"])
def test_other_stages_are_distilled_too(cascade, tmp_path, stage):
    config = distill_config(
        cascade[stage], distillation__steps=(2,), train__eval_every=2, train__num_steps=2
    )
    distil(config, tmp_path)
    assert 0 < metric(tmp_path, "eval_loss")[2] < 10
    assert checkpoint.load_config(tmp_path).sampling.num_steps == 2
    base = tmp_path if stage != "ssr" else cascade["stunet"]
    pipeline = LumierePipeline.from_checkpoints(
        base, [tmp_path] if stage == "ssr" else [], show_progress=False
    )
    if stage == "ssr":
        assert pipeline([PROMPT]).shape == (1, 8, 64, 64, 3)
    else:
        image = np.zeros((16, 16, 3), np.float32)
        assert pipeline.animate(image, [PROMPT]).shape == (1, 8, 16, 16, 3)


@pytest.mark.parametrize("stage", ["stunet", "ssr", "stunet_conditional"])
def test_several_steps_in_one_call(cascade, tmp_path, stage):
    """Stopped after the first update, too; the last layer trains where the image network rests."""
    config = distill_config(
        cascade[stage], distillation__method="parallel", distillation__steps=(2,),
        train__eval_every=2, train__num_steps=1,
    )  # fmt: skip
    distil(config, tmp_path)
    config.train.num_steps = 2
    distil(config, tmp_path)
    assert sorted(metric(tmp_path, "loss")) == [1, 2] and 0 < metric(tmp_path, "eval_loss")[2] < 10
    before, after = flat(cascade[stage]), flat(tmp_path)
    for path, leaf in before.items():
        if path[0] == "conv_out":
            assert after[path].shape == (*leaf.shape[:-1], 2 * leaf.shape[-1])
            assert (after[path] != np.concatenate([leaf, leaf], axis=-1)).any()
        elif not is_temporal(path) and path[0] != "conv_in":
            assert leaf.tobytes() == after[path].tobytes()
    base = tmp_path if stage != "ssr" else cascade["stunet"]
    pipeline = LumierePipeline.from_checkpoints(
        base, [tmp_path] if stage == "ssr" else [], show_progress=False
    )
    image = np.zeros((16, 16, 3), np.float32)
    is_shown = stage == "stunet_conditional"
    video = pipeline.animate(image, [PROMPT]) if is_shown else pipeline([PROMPT])
    size = 64 if stage == "ssr" else 16
    assert video.shape == (1, 8, size, size, 3) and np.isfinite(video).all()
    with pytest.raises(UserError, match="several steps in one call, which can be no teacher"):
        importlib.import_module("configs.distill").get_config(f"from={tmp_path}")


def test_at_its_start_it_says_what_its_teacher_does(teacher):
    config = distill_config(teacher, distillation__method="parallel", distillation__steps=(1,))
    ((config, _),) = rounds(config, "runs/student")
    assert config.model.out_channels == 12
    student, mesh = Stage.from_config(config), create_mesh(config.mesh)
    params = initial_params(student, mesh)
    saved = checkpoint.load_config(teacher)
    stage, before = Stage.from_config(saved), checkpoint.load(teacher)[1]
    z = jax.random.normal(jax.random.key(0), (2, 2, 16, 16, 3))
    text, text_mask = stage.text_encoder([PROMPT] * 2)
    shown = {"text": text, "text_mask": text_mask}
    log_snr = jnp.array([-3.0, 1.0])
    expected = jax.jit(stage.predict)(before, z, log_snr, shown)
    actual = jax.jit(student.predict)(params, z, log_snr, shown)
    np.testing.assert_allclose(actual, expected, atol=1e-5)  # another program, and a mean of equals
    all_steps = functools.partial(student.predict, is_mean=False)
    outputs = jax.jit(all_steps)(params, z, log_snr, shown)
    np.testing.assert_allclose(outputs, jnp.concatenate([expected] * 4, -1), atol=1e-5)


def test_all_parameters_train_if_asked(teacher, tmp_path):
    config = distill_config(
        teacher, distillation__steps=(4,), train__trainable="all", train__num_steps=1
    )
    distil(config, tmp_path)  # one round, of guidance alone
    before, after = flat(teacher), flat(tmp_path)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert any(not is_temporal(path) for path in changed)


def test_rounds(teacher, tmp_path):
    config = distill_config(teacher, distillation__start_steps=32, distillation__steps=(16, 8, 4))
    found = rounds(config, tmp_path)
    assert [str(place) for _, place in found] == [
        str(tmp_path / "round_16"), str(tmp_path / "round_8"), str(tmp_path),
    ]  # fmt: skip
    ones = [one for one, _ in found]
    assert [one.init_from for one in ones] == [
        str(teacher), str(tmp_path / "round_16"), str(tmp_path / "round_8"),
    ]  # fmt: skip
    assert [one.distillation.start_steps for one in ones] == [32, 16, 8]
    assert [tuple(one.distillation.steps) for one in ones] == [(16,), (8,), (4,)]
    assert [one.distillation.guidance_scale for one in ones] == [2.0, 1.0, 1.0]
    assert len({one.seed for one in ones}) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distillation__steps": (3,)}, "4 is no multiple of 3"),
        ({"distillation__steps": (2, 2)}, "2 is no multiple of 2.*divide the one before"),
        ({"distillation__steps": (2, 4)}, "2 is no multiple of 4"),
        ({"distillation__steps": (0,)}, "4 is no multiple of 0"),
        ({"distillation__steps": ()}, "distillation.steps is empty"),
        ({"distillation__weighting": "snr"}, "distillation.weighting 'snr' is unknown"),
        ({"distillation__guidance_scale": -1.0}, "distillation.guidance_scale=-1.0"),
        ({"distillation__method": "parallel"}, r"\(2, 1\): the method 'parallel' has one round"),
        (
            {"distillation__method": "parallel", "distillation__steps": (0,)},
            "4 is no multiple of 0",
        ),
        ({"distillation__method": "other"}, "distillation.method.*other.*progressive"),
        ({"init_from": ""}, "needs a teacher"),
        ({"init_from": "/nowhere"}, "no checkpoint in /nowhere"),
        ({"stage": "t2i"}, "of stage 't2i'; the teacher.*stunet, stunet_conditional, ssr"),
    ],
)
def test_what_cannot_be_distilled(teacher, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        distil(distill_config(teacher, **fields), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_teachers_and_workdirs_that_are_refused(cascade, teacher, student, tmp_path):
    get_config = importlib.import_module("configs.distill").get_config
    with pytest.raises(UserError, match="is a checkpoint of stage 't2i_ssr'; the teacher"):
        get_config(f"from={cascade['t2i_ssr']}")
    with pytest.raises(UserError, match="no checkpoint in .*nowhere"):
        get_config(f"from={tmp_path / 'nowhere'}")
    for variant in (None, "tiny"):
        with pytest.raises(UserError, match="configs/distill.py:from=WORKDIR"):
            get_config(variant)
    config = distill_config(teacher)
    with pytest.raises(UserError, match="is the teacher's; choose another --workdir"):
        distil(config, teacher)
    with pytest.raises(UserError, match="holds a run of stage 'ssr' that is not this distillation"):
        distil(config, cascade["ssr"])
    with pytest.raises(UserError, match="holds a run .* not this distillation; choose another"):
        distil(distill_config(teacher, distillation__steps=(1,)), student)
    with pytest.raises(UserError, match=r"distillation.steps=\(2, 1\) are several rounds"):
        train(config, tmp_path / "run")
    with pytest.raises(UserError, match="of stage 'ssr'; stage 'stunet' starts from another run"):
        one = distill_config(teacher, init_from=str(cascade["ssr"]))
        distil(one, tmp_path / "other")


def test_a_new_config_learns_from_the_guidance_and_data_of_its_teacher(cascade):
    config = importlib.import_module("configs.distill").get_config(f"from={cascade['ssr']}")
    saved = json.loads((cascade["ssr"] / "config.json").read_text())
    assert config.distillation.guidance_scale == saved["sampling"]["guidance_scale"] == 1
    assert config.data.to_dict() | {"mixture": []} == saved["data"] | {"mixture": []}
    assert config.optimizer.learning_rate == pytest.approx(
        0.2 * saved["optimizer"]["learning_rate"]
    )
    assert (config.train.num_steps, config.diffusion.text_dropout) == (1, 0)


def test_a_teacher_whose_steps_are_even_in_log_snr(cascade, monkeypatch, tmp_path):
    saved = checkpoint.load_config(cascade["stunet"])
    saved.sampling.last_log_snr = 10.0
    monkeypatch.setattr(checkpoint, "load_config", lambda place: saved)
    config = importlib.import_module("configs.distill").get_config(f"from={cascade['stunet']}")
    steps = [one.sampling.num_steps for one, _ in rounds(config, tmp_path)]
    assert steps == [16, 8, 4]
    assert config.sampling.last_log_snr == 0 and config.sampling.time_power == 2
