"""Counts the floating-point operations that a function needs, from its jaxpr.

Only convolutions and matrix products count, two operations a multiplication with its addition, as
is the custom where a utilization is stated (2204.02311, appendix B). Nothing counts that
mathematics does not need: products with the zeros of padding and of dilation (as in gradients of
strided convolutions), equations whose results nobody uses, and recomputation.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from jax.interpreters import partial_eval
from ml_collections import FrozenConfigDict

from lumiere_jax.cascade.stage import Stage, create_network
from lumiere_jax.data.sources import hold_bytes
from lumiere_jax.models.parameters import Params, merge, partition
from lumiere_jax.text import ShapesOnly
from lumiere_jax.training.step import training_loss


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations."""

    conv: int = 0  # those of convolutions
    dot: int = 0  # those of matrix products

    @property
    def total(self) -> int:
        """All of them."""
        return self.conv + self.dot

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.conv + other.conv, self.dot + other.dot)

    def __mul__(self, times: int) -> "Flops":
        return Flops(self.conv * times, self.dot * times)


def count(function: Callable[..., Any], *args: Any) -> Flops:
    """What one call of a function needs, by its arguments or their `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: if the number depends on values: matrix products inside a `while_loop`.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    alive, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count_jaxpr(alive)


def training_flops(stage: Stage, batch_size: int) -> Flops:
    """What one training step needs: a forward pass, and gradients of the trainable parameters.

    Gradients of frozen weights do not count, nor does what `model.remat` computes twice. Nothing
    is allocated.
    """
    loss, arguments = loss_of(without_remat(stage), batch_size)
    return count(jax.value_and_grad(loss), *arguments)


def loss_of(stage: Stage, batch_size: int) -> tuple[Callable[..., jax.Array], tuple[Any, ...]]:
    """The loss of `(trainable, frozen, batch)`, and their shapes."""
    encoder, key = stage.text_encoder, jax.random.key(0)
    trainable, frozen = partition(stage.param_shapes, stage.is_trainable)
    stage = dataclasses.replace(stage, text_encoder=ShapesOnly(encoder.dim, encoder.max_length))

    def loss(trainable: Params, frozen: Params, batch: dict[str, jax.Array]) -> jax.Array:
        params = merge(trainable, frozen)
        return training_loss(stage, params, batch, key, teacher=params)

    return loss, (trainable, frozen, batch_shapes(stage, batch_size))


def without_remat(stage: Stage) -> Stage:
    """The same stage, which stores every activation."""
    if "remat" not in stage.config.model:
        return stage
    model = FrozenConfigDict({**stage.config.model, "remat": "none"})
    return dataclasses.replace(stage, network=create_network(model))


def batch_shapes(stage: Stage, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of training data, see `lumiere_jax.data.pipeline`."""
    text = stage.text_encoder
    clip = (batch_size, *stage.clip_shape()[:3])
    video = jnp.uint8 if hold_bytes(stage.config.data) else jnp.float32
    mask = {"mask": jax.ShapeDtypeStruct((*clip, 1), bool)} if stage.is_conditional else {}
    return mask | {
        "video": jax.ShapeDtypeStruct((*clip, 3), video),
        "text": jax.ShapeDtypeStruct((batch_size, text.max_length, text.dim), jnp.float32),
        "text_mask": jax.ShapeDtypeStruct((batch_size, text.max_length), bool),
    }


def null_text_shapes(stage: Stage) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of `lumiere_jax.training.step.null_text`."""
    length, dim = stage.text_encoder.max_length, stage.text_encoder.dim
    return {
        "null_text": jax.ShapeDtypeStruct((1, length, dim), jnp.float32),
        "null_mask": jax.ShapeDtypeStruct((1, length), bool),
    }


def _count_jaxpr(jaxpr: Jaxpr) -> Flops:
    return sum((count_equation(equation) for equation in jaxpr.eqns), Flops())


def count_equation(equation: JaxprEqn) -> Flops:
    """What one equation needs, with all that is inside of it."""
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        return Flops(conv=_convolution(equation))
    if name == "dot_general":
        return Flops(dot=_matrix_product(equation))
    inner = [_count_jaxpr(jaxpr) for jaxpr in jaxprs_in_params(params)]
    if name == "scan":
        return inner[0] * params["length"]
    if name == "cond":  # the most expensive branch
        return max(inner, key=lambda flops: flops.total)
    total = sum(inner, Flops())
    if name in ("while", "shard_map") and total.total:
        raise ValueError(
            f"the operations inside a {name} cannot be counted from its jaxpr; use lax.scan, and "
            "count outside of shard_map"
        )
    return total


def _is_float(equation: JaxprEqn) -> bool:
    return jnp.issubdtype(_shaped(equation.outvars[0]).dtype, jnp.floating)


def _shaped(variable: Any) -> jax.core.ShapedArray:
    return variable.aval


def _matrix_product(equation: JaxprEqn) -> int:
    """Two operations for every output and every element of the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = _shaped(equation.invars[0]), _shaped(equation.outvars[0])
    return 2 * out.size * math.prod(left.shape[axis] for axis in contracted) * _is_float(equation)


def _convolution(equation: JaxprEqn) -> int:
    """Two operations for every output channel, input channel of its group, and valid tap."""
    params, (left, right) = equation.params, map(_shaped, equation.invars)
    out, numbers = _shaped(equation.outvars[0]), params["dimension_numbers"]
    batch, channels = (out.shape[axis] for axis in numbers.out_spec[:2])
    inputs = right.shape[numbers.rhs_spec[1]]  # of one group
    taps = math.prod(
        valid_taps(
            left.shape[left_axis], right.shape[right_axis], out.shape[out_axis],
            stride, padding[0], left_dilation, right_dilation,
        )
        for left_axis, right_axis, out_axis, stride, padding, left_dilation, right_dilation in zip(
            numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:],
            params["window_strides"], params["padding"],
            params["lhs_dilation"], params["rhs_dilation"],
            strict=True,
        )
    )  # fmt: skip
    return 2 * batch * channels * inputs * taps * _is_float(equation)


@functools.cache
def valid_taps(
    size: int, kernel: int, out: int, stride: int, low: int, dilation: int, kernel_dilation: int
) -> int:
    """Pairs of an output position and a kernel tap that meet an element of the input.

    Sizes, of input, `kernel` and output, are along one spatial axis, `low` is the padding before
    the first element. Zeros lie between neighbouring elements at a distance of `dilation`.
    """
    taps = np.arange(kernel) * kernel_dilation - low
    total = 0
    for start in range(0, out, 1024):  # in parts, since both may be long
        position = np.arange(start, min(start + 1024, out))[:, None] * stride + taps
        inside = (position >= 0) & (position <= (size - 1) * dilation)
        total += int(np.count_nonzero(inside & (position % dilation == 0)))
    return total
