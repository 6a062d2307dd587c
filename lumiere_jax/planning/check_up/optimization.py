"""Whether the optimizer gets going, and moves what starts at zero."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lumiere_jax.cascade.config import OptimizerConfig, StageConfig
from lumiere_jax.planning.check_up.finding import Finding, at_least, at_most
from lumiere_jax.training.optimizer import create_optimizer

_STEPS, _RATE = 10, 1e-4
_SIDE = 8  # of the matrix


def warm_up(config: StageConfig) -> Iterator[Finding]:
    """Which part of the run the learning rate rises for."""
    steps, rising = config.train.num_steps, config.optimizer.warmup_steps
    yield Finding(
        "warm-up",
        f"{rising:,} of {steps:,} steps",
        at_most(rising / steps, 0.2, 0.5),
        "most of the run is at a rate below the learning rate: "
        f"--config.optimizer.warmup_steps={max(steps // 20, 1)}",
    )


def zero_start(config: OptimizerConfig) -> Iterator[Finding]:
    """How far a projection that starts at zero moves a step, by steps with the real optimizer.

    Temporal layers begin so. Steps in proportion to a parameter would leave them where they are.
    """
    moved = _moved(config)
    yield Finding(
        "what starts at zero",
        f"moves {moved:.2g} of the learning rate a step with {config.name}",
        at_least(moved, 0.1, 0.01),
        "temporal layers start at zero and would stay near it: check config.optimizer, "
        "gradient_clip above all",
    )


def _moved(config: OptimizerConfig) -> float:
    """RMS after a few steps along one gradient, of the learning rates' sum."""
    steady = dataclasses.replace(config, warmup_steps=1, decay="constant", learning_rate=_RATE)
    optimizer = create_optimizer(steady, _STEPS)
    params = {"kernel": jnp.zeros((_SIDE, _SIDE))}
    gradients = {"kernel": jnp.eye(_SIDE) + 1.0}

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=_STEPS)[0])
    kernel = run((params, optimizer.init(params)))[0]["kernel"]
    distance = float(jnp.sqrt(jnp.mean(jnp.square(kernel))))
    return distance / (_RATE * (_STEPS - 1))  # the first step is of the warm-up, at rate 0
