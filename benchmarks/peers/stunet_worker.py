"""Runs a space-time U-Net of ours by the same protocol as `torch_worker.py`."""

import argparse
import functools
import json
import resource
import sys
import time
from typing import TextIO

from lumiere_jax.runtime import devices

TEXT_LENGTH, TEXT_DIM = 24, 768
SAMPLING_STEPS = 4


def peak() -> int:
    """The most memory of this process, without its parent's, in bytes; of the GPU if it has one."""
    import jax

    if jax.default_backend() != "cpu":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tell(answers: TextIO, **values: object) -> None:
    print(json.dumps(values), file=answers, flush=True)


def main() -> None:
    """Builds the network, then answers requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fields", type=json.loads, required=True, help="of STUNet")
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--frozen", action="store_true", help="train temporal parameters alone")
    parser.add_argument("--one_device", action="store_true", help="instead of one per core")
    parser.add_argument("--bfloat16", action="store_true", help="computed so; float32 if not given")
    given = parser.parse_args()
    if not given.one_device:
        devices.split_cpu()

    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from matching import create

    from lumiere_jax.models.parameters import merge, partition
    from lumiere_jax.models.stunet import is_temporal

    answers, sys.stdout = sys.stdout, sys.stderr
    network = create(given.fields).clone(dtype=jnp.bfloat16 if given.bfloat16 else jnp.float32)
    mesh = Mesh(np.array(jax.devices()), ("clips",))
    if given.batch % mesh.size:
        raise SystemExit(f"a batch of {given.batch} cannot be split over {mesh.size} devices")
    by_clip = NamedSharding(mesh, PartitionSpec("clips"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    rng = np.random.default_rng(0)
    shape = (given.batch, given.frames, given.size, given.size, 3)
    text_shape = (given.batch, TEXT_LENGTH, TEXT_DIM)
    video, text = (
        jax.device_put(rng.normal(size=size).astype(np.float32), by_clip)
        for size in (shape, text_shape)
    )
    times = jax.device_put(rng.uniform(size=given.batch).astype(np.float32), by_clip)
    params = jax.jit(network.init)(jax.random.key(0), video[:1], times[:1], text[:1])["params"]
    params = jax.device_put(params, everywhere)

    # What is captured in place of given would be a constant: whole on every device.
    def predict(params: dict, z: jax.Array, times: jax.Array, text: jax.Array) -> jax.Array:
        return network.apply({"params": params}, z, times, text)

    def sampled(params: dict, noise: jax.Array, times: jax.Array, text: jax.Array) -> jax.Array:
        def step(z: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            x0 = jnp.clip(predict(params, z, times, text), -1, 1)
            return x0 + (1 - (number + 1) / SAMPLING_STEPS) * (z - x0), None

        return jax.lax.scan(step, noise, jnp.arange(SAMPLING_STEPS))[0]

    optimizer = optax.adamw(1e-3)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(
        trainable: dict, state: object, frozen: dict, video: jax.Array, *given: jax.Array
    ) -> tuple[dict, object]:
        def loss(trainable: dict) -> jax.Array:
            predicted = predict(merge(trainable, frozen), video, *given)
            return jnp.square(predicted - video).mean()

        updates, state = optimizer.update(jax.grad(loss)(trainable), state, trainable)
        return optax.apply_updates(trainable, updates), state

    forward, sample = jax.jit(predict), jax.jit(sampled)
    tell = functools.partial(_tell, answers)
    tell(parameters=sum(x.size for x in jax.tree.leaves(params)), peak=peak())
    held = {"params": params}
    del params

    def run(name: str) -> None:
        if name == "train":
            if "params" in held:  # no copy stays: many networks wait in memory for their turn
                trainable, held["frozen"] = partition(
                    held.pop("params"), lambda path: not given.frozen or is_temporal(path)
                )
                # Where the step leaves it, or the second step would compile again.
                init = jax.jit(optimizer.init, out_shardings=everywhere)
                held["state"] = (trainable, init(trainable))
                del trainable
            made = train(*held.pop("state"), held["frozen"], video, times, text)
            held["state"] = jax.block_until_ready(made)
        else:
            chosen = {"forward": forward, "sample": sample}[name]
            jax.block_until_ready(chosen(held["params"], video, times, text))

    for line in sys.stdin:
        begin = time.perf_counter()
        run(json.loads(line)["run"])
        seconds = time.perf_counter() - begin
        tell(seconds=seconds, peak=peak())


if __name__ == "__main__":
    main()
