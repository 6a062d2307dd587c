"""What an import writes, and what it refuses."""

import json
import shutil
import subprocess
import weakref

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from etils import epath
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.open_weights import importing, names
from lumiere_jax.open_weights.importing import import_weights
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.train import train
from tests.models.diffusers_parity import convert
from tests.warm_python import python

FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", ["t2i", "ssr"])
def test_checkpoint_holds_every_tensor(name, pipelines, workdirs):
    config, params, _ = checkpoint.load(workdirs[name])
    expected = convert(pipelines[name].unet.state_dict(), len(config.model.widths))
    actual = flatten_dict(params, sep="/")
    assert actual.keys() == expected.keys()
    for path, array in expected.items():
        assert actual[path].dtype == np.float32
        np.testing.assert_array_equal(actual[path], array, err_msg=path)


def test_config_says_what_the_directory_says(sources, workdirs):
    stage = Stage.from_config(checkpoint.load_config(workdirs["t2i"]))
    config = stage.config
    assert (config.stage, config.data.resolution) == ("t2i", 32)
    assert config.imported_from == str(sources["t2i"].resolve())
    assert config.text.folder == str(sources["t2i"] / "text_encoder")
    assert (config.text.max_length, config.text.lowercase) == (77, True)
    assert (config.sampling.threshold_percentile, config.sampling.threshold_max) == (95.0, 1.5)
    stage = Stage.from_config(checkpoint.load_config(workdirs["ssr"]))
    assert (stage.name, stage.config.sampling.threshold_max) == ("t2i_ssr", 1.0)
    assert stage.network.layers_per_level == (1, 2)
    assert (stage.config.ssr.factor, stage.config.ssr.augmentation) == (4, 0.25)
    assert stage.config.text.folder == ""


def test_command_rounds_to_bfloat16_and_refuses_a_second_time(sources, workdirs, tmp_path):
    command = [python(), "-m", "lumiere_jax.import_weights", f"--source={sources['t2i']}"]
    command += ["--stage=t2i", f"--workdir={tmp_path / 'half'}", "--dtype=bfloat16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "checkpoint of stage t2i" in done.stdout
    config, params, _ = checkpoint.load(tmp_path / "half")
    whole = flatten_dict(checkpoint.load(workdirs["t2i"])[1])
    assert config.model.dtype == "bfloat16"
    for path, array in flatten_dict(params).items():
        expected = np.asarray(whole[path]).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(array, expected)
    with pytest.raises(UserError, match="has checkpoints already"):
        import_weights(sources["t2i"], "t2i", tmp_path / "half", quiet=True)


def test_a_workdir_below_the_current_folder(sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import_weights(sources["t2i"], "t2i", "runs/if_t2i", quiet=True)
    assert checkpoint.load_config("runs/if_t2i").stage == "t2i"


def test_an_import_is_no_run_to_resume(workdirs):
    config = checkpoint.load_config(workdirs["t2i"])
    config.imported_from, config.text.name = "", "hashed"
    config.text.update({"folder": "", "lowercase": False, "keep_padding": False})
    before = sorted(path.name for path in workdirs["t2i"].rglob("*"))
    with pytest.raises(UserError, match="was imported from .* --config.init_from"):
        train(config, workdirs["t2i"])
    assert set(before) <= {path.name for path in workdirs["t2i"].rglob("*")}


def test_one_array_is_in_memory_at_a_time(tmp_path):
    alive = []

    def deferred(i):
        def read():
            assert all(reference() is None for reference in alive), "an earlier array is kept"
            array = np.random.default_rng(i).normal(size=(64, 1024)).astype("f4")
            alive.append(weakref.ref(array))
            return array

        return importing.Deferred((64, 1024), np.dtype("f4"), read)

    place = epath.Path(tmp_path / "item")
    importing.save_deferred(place, {f"layer_{i}": {"kernel": deferred(i)} for i in range(12)})
    assert len(alive) == 12
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.ShapeDtypeStruct((64, 1024), np.float32, sharding=here)
    tree = checkpoint._read(place, {f"layer_{i}": {"kernel": shape} for i in range(12)})
    for i in range(12):
        expected = np.random.default_rng(i).normal(size=(64, 1024)).astype("f4")
        np.testing.assert_array_equal(tree[f"layer_{i}"]["kernel"], expected)


def test_interrupted_import_leaves_no_checkpoint(sources, tmp_path, monkeypatch):
    original = names.to_ours

    def broken(name, array):
        if name.startswith("mid_block"):
            raise KeyboardInterrupt
        return original(name, array)

    monkeypatch.setattr(names, "to_ours", broken)
    with pytest.raises(KeyboardInterrupt):
        import_weights(sources["t2i"], "t2i", tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.load(tmp_path / "run")
    monkeypatch.undo()
    import_weights(sources["t2i"], "t2i", tmp_path / "run", quiet=True)
    assert checkpoint.load(tmp_path / "run")[2] == 0


def copy(source, folder, path="unet/config.json", **fields):
    """A copy of a directory with fields of a JSON file changed, or removed where None is given."""
    shutil.copytree(source, folder)
    given = json.loads((folder / path).read_text())
    given.update(fields)
    (folder / path).write_text(json.dumps(given))
    return folder


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("unet/config.json", {"rope_theta": 1e4}, "the field 'rope_theta'.*not known"),
        ("unet/config.json", {"act_fn": "mish"}, 'act_fn="mish" is not supported, only "gelu"'),
        ("unet/config.json", {"norm_eps": 1e-6}, "norm_eps=1e-06 is not supported"),
        ("unet/config.json", {"resnet_skip_time_act": False}, "resnet_skip_time_act=false"),
        ("unet/config.json", {"attention_head_dim": [8, 16]}, "only one whole number"),
        ("unet/config.json", {"mid_block_scale_factor": 1.4}, "mid_block_scale_factor=1.4"),
        ("unet/config.json", {"mid_block_only_cross_attention": True}, "=true is not supported"),
        ("unet/config.json", {"up_block_types": ["UpBlock2D"] * 2}, "up_block_types="),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 2}, "down_block_types="),
        ("unet/config.json", {"in_channels": 4}, "in_channels=4.* no stage of DeepFloyd IF"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "'timestep' are of no stage"),
        ("unet/config.json", {"block_out_channels": [32, 96]}, r"shape \(64,.*is needed"),
        ("unet/config.json", {"layers_per_block": 2}, "has shape.*do not belong"),
        ("unet/config.json", {"layers_per_block": 0}, "not of the network that config.json"),
        ("scheduler/scheduler_config.json", {"sigma": 1}, "the field 'sigma'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}, 'beta_schedule="linear"'),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type="),
        ("scheduler/scheduler_config.json", {"steps_offset": 1}, "steps_offset=1"),
    ],
)
def test_what_is_not_understood_is_refused(path, fields, message, sources, tmp_path):
    source = copy(sources["t2i"], tmp_path / "if", path, **fields)
    with pytest.raises(UserError, match=message):
        import_weights(source, "t2i", tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_wrong_stages_are_told(sources, tmp_path):
    for given, is_ in [("t2i", "ssr"), ("ssr", "t2i")]:
        with pytest.raises(UserError, match=f"give --stage={is_}"):
            import_weights(sources[is_], given, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="--stage=stunet is unknown; use one of t2i, ssr"):
        import_weights(sources["t2i"], "stunet", tmp_path / "run", quiet=True)


@pytest.mark.parametrize("name", ["noising", "scheduler", "unet", "everything"])
def test_missing_parts_are_told(name, sources, tmp_path):
    source = shutil.copytree(sources["ssr"], tmp_path / "if")
    part = {"noising": "image_noising_scheduler", "everything": "."}.get(name, name)
    shutil.rmtree(source / part)
    message = "there is no such folder" if name == "everything" else f"{part}.*is missing"
    with pytest.raises(UserError, match=message):
        import_weights(source, "ssr", tmp_path / "run", quiet=True)


def test_tensors_that_do_not_fit_are_told(sources, tmp_path):
    source = shutil.copytree(sources["t2i"], tmp_path / "if")
    tensors = load_file(source / FILE)

    def refused(message, tensors):
        save_file(tensors, source / FILE)
        with pytest.raises(UserError, match=message):
            import_weights(source, "t2i", tmp_path / "run", quiet=True)

    lacking = {name: array for name, array in tensors.items() if name != "conv_in.bias"}
    refused("lacks 1 tensors.*'conv_in.bias'", lacking)
    foreign = tensors | {"down_blocks.0.motion.0.weight": np.zeros(3, "f4")}
    refused("'down_blocks.0.motion.0.weight' is of no layer", foreign)
    refused("'conv_in.gain' is of no layer", tensors | {"conv_in.gain": np.zeros(3, "f4")})
    (source / FILE).unlink()
    torch.save({}, (source / FILE).with_suffix(".bin"))
    with pytest.raises(UserError, match="only diffusion_pytorch_model.bin, a pickle"):
        import_weights(source, "t2i", tmp_path / "run", quiet=True)
