"""C3D (1412.0767), fine-tuned on UCF101, whose class probabilities the Inception Score reads.

The network and the preprocessing of TGAN and TGANv2 (1811.09245), which papers cite: the Caffe
model `c3d_ucf101_finetune_whole_iter_20000` as Chainer arrays.
"""

import hashlib
import zipfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

NUM_CLASSES = 101
NUM_FRAMES = 16
SIZE = 112

# Convolutions by name; a number is the time stride of the pooling that follows.
_LAYERS = (
    ("conv1a", 64), 1, ("conv2a", 128), 2, ("conv3a", 256), ("conv3b", 256), 2,
    ("conv4a", 512), ("conv4b", 512), 2, ("conv5a", 512), ("conv5b", 512), 2,
)  # fmt: skip
_DENSE = {"fc6": 4096, "fc7": 4096, "fc8": NUM_CLASSES}
_WHERE = (
    "conv3d_deepnetA_ucf.npz and mean2.npz are in the releases of github.com/rezoo/tgan2 (v1.0) "
    "and github.com/pfnet-research/tgan (v1.0.0); no package ships them. Without them, "
    "--inception_network=i3d scores with I3D's 400 classes, a figure not to be compared with papers"
)


class C3D(nn.Module):
    """From preprocessed clips to logits of the 101 classes of UCF101; float32 at full precision."""

    @nn.compact
    def __call__(self, clips: Float[Array, "batch 16 112 112 3"]) -> Float32[Array, "batch 101"]:
        """Logits before the softmax of clips that `preprocess` made."""
        precision = jax.lax.Precision.HIGHEST
        x = clips.astype(jnp.float32)
        for layer in _LAYERS:
            if isinstance(layer, tuple):
                name, features = layer
                x = nn.relu(nn.Conv(features, (3, 3, 3), precision=precision, name=name)(x))
            else:
                # Caffe rounds sizes up: a row and a column more, at the end only (7 to 8 to 4).
                end = [(0, 0), *((0, size % 2) for size in x.shape[2:4])]
                x = nn.max_pool(x, (layer, 2, 2), (layer, 2, 2), end)
        x = x.transpose(0, 4, 1, 2, 3).reshape(x.shape[0], -1)  # channels first, as fc6 was trained
        for name, features in _DENSE.items():
            x = nn.Dense(features, precision=precision, name=name)(x)
            x = x if name == "fc8" else nn.relu(x)
        return x


def load(
    weights: str | Path, mean: str | Path
) -> tuple[Params, Float32[np.ndarray, "16 112 112 3"]]:
    """Reads the arrays of TGANv2's release, `conv3d_deepnetA_ucf.npz` and `mean2.npz`.

    Those are the parameters of `C3D`, and the mean clip for `preprocess`, BGR. A file that is
    missing, or another, is a `UserError`.
    """
    arrays, shapes = _read(weights), parameter_shapes()
    params: dict = {}
    for layer, leaves in shapes.items():
        kernel, bias = (_array(arrays, f"{layer}/{leaf}", weights) for leaf in ("W", "b"))
        kernel = kernel.transpose(2, 3, 4, 1, 0) if kernel.ndim == 5 else kernel.T
        for leaf, array in (("kernel", kernel), ("bias", bias)):
            if array.shape != leaves[leaf]:
                raise UserError(
                    f"C3D weights {weights}: {layer}/{leaf} has shape {array.shape}, not "
                    f"{leaves[leaf]}; {_WHERE}."
                )
        params[layer] = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
    return params, _mean_clip(_array(_read(mean), "mean", mean), mean)


def fingerprint(params: Params, mean: np.ndarray) -> str:
    """SHA-256 of what `load` returns."""
    digest = hashlib.sha256(mean.tobytes())
    for layer in sorted(params):
        for leaf in ("kernel", "bias"):
            digest.update(params[layer][leaf].tobytes())
    return digest.hexdigest()


def parameter_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the parameters of `C3D`, by layer and leaf."""
    clip = jnp.zeros((1, NUM_FRAMES, SIZE, SIZE, 3))
    tree = jax.eval_shape(C3D().init, jax.random.key(0), clip)["params"]
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def preprocess(
    video: Float[Array, "batch 16 height width 3"], mean: Float[Array, "16 112 112 3"]
) -> Float32[Array, "batch 16 112 112 3"]:
    """TGANv2's preprocessing of RGB in [-1, 1], with the mean that `load` returns.

    Clips are squashed to 112×112 with aligned corners; the result is BGR, 256 times a value in
    [0, 1] (TGANv2's scale) minus the mean.
    """
    bgr = 128.0 * video[..., ::-1].astype(jnp.float32)
    for axis in (2, 3):
        bgr = _resize_aligned(bgr, axis, SIZE)
    return bgr + (128.0 - mean)


def _resize_aligned(x: Array, axis: int, size: int) -> Array:
    """Bilinear resize of one axis, whose first and last samples stay first and last."""
    position = np.linspace(0, x.shape[axis] - 1, size)
    low = np.minimum(position.astype(np.int64), max(x.shape[axis] - 2, 0))
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    weight = (position - low).astype(np.float32).reshape(shape)
    return jnp.take(x, low, axis) * (1 - weight) + jnp.take(x, high, axis) * weight


def _mean_clip(mean: np.ndarray, path: str | Path) -> np.ndarray:
    """The part of the mean that TGANv2 takes, [8:120, 8:120], whatever its width."""
    mean = mean.reshape(mean.shape[-4:])
    if list(mean.shape[:2]) != [3, NUM_FRAMES] or min(mean.shape[2:]) < 120:
        raise UserError(
            f"C3D mean {path}: an array of shape {mean.shape}, not (3, 16, 128, 128 or more)."
        )
    return np.ascontiguousarray(mean[:, :, 8:120, 8:120].transpose(1, 2, 3, 0), np.float32)


def find(path: str | Path) -> Path:
    """The path of a file for `load`, if it is there; else a `UserError`."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"C3D: {path} does not exist; {_WHERE}.")
    return path


def _read(path: str | Path) -> dict[str, np.ndarray]:
    path = find(path)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return dict(file)
    except (OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"C3D: {path} cannot be read ({error}); {_WHERE}.") from error


def _array(arrays: dict[str, np.ndarray], name: str, path: str | Path) -> np.ndarray:
    if name not in arrays:
        raise UserError(f"C3D: {path} has no array {name!r}, only {sorted(arrays)[:5]}; {_WHERE}.")
    return np.asarray(arrays[name], np.float32)
