"""A training finds the step that a plan has saved: both make the same key, by shapes or arrays."""

import pytest
from PIL import Image

from lumiere_jax.planning import steps
from lumiere_jax.planning.topology import present
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.program_key import key_parts
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import use_mesh
from lumiere_jax.training import train as training
from tests.tiny_runs import ONE_STEP, tiny_config


class Asked(Exception):
    """For a training step, by the parts of its key."""


class Asking(Programs):
    """Ends a training where it would compile its step."""

    def get(self, function, arguments, about, *rest, name="", **options):
        if name == "training step":
            raise Asked(key_parts(about, arguments))
        return super().get(function, arguments, about, *rest, name=name, **options)


def test_training_asks_for_what_a_plan_saves(tmp_path):
    """A batch of pictures, which are bytes, of which super-resolution takes crops."""
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("black")
    data = {"data__name": "image_folder", "data__folder": str(tmp_path)}
    config = tiny_config("t2i_ssr", **ONE_STEP, **data)
    with pytest.raises(Asked) as asked:
        training.train(config, tmp_path / "run", programs=Asking(CacheFolder.of_user()))
    step = steps.create(config, present(), "train")
    with use_mesh(step.mesh):
        assert key_parts(step.about, step.arguments) == asked.value.args[0]
