"""Runs of the tiny configs that claims train: each once, in a folder that all claims share."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from lumiere_jax import checkpoint, cpu_devices
from lumiere_jax.atomic import written
from lumiere_jax.config import ConfigDict
from lumiere_jax.data.sources import create_source
from lumiere_jax.train import train

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> None:
    """Sets JAX up for small networks on this machine; before it is used.

    Args:
      folder: of the runs; compiled programs are kept in it, since runs of several seeds share them.
    """
    cpu_devices.one_a_core()
    if not jax.config.jax_platforms:  # too late for the environment: JAX is imported
        jax.config.update("jax_platforms", "cpu")
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(folder.resolve() / "compiled"))


def config_of(stage: str, variant: str) -> ConfigDict:
    """The config of a stage, from `configs/`."""
    spec = importlib.util.spec_from_file_location(stage, ROOT / "configs" / f"{stage}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def tiny_config(stage: str, seed: int, steps: int = 0) -> ConfigDict:
    """The tiny config of a stage, which neither evaluates nor samples on its way.

    Args:
      stage: its name.
      seed: of the run.
      steps: 0 for those of the config.
    """
    config = config_of(stage, "tiny")
    config.seed = seed
    config.train.eval_every = config.train.sample_every = 0
    config.train.num_steps = steps or config.train.num_steps
    return config


def train_once(config: ConfigDict, workdir: Path) -> Path:
    """Trains a run, or what is left of it; returns its workdir."""
    if not (workdir / checkpoint.FOLDER / str(config.train.num_steps)).is_dir():
        print(f"== training {workdir} ==", flush=True)
        train(config, workdir)
    return workdir


def image_run(folder: Path, seed: int, steps: int = 0) -> Path:
    """The text-to-image run of a seed, which all claims inflate."""
    config = tiny_config("t2i", seed, steps)
    return train_once(config, folder / f"t2i_{config.train.num_steps}_seed{seed}")


def video_run(
    folder: Path, seed: int, trainable: str = "temporal", image_steps: int = 0, steps: int = 0
) -> Path:
    """A run inflated from `image_run`.

    Args:
      folder: of the runs.
      seed: of both runs.
      trainable: "temporal", or "all" to train the image weights as well.
      image_steps: of the image run; 0 for those of its config.
      steps: likewise of this run.
    """
    config = tiny_config("stunet", seed, steps)
    config.init_from = str(image_run(folder, seed, image_steps))
    config.train.trainable = trainable
    name = f"stunet_{trainable}_{config.train.num_steps}_seed{seed}"
    return train_once(config, folder / name)


def held_out(config: ConfigDict, count: int) -> tuple[np.ndarray, list[str]]:
    """The first clips of the test split, `[count, time, height, width, 3]`, and their captions."""
    source = create_source(config.data, "test")
    videos, captions = zip(*(source.example(index) for index in range(count)), strict=True)
    return np.stack(videos), list(captions)


def sampled(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Clips from a file, or made and kept there; float32."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        videos = np.asarray(make(), np.float32)
        with written(path) as temporary:
            np.save(temporary, videos)
    return np.load(path)
