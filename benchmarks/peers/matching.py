"""Space-time U-Nets with as many FLOPs, or parameters, as another network."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lumiere_jax.cascade.config import UNET_SIZES
from lumiere_jax.models.parameters import merge, partition
from lumiere_jax.models.stunet import STUNet, is_temporal
from lumiere_jax.planning import flops

# Only the widths differ from the variant `small`, and the text, which is the others'.
_FAMILY = {
    **{k: list(v) if isinstance(v, tuple) else v for k, v in UNET_SIZES["small"].items()},
    "temporal_depth": 1,
}
_STEP = 16


def create(fields: dict[str, Any]) -> STUNet:
    """The network of these fields, which may come from JSON."""
    return STUNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def widths_of(finest: int) -> list[int]:
    """Widths of all levels: 1, 2 and about 3 times the finest; heads divide all but the finest."""
    head = _FAMILY["head_dim"]
    return [finest, 2 * finest, max(round(3 * finest / head), 1) * head]


@functools.cache
def _counted(finest: int, shape: tuple[int, ...], length: int, dim: int) -> tuple[int, int]:
    fields = _FAMILY | {"widths": widths_of(finest)}
    params = _params(fields, shape, length, dim)
    operations = flops.count(_forward(fields), params, *_inputs(shape, length, dim))
    return operations.total, sum(leaf.size for leaf in jax.tree.leaves(params))


def matched(
    target: int, what: str, shape: tuple[int, ...], length: int, dim: int
) -> dict[str, Any]:
    """Fields of the network that comes nearest to a number.

    Args:
      target: FLOPs of a forward pass of `shape`, or parameters.
      what: "flops" or "parameters".
      shape: of the clips, [batch, time, height, width, 3].
      length: tokens of the text.
      dim: channels of the text.
    """
    index = {"flops": 0, "parameters": 1}[what]

    def number(finest: int) -> int:
        return _counted(finest, shape, length, dim)[index]

    low = high = _STEP
    while number(high) < target:
        low, high = high, 2 * high
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        low, high = (middle, high) if number(middle) < target else (low, middle)
    best = min((low, high), key=lambda finest: abs(number(finest) / target - 1))
    return _FAMILY | {"widths": widths_of(best)}


def flops_of(
    fields: dict[str, Any], shape: tuple[int, ...], length: int, dim: int, frozen: bool = False
) -> dict[str, int]:
    """FLOPs of a forward pass and of a training step, by `lumiere_jax.planning.flops`.

    Args:
      fields: of the network.
      shape: of the clips.
      length: tokens of the text.
      dim: channels of the text.
      frozen: whether temporal parameters alone train.
    """
    params, forward = _params(fields, shape, length, dim), _forward(fields)
    clips, times, text = _inputs(shape, length, dim)
    trainable, rest = partition(params, lambda path: not frozen or is_temporal(path))

    def gradient(trainable: Any, rest: Any, clips: Any, times: Any, text: Any) -> Any:
        def loss(trainable: Any) -> jax.Array:
            return jnp.square(forward(merge(trainable, rest), clips, times, text)).mean()

        return jax.grad(loss)(trainable)

    return {
        "forward": flops.count(forward, params, clips, times, text).total,
        "train": flops.count(gradient, trainable, rest, clips, times, text).total,
    }


def _forward(fields: dict[str, Any]) -> Callable[..., Any]:
    network = create(fields)
    return lambda params, *given: network.apply({"params": params}, *given)


def _inputs(shape: tuple[int, ...], length: int, dim: int) -> tuple[Any, ...]:
    sizes = (tuple(shape), (shape[0],), (shape[0], length, dim))
    return tuple(jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes)


def _params(fields: dict[str, Any], shape: tuple[int, ...], length: int, dim: int) -> Any:
    return jax.eval_shape(create(fields).init, jax.random.key(0), *_inputs(shape, length, dim))[
        "params"
    ]
