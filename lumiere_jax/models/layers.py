"""Layers that every network of the project shares.

Feature maps are folded: `[frames, height, width, channels]`, where `frames` is batch × time,
because a 2-D convolution over folded frames is what compiles best for a TPU. Conditioning
vectors keep one row a clip, `[batch, channels]`, or one a frame, `[frames, channels]`.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from lumiere_jax.runtime.errors import UserError

Array = jax.Array
Dtype = jnp.dtype | type

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def activation(name: str) -> Callable[[Array], Array]:
    """Returns the activation function called `name`.

    Raises:
      UserError: if there is no such activation.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown; choose from {sorted(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def sinusoidal_embedding(position: Array, dim: int, max_period: float = 10_000.0) -> Array:
    """Cosines and sines of `position` at geometrically spaced frequencies (1706.03762, 3.5).

    Args:
      position: `[...]`, in any unit.
      dim: size of the embedding, even.
      max_period: the longest period over 2π, in the unit of `position`.

    Returns:
      `[..., dim]` float32, cosines first.
    """
    half = dim // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = position.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


REMAT_POLICIES = ("none", "full", "convolutions")
DEAR_INPUTS = 512  # more would recompute 5% of the full STUNet step, less has no use at its widths


def rematerialize(
    module: type[nn.Module], policy: str, static: tuple[int, ...] = (), repeated: bool = False
) -> type[nn.Module]:
    """A module that recomputes its inside in the backward pass instead of storing it.

    Args:
      module: its class.
      policy: "none" stores everything; "full" stores the module's inputs; "convolutions" also
        stores what `keep` marks, so that cheap layers alone are recomputed.
      static: which arguments of its `__call__` are not arrays; `self` is number 0.
      repeated: whether it goes to `repeat`.

    Returns:
      The class to use.

    Raises:
      UserError: if there is no such policy.
    """
    if policy not in REMAT_POLICIES:
        raise UserError(f"remat {policy!r} is unknown; choose from {', '.join(REMAT_POLICIES)}.")
    if policy == "none":
        return module
    names = ["convolution"] if policy == "convolutions" else []
    save = jax.checkpoint_policies.save_only_these_names(*names)
    # A loop keeps the two passes apart; elsewhere the compiler would merge them again.
    return nn.remat(module, policy=save, static_argnums=static, prevent_cse=not repeated)


def repeat(block: nn.Module, count: int, x: Array, *arguments: object) -> Array:
    """Applies as many blocks of one kind one after the other, compiled once, as a loop.

    Args:
      block: a submodule that maps `(x, *arguments)` to an array like `x`; its parameters get a
        leading axis, `[count, ...]`.
      count: how many.
      x: what the first one takes.
      arguments: what every one takes.

    Returns:
      What the last one returns.
    """

    def step(module: nn.Module, x: Array, *arguments: object) -> tuple[Array, None]:
        return module(x, *arguments), None

    loop = nn.scan(
        step,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=count,
        check_constancy_invariants=False,  # tracing once is enough
    )
    return loop(block, x, *arguments)[0]


def keep(x: Array, inputs: int) -> Array:
    """Marks the output of a 3×3 convolution that is dear to recompute for what it takes to store.

    Args:
      x: the output.
      inputs: input channels; each costs 9 multiplications a value, so that 1 GB of values in
        bfloat16 costs 9 TFLOP where there are 1024.

    Returns:
      `x`.
    """
    return checkpoint_name(x, "convolution") if inputs >= DEAR_INPUTS else x


def constrain(x: Array, *names: str | None) -> Array:
    """Says how `x` lies on a mesh, by the logical name of each axis; nothing outside of a mesh.

    Args:
      x: any array.
      names: one an axis: "clips" (folded with their frames or not), "height", or None.

    Returns:
      `x`.
    """
    return nn.with_logical_constraint(x, names)


def gather_weights(x: Array, *weights: Array | None, dtype: Dtype) -> list[Array | None]:
    """Casts what a layer works on, and makes its weights whole on every device.

    Left to itself, the partitioner multiplies by one part of a kernel after the other, each too
    narrow for a matrix unit, while the parts travel around a ring (`configs/stunet.py:full` on
    v5p:2x2x4: 43717 collective-permutes a step, and an MFU of 7% by the compiler's estimate).

    Args:
      x: the layer's input.
      weights: its kernel and bias, or None.
      dtype: of the computation.

    Returns:
      All of them.
    """
    x, *weights = promote_dtype(x, *weights, dtype=dtype)
    return [x, *(None if w is None else constrain(w, *[None] * w.ndim) for w in weights)]


Dense = functools.partial(nn.Dense, promote_dtype=gather_weights)
Conv = functools.partial(nn.Conv, promote_dtype=gather_weights)


def group_norm(
    groups: int, dtype: Dtype, name: str | None = None, exact: bool = False
) -> nn.GroupNorm:
    """GroupNorm (1803.08494) of each frame by itself, moments in float32, ε = 1e-5.

    `exact` subtracts the mean before it squares, which costs a second pass: the difference of the
    means of squares and squares of means is all rounding where a mean is large.
    """
    return nn.GroupNorm(
        num_groups=groups, epsilon=1e-5, dtype=dtype, name=name, use_fast_variance=not exact
    )


def layer_norm(dtype: Dtype, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm (1607.06450) over channels, moments in float32, ε = 1e-5."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


def conv3x3(features: int, dtype: Dtype, name: str, zero: bool = False) -> nn.Conv:
    """A 3×3 convolution with zero padding; `zero` starts it at zero."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return Conv(features, (3, 3), padding=1, dtype=dtype, kernel_init=init, name=name)


def modulate(x: Array, scale_shift: Array) -> Array:
    """Scale-shift conditioning, `x · (1 + scale) + shift`.

    Args:
      x: `[frames, height, width, channels]`.
      scale_shift: `[rows, 2 · channels]`; each row serves `frames / rows` frames in turn.

    Returns:
      An array like `x`.
    """
    rows, frames = scale_shift.shape[0], x.shape[0]
    scale_shift = constrain(scale_shift, "clips", None)  # not by channel, as its kernel may be
    scale, shift = jnp.split(scale_shift.reshape(rows, 1, 1, 1, -1), 2, axis=-1)
    grouped = x.reshape(rows, frames // rows, *x.shape[1:])
    return (grouped * (1 + scale) + shift).reshape(x.shape)


def average_pool(x: Array) -> Array:
    """Means over 2×2 pixels: `[n, h, w, c]` to `[n, h/2, w/2, c]`."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def nearest_upsample(x: Array) -> Array:
    """Every pixel four times: `[n, h, w, c]` to `[n, 2h, 2w, c]`."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def space_to_depth(x: Array, side: int) -> Array:
    """Squares of pixels to channels: `[n, h, w, c]` to `[n, h/side, w/side, c · side²]`.

    All pixels of one channel lie beside each other, so that more channels come at the end.
    """
    n, h, w, c = x.shape
    x = x.reshape(n, h // side, side, w // side, side, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(n, h // side, w // side, c * side**2)


def depth_to_space(x: Array, side: int) -> Array:
    """The inverse of `space_to_depth`: `[n, h, w, c]` to `[n, side · h, side · w, c / side²]`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, c // side**2, side, side)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * side, w * side, c // side**2)


class TimeMLP(nn.Module):
    """Sinusoidal embedding of a scalar, then two dense layers.

    Attributes:
      frequencies: size of the sinusoidal embedding.
      features: size of the result.
      activation: name of the activation between the layers.
      dtype: dtype of the computation.
    """

    frequencies: int
    features: int
    activation: str = "silu"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, value: Array) -> Array:
        """Maps `value` `[batch]` to `[batch, features]`."""
        x = sinusoidal_embedding(value, self.frequencies).astype(self.dtype)
        x = Dense(self.features, dtype=self.dtype, name="dense_0")(x)
        x = activation(self.activation)(x)
        return Dense(self.features, dtype=self.dtype, name="dense_1")(x)


class ResidualBlock(nn.Module):
    """BigGAN residual block (1809.11096) with scale-shift conditioning and optional resampling.

    Attributes:
      features: number of output channels.
      resample: "none", "down" (2×2 mean) or "up" (nearest), inside the block.
      groups: groups of the two normalizations.
      activation: name of the activation.
      dtype: dtype of the computation.
      output_divisor: what the sum of the two paths is divided by.
    """

    features: int
    resample: str = "none"
    groups: int = 32
    activation: str = "silu"
    dtype: Dtype = jnp.float32
    output_divisor: float = 1.0

    @nn.compact
    def __call__(self, x: Array | tuple[Array, ...], embedding: Array) -> Array:
        """Maps features to features.

        Args:
          x: `[frames, h, w, c]`, or several that are joined by channel: if it happens here, a
            rematerialized block stores no copy of a skip connection.
          embedding: `[batch, e]`, activated.

        Returns:
          `[frames, h', w', features]`.
        """
        x = jnp.concatenate(x, axis=-1) if isinstance(x, tuple) else x
        act = activation(self.activation)
        resize = {"none": lambda y: y, "down": average_pool, "up": nearest_upsample}[self.resample]
        h = resize(act(group_norm(self.groups, self.dtype, "norm_0")(x)))
        x = resize(x)
        h = keep(conv3x3(self.features, self.dtype, "conv_0")(h), h.shape[-1])
        scale_shift = Dense(2 * self.features, dtype=self.dtype, name="modulation")(embedding)
        h = act(modulate(group_norm(self.groups, self.dtype, "norm_1")(h), scale_shift))
        h = conv3x3(self.features, self.dtype, "conv_1", zero=True)(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")(x)
        x = x + h if self.output_divisor == 1 else (x + h) / self.output_divisor
        return constrain(x, "clips", "height", None, None)
