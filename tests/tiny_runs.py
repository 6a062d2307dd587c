"""The tiny cascade for tests: the example configs themselves, narrower, for a few steps."""

import fcntl
import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import STAGES
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.training import distill
from lumiere_jax.training import train as training
from tests.warm_python import python

STEPS = 4
RUN = {
    # Layers that start at zero hide the text at first: steps that are large from the start.
    "optimizer.learning_rate": 1e-2,
    "optimizer.name": "adamw",
    "optimizer.warmup_steps": 0,
    "train.num_steps": STEPS,
    "train.batch_size": 2,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "train.eval_every": 0,
    "train.eval_batches": 1,
    "train.sample_every": 0,
    "sampling.num_steps": 2,
    "model.widths": (8, 16),
    "model.embedding_features": 16,
    "model.head_dim": 8,
    "model.groups": 4,
}
UNET = {"model.attention_levels": (False, False), "model.text_features": 16}
SSR = {"model.num_blocks": (1, 1), "model.strides": (2, 2)}
VIDEO = {"train.eval_every": 2, "train.sample_every": STEPS, "optimizer.name": "muon"}
# For `tiny_config`: a network of one level; a run that neither evaluates nor samples.
SMALLEST = {"model__widths": (8,), "model__attention_levels": (False,)}
ONE_STEP = {"train__num_steps": 1, "train__eval_every": 0, "train__sample_every": 0}


def overrides(stage: str) -> dict[str, Any]:
    """What to change in a stage's tiny config, by field, so that it compiles in seconds."""
    sizes = SSR if stage in ("t2i_ssr", "ssr") else UNET
    return RUN | sizes | (VIDEO if stage in ("stunet", "ssr", "stunet_conditional") else {})


def example_config(stage: str, variant: str = "tiny") -> ConfigDict:
    """The config of `configs/`, as it is."""
    return importlib.import_module(f"configs.{stage}").get_config(variant)


def tiny_config(stage: str, init_from: str | Path = "", /, **fields: Any) -> ConfigDict:
    """The tiny config with `overrides` and then `fields`, whose dots are written as `__`."""
    config = example_config(stage)
    fields = {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(overrides(stage) | fields)
    config.init_from = str(init_from) or config.init_from
    return config


def training_command(stage: str, workdir: Path, /, **fields: Any) -> list[str]:
    """The ordinary command for a tiny config, shrunk as by `tiny_config`, but by flags."""
    fields = {name.replace("__", "."): value for name, value in fields.items()}
    flags = [f"--config.{name}={value}" for name, value in (overrides(stage) | fields).items()]
    program = [python(), "-m", "lumiere_jax.main", f"--config=configs/{stage}.py:tiny"]
    return [*program, f"--workdir={workdir}", *flags]


def train(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Trains with the programs that all tests share, as commands do."""
    return training.train(config, workdir, programs=Programs(CacheFolder.of_user()))


def distil(config: ConfigDict, workdir: str | Path) -> TrainState:
    """The same of a distillation."""
    return distill.distil(config, workdir, programs=Programs(CacheFolder.of_user()))


def train_cascade(folder: Path) -> dict[str, Path]:
    """Trains every stage from the one before, once for all test processes."""
    folder.mkdir(exist_ok=True)
    workdirs = {stage: folder / stage for stage in STAGES}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            pictures = {"style": {"data__folder": str(write_pictures(folder / "pictures"))}}
            for stage, before in STAGES.items():
                config = tiny_config(stage, workdirs.get(before, ""), **pictures.get(stage, {}))
                train(config, workdirs[stage])
            (folder / "done").touch()
    return workdirs


def write_pictures(folder: Path) -> Path:
    """A folder of three striped pictures of one style, with captions."""
    folder.mkdir()
    y, x = np.mgrid[:40, :48]
    for number in range(3):
        stripes = np.where((x + (number + 1) * y) // 4 % 2, 250, 20).astype(np.uint8)
        image = np.stack([stripes, 255 - stripes, np.full_like(stripes, 80 * number)], axis=-1)
        Image.fromarray(image).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a picture of stripes, number {number}")
    return folder


def metric(workdir: Path, name: str) -> dict[int, float]:
    """The values of a metric by step."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    values = [(line["step"], line[name]) for line in lines if name in line]
    assert len(dict(values)) == len(values), "a step was written twice"
    return dict(values)


def saved_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by its path, read without the project's own code."""
    place = workdir.resolve() / "checkpoints" / str(step)
    arrays = {}
    for item in ("trainable", "frozen", "ema", "optimizer"):
        if (place / item).is_dir():
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                shapes = reader.metadata(place / item).item_metadata.tree
                as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
                tree = reader.restore(place / item, restore_args=as_numpy)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                arrays[item + jax.tree_util.keystr(path)] = leaf
    assert arrays, f"no checkpoint {place}"
    return arrays


def assert_same_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Both have the same arrays, bit for bit."""
    assert first.keys() == second.keys()
    for path, array in first.items():
        assert array.tobytes() == second[path].tobytes(), path
