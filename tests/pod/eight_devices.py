"""Compares sharded with unsharded computation on 8 virtual devices; prints JSON.

A program of its own, because the number of devices is fixed when JAX starts.
"""

import collections
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.sources import create_source
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime import sharding
from lumiere_jax.runtime.sharding import by_clip, create_mesh, global_batch, replicated
from lumiere_jax.training import samples
from lumiere_jax.training.initialization import initial_state
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.step import compile_step
from tests.tiny_runs import tiny_config
from tests.warm_python import run_on_devices

ROUNDING = 2e-4  # of the largest value; sums over devices have another order
ONE = {"data": 1, "fsdp": 1, "space": 1}


def mesh_of(sizes: dict[str, int]):
    """A mesh of the first devices."""
    count = int(np.prod(list(sizes.values())))
    return create_mesh(ConfigDict(sizes), jax.devices()[:count])


def perturbed(state: TrainState) -> TrainState:
    """Parameters without the zeros of their start, the same on every mesh."""

    def add(path, leaf):
        name = jax.tree_util.keystr(path)
        rng = np.random.default_rng(sum(name.encode()))
        noise = jnp.asarray(0.02 * rng.normal(size=leaf.shape), leaf.dtype)
        return jax.device_put(leaf + noise, leaf.sharding)

    trainable = jax.tree_util.tree_map_with_path(add, state.trainable)
    return state.replace(
        trainable=trainable, frozen=jax.tree_util.tree_map_with_path(add, state.frozen)
    )


def train_one_step(config: ConfigDict, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Loss, gradient norm and updated parameters after one step on a mesh."""
    stage, mesh = Stage.from_config(config), mesh_of(sizes)
    # Plain SGD: Adam's first step is the gradient's sign, which rounding can turn round.
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = perturbed(initial_state(stage, optimizer, mesh))
    source = create_source(config.data, "train")
    batches = data_pipeline.train_batches(
        source, stage.text_encoder, batch_size=8, seed=0, crop=stage.crop
    )
    batch = global_batch(next(batches), mesh)
    state, metrics = compile_step(stage, optimizer, mesh, state, batch)(state, batch)
    split = [leaf for leaf in jax.tree.leaves(state.optimizer) if "fsdp" in leaf.sharding.spec]
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.trainable)
    }
    scalars = {name: np.asarray(metrics[name]) for name in ("loss", "gradient_norm")}
    return {"split_leaves": np.asarray(len(split)), **scalars, **leaves}


def sample(
    config: ConfigDict, sizes: dict[str, int], batch: int, frames: int, guidance: str = "cfg"
) -> np.ndarray:
    """A sampled or refined clip, computed on a mesh."""
    stage, mesh = Stage.from_config(config), mesh_of(sizes)
    state = perturbed(initial_state(stage, create_optimizer(config.optimizer, 10), mesh_of(ONE)))
    params = jax.device_put(merge(state.trainable, state.frozen), replicated(mesh))
    options = SamplingOptions(num_steps=2, guidance_scale=2.0, guidance=guidance)
    text, mask = stage.text_encoder(["a red circle"] * batch)
    inputs = Inputs(text, mask, sample_keys(list(range(batch)), 0))
    if stage.is_super_resolution:
        size = config.data.resolution // config.ssr.factor
        low = np.random.default_rng(0).uniform(-1, 1, (batch, frames, size, size, 3))
        inputs = inputs._replace(video=low.astype(np.float32))
    return np.asarray(StageSampler(stage, options, frames)(params, inputs, mesh))


def training_samples(sizes: dict[str, int]) -> tuple[np.ndarray, int, int]:
    """Samples of a training run on a mesh: clips, bytes on the fullest device, clips decoded."""
    config = tiny_config("ssr", allow_untrained_start=True)
    config.train.trainable = "all"
    stage, mesh, held, decoded = Stage.from_config(config), mesh_of(sizes), [], []
    state = perturbed(initial_state(stage, create_optimizer(config.optimizer, 10), mesh_of(ONE)))
    params = jax.device_put(merge(state.trainable, state.frozen), replicated(mesh))
    del state
    before = bytes_held()

    class Watched(MovingShapes):
        def example(self, index, seed=0):
            decoded.append(index)
            return super().example(index, seed)

    look = lambda *_: held.append(max((bytes_held() - before).values()))  # noqa: E731
    data = config.data
    source = Watched(data.num_frames, data.resolution, split="test")
    shown = samples.choose(stage, source)
    look()
    videos = samples.sample(shown, params, mesh, between=look)
    look()
    return videos, max(held), len(decoded)


def bytes_held() -> collections.Counter:
    """Bytes of all arrays by device."""
    held = collections.Counter()
    for array in jax.live_arrays():
        shape = array.sharding.shard_shape(array.shape)
        for device in array.sharding.device_set:
            held[device.id] += math.prod(shape) * array.dtype.itemsize
    return held


def bytes_to_pick() -> float:
    """What a device needs to hand out one of eight rows, by the compiler, in rows."""
    mesh = mesh_of({"data": 4, "fsdp": 2, "space": 1})
    batch = jax.ShapeDtypeStruct((8, 2**16), jnp.float32, sharding=by_clip(mesh))
    picked = jax.jit(sharding.pick_row, out_shardings=replicated(mesh)).lower(batch, 0).compile()
    memory = picked.memory_analysis()
    return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**18


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.max(np.abs(first - second)) / max(np.max(np.abs(first)), 1e-6))


def compare(what: str) -> dict:
    """Runs this program in a process of its own; called by the tests."""
    return run_on_devices(8, "tests.pod.eight_devices", what)


def main() -> None:
    """Runs the comparison that the argument names."""
    sharding._SMALLEST_SPLIT = 2**8  # so that the narrow network has something to split
    result = {}
    if sys.argv[1] == "training":
        config = tiny_config("stunet", allow_untrained_start=True)
        config.train.batch_size = 8
        config.train.trainable = "all"
        expected = train_one_step(config, ONE)
        got = train_one_step(config, {"data": 2, "fsdp": 2, "space": 2})
        result["split"] = int(got.pop("split_leaves"))
        for name, value in got.items():
            key = name if name in ("loss", "gradient_norm") else "parameters"
            result[key] = max(result.get(key, 0.0), difference(expected[name], value))
    else:
        base = tiny_config("stunet", allow_untrained_start=True)
        base.train.trainable = "all"
        base.data.resolution = 32  # 8 rows at the coarsest level
        # Lengths and products of a clip whose rows are split.
        expected = sample(base, ONE, 1, 8, "apg")
        spread = sample(base, {"data": 1, "fsdp": 1, "space": 8}, 1, 8, "apg")
        result["height"] = difference(expected, spread)
        ssr = tiny_config("ssr", allow_untrained_start=True)
        ssr.train.trainable = "all"
        expected = sample(ssr, ONE, 2, 20)
        spread = sample(ssr, {"data": 2, "fsdp": 1, "space": 4}, 2, 20)
        result["windows"] = difference(expected, spread)
        expected, alone, result["decoded"] = training_samples(ONE)
        spread, together, decoded = training_samples({"data": 4, "fsdp": 2, "space": 1})
        result["samples"], result["held"] = difference(expected, spread), together / alone
        result["decoded"] += decoded
        result["picked"] = bytes_to_pick()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
