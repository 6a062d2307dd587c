"""What the claims that train networks share: runs of the tiny configs, kept results, sections.

The scripts beside this file use it; see `initialization.py` and `key_frames.py`.
"""

import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lumiere_jax import checkpoint, cpu_devices
from lumiere_jax.atomic import write_text
from lumiere_jax.config import ConfigDict
from lumiere_jax.data.sources import create_source
from lumiere_jax.errors import UserError
from lumiere_jax.initial import initial_state
from lumiere_jax.pipeline import LumierePipeline
from lumiere_jax.sharding import create_mesh
from lumiere_jax.stage import Stage
from lumiere_jax.state import TrainState, create_optimizer, merge
from lumiere_jax.train import train

ROOT = Path(__file__).parents[2]
Result = dict[str, Any]


def start(runs: Path) -> None:
    """Sets JAX up for small networks on this machine; before it is used.

    Args:
      runs: folder of the runs; compiled programs are kept in it, since runs of other seeds and
        initialisations share most of them.
    """
    cpu_devices.for_small_networks()
    if not jax.config.jax_platforms:  # too late for the environment: JAX is imported
        jax.config.update("jax_platforms", "cpu")
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(runs.resolve() / "compiled"))


def tiny_config(stage: str, seed: int) -> ConfigDict:
    """The tiny config of a stage, which neither evaluates nor samples on its way."""
    spec = importlib.util.spec_from_file_location(stage, ROOT / "configs" / f"{stage}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("tiny")
    config.seed = seed
    config.train.eval_every = config.train.sample_every = 0
    return config


def train_once(config: ConfigDict, workdir: Path) -> Path:
    """Trains a run, or what is left of it; returns its workdir."""
    if not (workdir / checkpoint.FOLDER / str(config.train.num_steps)).is_dir():
        print(f"== training {workdir} ==", flush=True)
        train(config, workdir)
    return workdir


def image_run(runs: Path, seed: int, steps: int = 0) -> Path:
    """The text-to-image run that all claims inflate, trained if it is missing.

    Args:
      runs: folder of the runs.
      seed: of the run.
      steps: 0 for those of the config.
    """
    config = tiny_config("t2i", seed)
    config.train.num_steps = steps or config.train.num_steps
    return train_once(config, runs / f"t2i_{config.train.num_steps}_seed{seed}")


def untrained(config: ConfigDict) -> tuple[Stage, TrainState, Mesh]:
    """A stage as it is before its first step."""
    stage, mesh = Stage.from_config(config), create_mesh(config.mesh)
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    return stage, initial_state(stage, optimizer, mesh), mesh


def untrained_pipeline(config: ConfigDict) -> LumierePipeline:
    """A pipeline of a stage before its first step."""
    stage, state, _ = untrained(config)
    device = jax.local_devices()[0]
    params = jax.device_put(merge(state.ema, state.frozen), device)
    return LumierePipeline((stage, params))


def held_out(config: ConfigDict, count: int) -> tuple[np.ndarray, list[str]]:
    """The first clips of the test split, `[count, time, height, width, 3]`, and their captions."""
    source = create_source(config.data, "test")
    videos, captions = zip(*(source.example(index) for index in range(count)), strict=True)
    return np.stack(videos), list(captions)


def kept(path: Path, settings: Mapping[str, Any], compute: Callable[[], Result]) -> Result:
    """A result from its file, or computed and written there.

    Args:
      path: of the JSON file.
      settings: what the result depends on, beside the code.
      compute: makes the result.

    Raises:
      UserError: if the file is of other settings.
    """
    if path.is_file():
        found = json.loads(path.read_text())
        if found["settings"] != dict(settings):
            raise UserError(
                f"{path} was measured with {found['settings']}, but this run asks for "
                f"{dict(settings)}; give another --output, or remove the file."
            )
        print(f"{path} is there already", flush=True)
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    result = compute()
    found = {
        "settings": dict(settings),
        "machine": machine(),
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - begin),
        **result,
    }
    write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def read_kept(folder: Path) -> list[Result]:
    """All results of a folder, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def machine() -> str:
    """Cores, processor and version of JAX, in words."""
    name, cores = platform.machine(), os.cpu_count()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return f"{cores} CPU cores ({name}), jax {jax.__version__}"


def machine_line(results: Sequence[Result]) -> str:
    """Where and when results were measured."""
    machines = sorted({result["machine"] for result in results})
    dates = sorted({result["date"] for result in results})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {days} on {' and on '.join(machines)}."


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """The median of some seeds and, in brackets, the range."""
    values = [float(value) for value in values]
    if len(values) == 1:
        return format(values[0], form)
    low, high = (format(value, form) for value in (min(values), max(values)))
    return f"{format(float(np.median(values)), form)} ({low} to {high})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def section(title: str, command: str, where: str, body: str, pictures: Sequence[str]) -> str:
    """A section of Markdown.

    Args:
      title: its heading.
      command: that makes its figures.
      where: a line about the machine, see `machine_line`.
      body: text and tables.
      pictures: paths, relative to the document.
    """
    shown = [f"![{Path(picture).stem.replace('_', ' ')}]({picture})" for picture in pictures]
    return "\n\n".join([f"## {title}", f"    {command}", where, body, *shown]) + "\n"
