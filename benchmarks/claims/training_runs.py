"""Runs of the tiny configs that claims train: each once, in a folder that all claims share."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import report
from absl import flags
from jax.sharding import Mesh

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.sources import create_source
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime import devices
from lumiere_jax.runtime.files import written
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.training.initialization import initial_state
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.train import train

ROOT = Path(__file__).parents[2]
EVALUATIONS, PROMPTS = 10, 4
SHORT = 100  # steps: a run to try things out


def define_flags(steps: int, captions: int, what: str = "each inflated run") -> None:
    """Defines the flags that the scripts share; not on import, so that one process can have all.

    Args:
      steps: default of --steps.
      captions: default of --captions.
      what: is trained for so many steps.
    """
    flags.DEFINE_string("runs", "runs/claims", "Folder of the runs.")
    flags.DEFINE_string("output", report.OUTPUT, "Folder of the results.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
    flags.DEFINE_integer("steps", steps, f"Steps of {what}.", lower_bound=2)
    flags.DEFINE_integer("image_steps", 750, "Steps of each image run.", lower_bound=2)
    flags.DEFINE_integer("captions", captions, "Held-out captions that are used.", lower_bound=2)
    flags.DEFINE_bool("quick", False, "A few steps and captions of seed 0, to try it out.")


def start(folder: Path) -> None:
    """Sets JAX up for small networks on this machine; before it is used.

    Args:
      folder: of the runs; compiled programs are kept in it, since runs of several seeds share them.
    """
    devices.tune_for_small_networks()
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


def tiny_config(stage: str, seed: int) -> ConfigDict:
    """The tiny config of a stage, which neither evaluates nor samples on its way."""
    config = config_of(stage, "tiny")
    config.seed = seed
    config.train.eval_every = config.train.sample_every = 0
    return config


def train_once(config: ConfigDict, workdir: Path) -> Path:
    """Trains a run, or what is left of it; returns its workdir."""
    if not (workdir / checkpoint.FOLDER / str(config.train.num_steps)).is_dir():
        print(f"== training {workdir} ==", flush=True)
        train(config, workdir)
    return workdir


def image_run(folder: Path, seed: int, steps: int) -> Path:
    """The text-to-image run of a seed, which all claims inflate; trained if it is missing."""
    config = tiny_config("t2i", seed)
    config.train.num_steps = steps
    return train_once(config, folder / f"t2i_{steps}_seed{seed}")


def video_config(
    seed: int, steps: int, trainable: str = "temporal", initialization: str = "nearest"
) -> ConfigDict:
    """The config of a run that is inflated, and looked at on its way.

    Args:
      seed: of the run.
      steps: of the run.
      trainable: "temporal", or "all" to train the image weights as well.
      initialization: of temporal resampling.
    """
    config, is_short = tiny_config("stunet", seed), steps < SHORT
    config.train.num_steps, config.train.trainable = steps, trainable
    config.model.temporal_initialization = initialization
    config.train.log_every, config.train.eval_batches = (1, 2) if is_short else (5, 16)
    config.train.eval_every = max(steps // EVALUATIONS, 1)
    config.train.sample_every = max(steps // 2, 1)
    config.sampling.prompts = tuple(held_out(config, PROMPTS)[1])
    return config


def video_workdir(folder: Path, config: ConfigDict, image_steps: int) -> Path:
    """Where a run of a `video_config` is, so that claims share it."""
    kinds = f"{config.train.trainable}_{config.model.temporal_initialization}"
    steps = f"{config.train.num_steps}_after_{image_steps}"
    return folder / f"stunet_{kinds}_{steps}_seed{config.seed}"


def video_run(folder: Path, config: ConfigDict, image_steps: int) -> Path:
    """A run of a `video_config`, inflated from `image_run`; both are trained if they are missing.

    Args:
      folder: of the runs.
      config: of the run; `init_from` is set.
      image_steps: of the image run.
    """
    config.init_from = str(image_run(folder, config.seed, image_steps))
    return train_once(config, video_workdir(folder, config, image_steps))


def untrained(config: ConfigDict) -> tuple[Stage, TrainState, Mesh]:
    """A stage as it is before its first step."""
    stage, mesh = Stage.from_config(config), create_mesh(config.mesh)
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    return stage, initial_state(stage, optimizer, mesh), mesh


def untrained_pipeline(config: ConfigDict) -> LumierePipeline:
    """A pipeline of a stage before its first step."""
    stage, state, _ = untrained(config)
    params = merge(state.ema, state.frozen)
    return LumierePipeline((stage, jax.device_put(params, jax.local_devices()[0])))


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
