import importlib
import json

import pytest

from lumiere_jax.cascade.config import ConfigDict, StageConfig, default_config, with_defaults
from lumiere_jax.cascade.stage import STAGES, Stage
from lumiere_jax.checkpoints.checkpoint import check_same_fields
from lumiere_jax.checkpoints.inheritance import inherit
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.errors import UserError
from tests.tiny_runs import tiny_config

YOUNG = (
    "diffusion.schedule", "diffusion.learned_variance", "sampling.threshold_max",
    "sampling.timestep_spacing", "sampling.time_power", "sampling.last_log_snr",
    "diffusion.interpolated_shift", "imported_from", "text.folder",
    "text.lowercase",
)  # fmt: skip


def old_config(stage):
    """A tiny config as it was saved before the fields existed."""
    saved = tiny_config(stage).to_dict()
    for name in YOUNG:
        *sections, field = name.split(".")
        section = saved
        for part in sections:
            section = section[part]
        del section[field]
    if "ssr" in saved:
        del saved["ssr"]["upsampling"]
    return saved


@pytest.mark.parametrize("stage", STAGES)
def test_old_config_means_what_it_meant(stage):
    saved, now = old_config(stage), tiny_config(stage)
    assert with_defaults(saved) == now.to_dict()
    made = Stage.from_config(ConfigDict(with_defaults(saved)))
    assert made.schedule == Stage.from_config(now).schedule and not made.learned_variance
    prefixes = ("text.", "diffusion.", "model.")
    check_same_fields(with_defaults(saved), now, prefixes, "there", "another")
    now.diffusion.schedule = "discrete"
    with pytest.raises(UserError, match="diffusion.schedule='cosine'.* asks for 'discrete'"):
        check_same_fields(with_defaults(saved), now, prefixes, "there", "another")


def test_saved_values_and_model_fields_stay():
    saved = default_config("t2i").to_dict()
    saved["model"], saved["seed"], saved["other"] = {"name": "unet"}, 7, [1]
    assert with_defaults(saved) == saved
    assert with_defaults({"stage": "of the future"}) == {"stage": "of the future"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_typed_config_says_what_the_file_says(stage):
    config = tiny_config(stage)
    typed = StageConfig.parse(config)
    assert typed.to_dict() == config.to_dict()
    saved = json.dumps(typed.to_dict())
    assert StageConfig.parse(json.loads(saved)).to_dict() == typed.to_dict()
    assert (typed.ssr is None) == (stage not in ("t2i_ssr", "ssr"))
    assert dict(typed.data) == config.data.to_dict() and "distillation" not in typed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "the config has no field colour; it has: stage, seed"),
        ({"train": {"batchsize": 1}}, "no field train.batchsize; train has: batch_size, num_steps"),
        ({"train": {"batch_size": 1.5}}, "train.batch_size=1.5 must be a whole number"),
        ({"train": {"batch_size": True}}, "train.batch_size=True must be a whole number"),
        ({"optimizer": {"learning_rate": "fast"}}, "learning_rate='fast' must be a number"),
        ({"data": {"folder": 3}}, "data.folder=3 must be text"),
        ({"data": {"flip": 1}}, "data.flip=1 must be True or False"),
        ({"data": "videos"}, "data='videos' must be a section"),
        ({"sampling": {"prompts": "a cat"}}, "sampling.prompts='a cat' must be a tuple"),
        ({"sampling": {"prompts": ["a cat", 2]}}, r"sampling.prompts\[1\]=2 must be text"),
        ({"stage": "ssr", "data": {"num_frames": 8}}, "stage 'ssr' lacks the section ssr"),
    ],
)
def test_what_is_not_a_config_is_told_by_the_field(change, message):
    config = {"stage": "t2i", "data": {"num_frames": 1}, "model": {"name": "unet"}}
    assert StageConfig.parse(config).train.batch_size == 16
    with pytest.raises(UserError, match=message):
        StageConfig.parse(config | change)
    with pytest.raises(UserError, match="lacks the field model"):
        StageConfig.parse({"stage": "t2i"})


def test_files_of_users_find_what_moved():
    """A config file, or a script, that was written for version 0.1."""
    names = {
        "config": ("default_config", default_config),
        "errors": ("UserError", UserError),
        "inherited": ("inherit", inherit),
        "pipeline": ("LumierePipeline", LumierePipeline),
    }
    for module, (name, expected) in names.items():
        old = importlib.import_module(f"lumiere_jax.{module}")
        with pytest.warns(DeprecationWarning, match=f"lumiere_jax.{module} is now lumiere_jax[.]"):
            assert getattr(old, name) is expected
        with pytest.raises(AttributeError):
            _ = old.nothing
