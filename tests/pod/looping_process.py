"""A loop over a small product on all devices of all processes: what test_processes.py runs."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lumiere_jax.runtime import distributed, errors
from lumiere_jax.runtime.preemption import Interruption
from lumiere_jax.runtime.sharding import AXES
from lumiere_jax.runtime.watchdog import Watchdog

STEPS = flags.DEFINE_integer("steps", 3, "")
START = flags.DEFINE_integer("start_timeout", 600, "")
HEARTBEAT = flags.DEFINE_integer("heartbeat_timeout", 1000, "")
WATCHDOG = flags.DEFINE_float("watchdog", 600, "")
CADENCE = flags.DEFINE_bool("cadence", False, "Whether to say what is due by the clock.")
COLLECTIVE = flags.DEFINE_bool("collective", True, "Whether the processes need each other.")


def make_step():
    """The state and the step: a product and its mean, over the devices of all processes."""
    devices = jax.devices() if COLLECTIVE.value else jax.local_devices()
    mesh = Mesh(np.array(devices).reshape(-1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    state = jax.jit(lambda: jnp.ones((len(devices), 8)), out_shardings=sharding)()

    @jax.jit
    def step_function(state):
        return state @ jnp.eye(8) + 0 * state.mean(axis=0) + 1, state.mean()

    return mesh, state, step_function


def steps_saved():
    """The steps that are saved every three minutes, if the second clock is twice as fast."""
    from lumiere_jax.cascade.config import TrainConfig
    from lumiere_jax.training.cadence import Cadence

    pace = 60.0 * (1 + jax.process_index())
    settings = TrainConfig(num_steps=8, log_every=1, checkpoint_minutes=3.0)
    cadence = Cadence(settings, map(pace.__mul__, itertools.count()).__next__)
    return [step for step in range(1, 9) if cadence.at(step).saves]


def loop():
    """Counts steps until it is stopped."""
    mesh, state, step_function = make_step()
    if COLLECTIVE.value:
        distributed.say(distributed.start_report(mesh, jax.device_count()))
        votes = distributed.agree(True), distributed.agree(distributed.is_primary())
        print("agreed", *votes)
        names = "the same name", f"process {jax.process_index()}"
        print("same", *(distributed.is_same_everywhere(name) for name in names))
    if CADENCE.value:
        print("saved", *steps_saved())
    jax.block_until_ready(step_function(state))  # compiled before anybody watches
    with Watchdog(WATCHDOG.value, "the loop") as watchdog, Interruption() as interruption:
        for step in range(1, STEPS.value + 1):
            state, mean = step_function(state)
            print(f"step {step} mean {float(mean):.0f}")
            watchdog.beat(f"step {step}")
            time.sleep(0.02)
            try:
                interruption.poll()
            except errors.Preempted:
                print(f"preempted at step {step}")
                raise
    print("done")


def main(argv):
    """Joins the other processes and loops."""
    del argv
    timeouts = {"start_timeout_s": START.value, "heartbeat_timeout_s": HEARTBEAT.value}
    with distributed.joined(False, shutdown_timeout_s=100, **timeouts):
        loop()


if __name__ == "__main__":
    errors.run(main)
