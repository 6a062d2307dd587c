"""Layers that every network of the project shares.

Feature maps are folded: `[frames, height, width, channels]`, where `frames` is batch × time,
because a 2-D convolution over folded frames is what compiles best for a TPU. Conditioning
vectors have one row for each clip, `[batch, channels]`, or for each frame, `[frames, channels]`.
"""

import functools
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Shaped

from lumiere_jax.models.convolution import convolve
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

Dtype = jnp.dtype | type
FeatureMap = Float[Array, "frames height width channels"]
Text = Float[Array, "batch length dim"]
TextMask = Bool[Array, "batch length"]
"""True at real tokens."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def check_choice(field: str, value: str, known: Iterable[str]) -> None:
    """Raises a `UserError` if the field of a model has a value that is not known."""
    if value not in known:
        raise UserError(f"{field} {value!r} is unknown; choose from {', '.join(known)}.")


def sinusoidal_embedding(
    position: Shaped[Array, "*rows"], dim: int, max_period: float = 10_000.0
) -> Float[Array, "*rows {dim}"]:
    """Cosines, then sines of `position` at geometrically spaced frequencies (1706.03762, 3.5).

    `max_period` is the longest period over 2π, in the unit of `position`; `dim` is even.
    """
    half = dim // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = position.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


REMAT_POLICIES = ("none", "full", "convolutions")
COSTLY_INPUTS = 512  # with more, 5% of the full STUNet step is recomputed; less has no use there


def rematerialize(
    module: type[nn.Module], policy: str, static: tuple[int, ...] = (), repeated: bool = False
) -> type[nn.Module]:
    """The class of a module that recomputes its inside in the backward pass, and stores less.

    Args:
      module: the class of one that stores everything.
      policy: "none" stores everything; "full" stores the module's inputs; "convolutions" also
        stores what `keep` marks, so that cheap layers alone are recomputed.
      static: which arguments of its `__call__` are not arrays; `self` is number 0.
      repeated: whether it goes to `repeat`.
    """
    assert policy in REMAT_POLICIES, policy
    if policy == "none":
        return module
    names = ["convolution"] if policy == "convolutions" else []
    save = jax.checkpoint_policies.save_only_these_names(*names)
    # A loop keeps the two passes apart; elsewhere the compiler would merge them again.
    return nn.remat(module, policy=save, static_argnums=static, prevent_cse=not repeated)


def repeat(block: nn.Module, count: int, x: Array, *arguments: object) -> Array:
    """Applies `count` blocks of one kind one after the other, compiled once, as a loop.

    `block` is a submodule that maps `(x, *arguments)` to an array like `x`; its parameters get a
    leading axis, `[count, ...]`.
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
    """Marks the output of a 3×3 convolution if it is costly to recompute for its size.

    Each of the `inputs` channels costs 9 multiplications a value, so that 1 GB of values in
    bfloat16 costs 9 TFLOP where there are 1024.
    """
    return checkpoint_name(x, "convolution") if inputs >= COSTLY_INPUTS else x


def constrain(x: Array, *names: str | None) -> Array:
    """Says how `x` lies on a mesh, by the logical name of each axis; nothing outside of a mesh.

    Names are "clips" (folded with their frames or not), "height", or None.
    """
    return nn.with_logical_constraint(x, names)


def gather_weights(
    *arrays: Array | None, dtype: Dtype | None = None, inexact: bool = True
) -> list[Array | None]:
    """Casts a layer's input, kernel and bias, and makes the weights whole on every device.

    Left to itself, the partitioner multiplies by one part of a kernel after the other, each too
    narrow for a matrix unit, while the parts travel around a ring (`configs/stunet.py:full` on
    v5p:2x2x4: 43717 collective-permutes a step, and an MFU of 7% by the compiler's estimate).
    """
    x, *weights = promote_dtype(*arrays, dtype=dtype, inexact=inexact)
    return [x, *(None if w is None else constrain(w, *[None] * w.ndim) for w in weights)]


# Whenever a layer is applied Flax traces how its kernel would be drawn, to compare the shapes. A
# compiled function is traced once.
lecun_normal = jax.jit(nn.initializers.lecun_normal(), static_argnums=(1, 2))

Dense = functools.partial(nn.Dense, promote_dtype=gather_weights, kernel_init=lecun_normal)
Conv = functools.partial(
    nn.Conv, promote_dtype=gather_weights, kernel_init=lecun_normal, conv_general_dilated=convolve
)


def group_norm(
    groups: int, dtype: Dtype, name: str | None = None, exact: bool = False
) -> nn.GroupNorm:
    """GroupNorm (1803.08494) of each frame separately, moments in float32, ε = 1e-5.

    `exact` subtracts the mean before it squares, which costs a second pass: the difference of the
    means of squares and squares of means is all rounding where a mean is large.
    """
    return nn.GroupNorm(
        num_groups=groups, epsilon=1e-5, dtype=dtype, name=name, use_fast_variance=not exact
    )


def layer_norm(dtype: Dtype, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm (1607.06450) over channels, moments in float32, ε = 1e-5."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


def conv3x3(
    features: int, dtype: Dtype, name: str, *, zero: bool = False, stride: int = 1
) -> nn.Conv:
    """A 3×3 convolution with zero padding; `zero` starts it at zero."""
    init = nn.initializers.zeros if zero else lecun_normal
    return Conv(features, (3, 3), stride, padding=1, dtype=dtype, kernel_init=init, name=name)


class UpsampleConv(nn.Module):
    """Every value twice along each axis on which the kernel has 3 taps, then the convolution.

    The same function of the same parameters as with the repeated values, zero-padded, but computed
    where values are still few: outputs at even places are `w0 x[i-1] + (w1 + w2) x[i]`, at odd ones
    `(w0 + w1) x[i] + w2 x[i+1]`. Of 3×3 taps that is 4/9 of the products, of 3 taps 2/3, and
    repeated values are never written. Each phase is a convolution of its own, because XLA takes the
    gradient of one whose outputs are sliced by a path that is 20 times as slow on CPUs.
    """

    features: int
    dtype: Dtype = jnp.float32
    kernel_size: tuple[int, int] = (3, 3)  # 3 or 1 each
    kernel_init: nn.initializers.Initializer = lecun_normal

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h new_w {self.features}"]:
        """Convolves `repeat(x, 2)`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y, whole, added = gather_weights(x, kernel, bias, dtype=self.dtype)
        assert y is not None and whole is not None and added is not None
        rows, columns = (1 if taps == 1 else 2 for taps in self.kernel_size)
        phases = [
            convolve(y, part, (1, 1), (row_padding, padding))
            for row_kernel, row_padding in _phases(whole, 0)
            for part, padding in _phases(row_kernel, 1)
        ]
        n, h, w, _ = x.shape
        # One transposition: a second copy, for rows and columns, costs as much as a convolution.
        y = jnp.stack(phases).reshape(rows, columns, n, h, w, self.features)
        y = y.transpose(2, 3, 0, 4, 1, 5).reshape(n, rows * h, columns * w, self.features)
        return y + added


def _phases(kernel: Array, axis: int) -> list[tuple[Array, tuple[int, int]]]:
    """Kernel and padding of the phases of an axis; of itself where it has one tap."""
    if kernel.shape[axis] == 1:
        return [(kernel, (0, 0))]
    first, middle, last = jnp.split(kernel.astype(jnp.float32), 3, axis)
    even = jnp.concatenate([first, middle + last], axis).astype(kernel.dtype)
    odd = jnp.concatenate([first + middle, last], axis).astype(kernel.dtype)
    return [(even, (1, 0)), (odd, (0, 1))]


def modulate(x: FeatureMap, scale_shift: Float[Array, "rows 2*channels"]) -> FeatureMap:
    """Scale-shift conditioning, `x · (1 + scale) + shift`; a row serves `frames / rows` frames."""
    rows, frames = scale_shift.shape[0], x.shape[0]
    scale_shift = constrain(scale_shift, "clips", None)  # not by channel, as its kernel may be
    scale, shift = jnp.split(scale_shift.reshape(rows, 1, 1, 1, -1), 2, axis=-1)
    grouped = x.reshape(rows, frames // rows, *x.shape[1:])
    return (grouped * (1 + scale) + shift).reshape(x.shape)


def average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Means over 2×2 pixels."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def nearest_upsample(x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w c"]:
    """Every pixel four times."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def space_to_depth(
    x: Float[Array, "n h w c"], side: int
) -> Float[Array, "n h//{side} w//{side} c*{side}**2"]:
    """Squares of pixels become channels.

    All pixels of one channel are adjacent, so that new channels can be appended at the end.
    """
    n, h, w, c = x.shape
    x = x.reshape(n, h // side, side, w // side, side, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(n, h // side, w // side, c * side**2)


def depth_to_space(
    x: Float[Array, "n h w c"], side: int
) -> Float[Array, "n h*{side} w*{side} c//{side}**2"]:
    """The inverse of `space_to_depth`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, c // side**2, side, side)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * side, w * side, c // side**2)


class TimeMLP(nn.Module):
    """Sinusoidal embedding of a scalar, `frequencies` numbers, then two dense layers."""

    frequencies: int
    features: int
    activation: str = "silu"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, value: Float[Array, " batch"]) -> Float[Array, "batch {self.features}"]:
        """Embeds one number for each example."""
        x = sinusoidal_embedding(value, self.frequencies).astype(self.dtype)
        x = Dense(self.features, dtype=self.dtype, name="dense_0")(x)
        x = ACTIVATIONS[self.activation](x)
        return Dense(self.features, dtype=self.dtype, name="dense_1")(x)


class ResidualBlock(nn.Module):
    """BigGAN residual block (1809.11096) with scale-shift conditioning and optional resampling."""

    features: int
    resample: str = "none"  # "none", "down" (2×2 mean) or "up" (nearest), inside the block
    groups: int = 32
    activation: str = "silu"
    dtype: Dtype = jnp.float32
    output_divisor: float = 1.0  # of the sum of the two paths

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "frames h w c"] | tuple[Float[Array, "frames h w _"], ...],
        embedding: Float[Array, "batch e"],
    ) -> Float[Array, "frames new_h new_w {self.features}"]:
        """Maps features to features, told of time and text by the activated `embedding`.

        Several feature maps are joined by channel: if it happens here, a rematerialized block
        stores no copy of a skip connection.
        """
        x = jnp.concatenate(inputs, axis=-1) if isinstance(inputs, tuple) else inputs
        act = ACTIVATIONS[self.activation]
        h = act(group_norm(self.groups, self.dtype, "norm_0")(x))
        if self.resample == "down":
            h, x = average_pool(h), average_pool(x)
        is_up = self.resample == "up"
        conv = (UpsampleConv if is_up else conv3x3)(self.features, self.dtype, name="conv_0")
        h = keep(conv(h), h.shape[-1])
        scale_shift = Dense(2 * self.features, dtype=self.dtype, name="modulation")(embedding)
        h = act(modulate(group_norm(self.groups, self.dtype, "norm_1")(h), scale_shift))
        h = conv3x3(self.features, self.dtype, "conv_1", zero=True)(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")(x)
        x = nearest_upsample(x) if is_up else x  # the shortcut maps each pixel by itself
        x = x + h if self.output_divisor == 1 else (x + h) / self.output_divisor
        return constrain(x, "clips", "height", None, None)
