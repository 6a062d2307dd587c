"""Loads a T5 encoder onto 8 virtual devices and embeds with it; prints JSON.

A program of its own, because the number of devices is fixed when JAX starts.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.runtime import sharding
from lumiere_jax.runtime.safetensors_reading import TensorFiles
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.text import T5TextEncoder, t5_weights
from lumiere_jax.text.t5_network import read_architecture
from tests.warm_python import run_on_devices

PROMPTS = ["a large red circle", "", "a small blue square moving up", "größer " * 9, "a"] * 3


class Counting(TensorFiles):
    """Counts the numbers that are read."""

    count = 0

    def read_slice(self, name, index):
        part = super().read_slice(name, index)
        self.count += part.size
        return part


def loading(folder: Path) -> dict:
    """What is read for a mesh of which this process might have all devices, or two."""
    files, architecture = Counting(folder), read_architecture(folder / "config.json")
    mesh = create_mesh(ConfigDict({"data": 1, "fsdp": 8, "space": 1}))
    params = t5_weights.load(files, architecture, jnp.float32, mesh)
    leaves = jax.tree.leaves(params)
    held = [shard.data.size for leaf in leaves for shard in leaf.addressable_shards]
    return {
        "read": files.count,
        "held": sum(held),
        "parameters": sum(leaf.size for leaf in leaves),
        "split": sum(leaf.size for leaf in leaves if not leaf.is_fully_replicated),
    }


def embeddings(folder: Path) -> np.ndarray:
    """Of all prompts, and of one by itself, on the mesh of this process."""
    encoder = T5TextEncoder(str(folder), 16, 24, "float32")
    found, mask = encoder(PROMPTS)
    alone, _ = encoder(PROMPTS[2:3])
    assert (alone[0] == found[2]).all() and (found[2] == found[12]).all()
    assert not found[~mask].any()
    return found


def result_of(folder: Path, devices: int) -> dict:
    """Runs this program in a process of its own; called by the tests."""
    return run_on_devices(devices, "tests.text.eight_devices", folder)


def main() -> None:
    """Loads and embeds."""
    sharding._SMALLEST_SPLIT = 2**6  # so that the small encoder has something to split
    folder = Path(sys.argv[1])
    result = {"embeddings": embeddings(folder).tolist(), "devices": jax.device_count()}
    if jax.device_count() == 8:
        result |= loading(folder)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
