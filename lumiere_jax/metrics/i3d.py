"""I3D (1705.07750, Inception-v1 inflated to 3-D), whose logits FVD compares.

The network of the TF-Hub module `deepmind/i3d-kinetics-400/1`, which is DeepMind's checkpoint
`rgb_scratch`: 400 logits before the softmax, averaged over the time steps that are left. Batch
normalization is folded into the convolutions when weights are loaded (`fold`), so that the
parameters here are a kernel and a bias for every convolution. Module names are those of the
checkpoint.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, Float32

from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

NUM_CLASSES = 400
MIN_FRAMES = 9
"""Fewer frames leave nothing to average after three halvings of time: the graph returns NaN."""

BATCH_NORM_EPSILON = 1e-3
"""Of the TensorFlow graph; the PyTorch ports that descend from VideoGPT's have 1e-5."""

_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_NARROW = 16
_POOL_BEFORE = {"Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}


class Unit3D(nn.Module):
    """Convolution with folded batch normalization, then ReLU; float32 at full precision."""

    features: int  # output channels
    kernel: int = 1  # size of the cubic kernel
    stride: int = 1  # of all three axes

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch t h w c"]
    ) -> Float[Array, "batch _ _ _ {self.features}"]:
        """Maps features to features."""
        shape = (*(self.kernel,) * 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return jax.nn.relu(convolve(x, kernel, self.stride) + bias)


def convolve(
    x: Float[Array, "batch t h w c"], kernel: Float[Array, "k k k c features"], stride: int = 1
) -> Float[Array, "batch _ _ _ features"]:
    """3-D convolution with SAME padding, as 2-D convolutions of the frames under the kernel.

    XLA's own 3-D convolution takes 2 to 10 times as long on a CPU (benchmarks/README.md).
    """
    size, frames, channels = kernel.shape[0], x.shape[1], x.shape[-1]
    steps = -(-frames // stride)
    missing = max((steps - 1) * stride + size - frames, 0)
    x = jnp.pad(x, [(0, 0), (missing // 2, missing - missing // 2), *[(0, 0)] * 3])
    # Frame i under the kernel, for all its places in time.
    taps = [x[:, i : i + (steps - 1) * stride + 1 : stride] for i in range(size)]
    if channels < _NARROW:  # one wide convolution keeps more of the processor busy than many
        taps = [jnp.concatenate(taps, axis=-1)]
        kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(1, size, size, size * channels, -1)
    parts = (_convolve_frames(tap, part, stride) for tap, part in zip(taps, kernel, strict=True))
    return sum(parts, start=jnp.zeros(()))


def _convolve_frames(x: Array, kernel: Array, stride: int) -> Array:
    out = jax.lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        # On an accelerator the default precision would shift FVD by 0.01 to 0.1%.
        precision=jax.lax.Precision.HIGHEST,
    )
    return out.reshape(*x.shape[:2], *out.shape[1:])


def max_pool(
    x: Float[Array, "batch t h w c"], window: tuple[int, int, int], strides: tuple[int, int, int]
) -> Float[Array, "batch _ _ _ c"]:
    """Maximum over windows with SAME padding, one axis after the other: fewer comparisons."""
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), start=1):
        steps = -(-x.shape[axis] // stride)
        missing = max((steps - 1) * stride + size - x.shape[axis], 0)
        padding = [(0, 0)] * x.ndim
        padding[axis] = (missing // 2, missing - missing // 2)
        padded = jnp.pad(x, padding, constant_values=-jnp.inf)
        end = (steps - 1) * stride + 1
        parts = [jax.lax.slice_in_dim(padded, i, i + end, stride, axis) for i in range(size)]
        x = functools.reduce(jnp.maximum, parts)
    return x


class Mixed(nn.Module):
    """Inception block: four branches, concatenated by channel."""

    widths: tuple[int, int, int, int, int, int]  # of 1×1 | 1×1, 3×3 | 1×1, 3×3 | pooling, 1×1

    @nn.compact
    def __call__(self, x: Float[Array, "batch t h w c"]) -> Float[Array, "batch t h w channels"]:
        """Maps features to those of all branches."""
        a, b, c, d, e, f = self.widths

        def unit(branch: int, name: str, features: int, kernel: int, y: Array) -> Array:
            return Unit3D(features, kernel, name=f"Branch_{branch}_Conv3d_{name}")(y)

        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = [
            unit(0, "0a_1x1", a, 1, x),
            unit(1, "0b_3x3", c, 3, unit(1, "0a_1x1", b, 1, x)),
            unit(2, "0b_3x3", e, 3, unit(2, "0a_1x1", d, 1, x)),
            unit(3, "0b_1x1", f, 1, pooled),
        ]
        return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
    """From clips to logits of the 400 classes of Kinetics."""

    @nn.compact
    def __call__(
        self, video: Float[Array, "batch time height width 3"]
    ) -> Float32[Array, "batch 400"]:
        """Logits before the softmax, the mean over the time steps that are left.

        The video has 224×224 pixels, RGB in [-1, 1]; fewer than `MIN_FRAMES` frames are a
        `UserError`.
        """
        if video.shape[1] < MIN_FRAMES:
            raise UserError(
                f"I3D needs {MIN_FRAMES} frames or more (three times it halves time, and then "
                f"averages two steps); got {video.shape[1]}. Use clips of 16 frames, as FVD does."
            )
        x = Unit3D(64, 7, 2, name="Conv3d_1a_7x7")(video.astype(jnp.float32))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = Unit3D(64, name="Conv3d_2b_1x1")(x)
        x = Unit3D(192, 3, name="Conv3d_2c_3x3")(x)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        for name, widths in _MIXED.items():
            if name in _POOL_BEFORE:
                x = max_pool(x, *_POOL_BEFORE[name])
            x = Mixed(widths, name=name)(x)
        x = nn.avg_pool(x, (2, 7, 7), (1, 1, 1), "VALID")
        precision = jax.lax.Precision.HIGHEST
        logits = nn.Conv(NUM_CLASSES, (1, 1, 1), precision=precision, name="Logits_Conv3d_0c_1x1")
        return logits(x).mean(axis=(1, 2, 3))


def fold(weights: Mapping[str, np.ndarray], epsilon: float = BATCH_NORM_EPSILON) -> Params:
    """Parameters of `I3D` from the arrays of the checkpoint.

    Those are named as `lumiere_jax.metrics.i3d_weights.load` returns them; `epsilon` is of the
    batch normalization. The tree is as `I3D().init` would make it, float32.
    """
    params: dict = {}
    for name in weights:
        if not name.endswith("conv_3d/w"):
            continue
        layer = name.removesuffix("/conv_3d/w")
        kernel = weights[name].astype(np.float64)
        if f"{layer}/conv_3d/b" in weights:
            bias = weights[f"{layer}/conv_3d/b"]
        else:
            norm = {
                part: weights[f"{layer}/batch_norm/{part}"].astype(np.float64).ravel()
                for part in ("beta", "moving_mean", "moving_variance")
            }
            scale = 1 / np.sqrt(norm["moving_variance"] + epsilon)
            kernel, bias = kernel * scale, norm["beta"] - norm["moving_mean"] * scale
        node = params
        for part in _module_path(layer):
            node = node.setdefault(part, {})
        node["kernel"] = np.asarray(kernel, np.float32)
        node["bias"] = np.asarray(bias, np.float32)
    return params


def _module_path(layer: str) -> list[str]:
    """Path of a layer's parameters: "Mixed_3b/Branch_0/Conv3d_0a_1x1" has two parts."""
    block, *rest = layer.split("/")
    return [block, "_".join(rest)] if block.startswith("Mixed") else ["_".join([block, *rest])]


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a checkpoint, by the names that `fold` takes."""
    clip = jnp.zeros((1, 16, 224, 224, 3))
    tree = jax.eval_shape(I3D().init, jax.random.key(0), clip)["params"]
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in flatten_dict(tree).items():
        layer = "/".join(path[:-1]).replace("_Conv3d", "/Conv3d")
        if path[-1] == "kernel":
            shapes[f"{layer}/conv_3d/w"] = leaf.shape
        elif layer.startswith("Logits"):
            shapes[f"{layer}/conv_3d/b"] = leaf.shape
        else:
            for part in ("beta", "moving_mean", "moving_variance"):
                shapes[f"{layer}/batch_norm/{part}"] = leaf.shape
    return shapes
