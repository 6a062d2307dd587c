"""The optimizer of a training run: clipping, AdamW, Adafactor or Muon, warm-up and decay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from lumiere_jax.cascade.config import OptimizerConfig
from lumiere_jax.models.parameters import Params


def create_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """The optimizer that a config describes; `num_steps` is where the cosine decay ends."""
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.decay == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, rate, warmup, max(num_steps, warmup + 1), 0.0
        )
    else:
        schedule = optax.join_schedules(
            [optax.linear_schedule(0.0, rate, warmup), optax.constant_schedule(rate)], [warmup]
        )
    clip = optax.clip_by_global_norm(config.gradient_clip)
    if config.name == "adamw":
        update = optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay)
    elif config.name == "adafactor":
        # Steps in proportion to a parameter would leave those that start at zero where they are.
        decay = {"weight_decay_rate": lambda count: config.weight_decay * schedule(count)}
        update = optax.adafactor(
            schedule, multiply_by_parameter_scale=False, **decay if config.weight_decay else {}
        )
    else:
        muon = optax.contrib.muon(
            schedule,
            consistent_rms=0.2,  # steps as large as AdamW's (2502.16982), so rates are comparable
            adam_b2=config.b2,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=_matrix_axes,
        )
        return _in_stacks(optax.chain(clip, muon))
    return optax.chain(clip, update)


def _in_stacks(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Hands an optimizer all matrices of one shape as one array, and all vectors as another.

    A few large operations instead of many small ones: Newton-Schulz iterations of every small
    kernel by itself are most of a step of the tiny configs.
    """

    def update(gradients: Params, state: Any, params: Params) -> tuple[Params, Any]:
        updates, state = inner.update(_stack(gradients), state, _stack(params))
        return _unstack(updates, gradients), state

    return optax.GradientTransformation(lambda params: inner.init(_stack(params)), update)


_VECTORS = "vectors"


def _matrix_axes(stacks: dict[str, jax.Array]) -> dict[str, Any]:
    """For Muon: which of the stacks are of matrices, and along which of their axes."""
    axes = optax.contrib.MuonDimensionNumbers((1,), (2,))
    return {name: None if name == _VECTORS else axes for name in stacks}


def _stack(tree: Params) -> dict[str, jax.Array]:
    leaves, stacks = jax.tree.leaves(tree), {}
    for name, shapes in _stack_shapes(tree).items():
        stacks[name] = jnp.concatenate([leaves[i].reshape(shape) for i, shape in shapes.items()])
    return stacks


def _unstack(stacks: dict[str, jax.Array], like: Params) -> Params:
    leaves, structure = jax.tree.flatten(like)
    for name, shapes in _stack_shapes(like).items():
        ends = np.cumsum([shape[0] for shape in shapes.values()])
        for i, part in zip(shapes, jnp.split(stacks[name], ends[:-1]), strict=True):
            leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def _stack_shapes(tree: Params) -> dict[str, dict[int, tuple[int, ...]]]:
    """Name of a stack -> number of a leaf in it -> the shape that the leaf has there.

    That is `[size]` for vectors and `[number, inputs, outputs]` for matrices. The kernel of a
    convolution is a matrix, and a parameter of the repeated blocks of `layers.repeat` several.
    """
    stacks: dict[str, dict[int, tuple[int, ...]]] = {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        shape: tuple[int, ...] = (leaf.size,)
        name = _VECTORS
        if leaf.ndim >= 2 and path[-1].key not in ("bias", "scale"):
            number = leaf.shape[0] if leaf.ndim in (3, 5) else 1
            shape = (number, leaf.size // number // leaf.shape[-1], leaf.shape[-1])
            name = f"matrices_{shape[1]}x{shape[2]}"
        stacks.setdefault(name, {})[i] = shape
    return stacks
