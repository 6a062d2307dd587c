import pytest

from lumiere_jax.cascade.config import ConfigDict, default_config, with_defaults
from lumiere_jax.cascade.stage import STAGES, Stage
from lumiere_jax.checkpoints.checkpoint import check_same_fields
from lumiere_jax.runtime.errors import UserError
from tests.tiny_runs import tiny_config

YOUNG = (
    "diffusion.schedule", "diffusion.learned_variance", "sampling.threshold_max",
    "sampling.timestep_spacing", "sampling.time_power", "imported_from", "text.folder",
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
