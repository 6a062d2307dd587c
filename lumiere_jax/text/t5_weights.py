"""The weights of a T5 encoder: from the files of Hugging Face into their place on a mesh."""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.distributed import is_primary
from lumiere_jax.runtime.progress import Progress
from lumiere_jax.runtime.safetensors_reading import TensorFiles
from lumiere_jax.runtime.sharding import state_shardings
from lumiere_jax.text.t5_network import Architecture, T5Encoder

_BLOCK = "encoder.block.{}.layer"
_NAMES = {
    "token_embedding/embedding": "shared.weight",
    "relative_bias/embedding": (
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ),
    "blocks/attention_norm/scale": f"{_BLOCK}.0.layer_norm.weight",
    "blocks/attention/query/kernel": f"{_BLOCK}.0.SelfAttention.q.weight",
    "blocks/attention/key/kernel": f"{_BLOCK}.0.SelfAttention.k.weight",
    "blocks/attention/value/kernel": f"{_BLOCK}.0.SelfAttention.v.weight",
    "blocks/attention/out/kernel": f"{_BLOCK}.0.SelfAttention.o.weight",
    "blocks/feed_forward_norm/scale": f"{_BLOCK}.1.layer_norm.weight",
    "blocks/feed_forward/gate/kernel": f"{_BLOCK}.1.DenseReluDense.wi_0.weight",
    "blocks/feed_forward/wide/kernel": f"{_BLOCK}.1.DenseReluDense.wi_1.weight",
    "blocks/feed_forward/narrow/kernel": f"{_BLOCK}.1.DenseReluDense.wo.weight",
    "final_norm/scale": "encoder.final_layer_norm.weight",
}
"""Tensors of our parameters; "{}" is the number of a block. Kernels are transposed there."""

_SAMPLED_ROWS = 3
_QUIET_BELOW = 100_000_000  # scalars, which are there at once


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """Where a parameter's numbers are."""

    tensors: tuple[str, ...]  # names; of one for each block, or of the only one
    is_stacked: bool  # whether the first axis counts blocks
    is_transposed: bool  # whether the tensors are
    shape: tuple[int, ...]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of each of the tensors."""
        shape = self.shape[1:] if self.is_stacked else self.shape
        return shape[::-1] if self.is_transposed else shape

    def read(self, files: TensorFiles, index: tuple[slice, ...], dtype: np.dtype) -> np.ndarray:
        """A slice of the parameter; nothing else is read."""
        first, rest = (index[0], index[1:]) if self.is_stacked else (slice(None), index)
        part = rest[::-1] if self.is_transposed else rest
        names = self.tensors[first]
        bounds = zip(index, self.shape, strict=True)
        sizes = [len(range(*bound.indices(size))) for bound, size in bounds]
        bits = f"u{dtype.itemsize}"  # NumPy transposes bfloat16 one number at a time
        found = np.empty(sizes, bits)
        for row, name in zip(found if self.is_stacked else [found], names, strict=True):
            tensor = files.read_slice(name, part).astype(dtype, copy=False).view(bits)
            row[...] = tensor.T if self.is_transposed else tensor
        return found.view(dtype)


def parameter_shapes(architecture: Architecture, dtype: Any) -> Params:
    """Shapes and dtypes of the parameters of a `T5Encoder`."""
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 2), bool)
    network = T5Encoder(architecture, dtype)
    return jax.eval_shape(network.init, jax.random.key(0), tokens, mask)["params"]


def load(files: TensorFiles, architecture: Architecture, dtype: Any, mesh: Mesh) -> Params:
    """Reads the parameters of a `T5Encoder`, each device's part of them straight to the device.

    The host never holds more than one device's part of one parameter. A process reads only the
    parts of its own devices, see `sharding.state_shardings`. Files may be of a whole T5, whose
    decoder is left aside; `dtype` is that of the matrices. A tensor that is missing, or has another
    shape, is a `UserError`.
    """
    parameters = _parameters(files, architecture)
    shapes = parameter_shapes(architecture, dtype)
    flat, shardings = flatten_dict(shapes, sep="/"), state_shardings(shapes, mesh)
    shardings = flatten_dict(shardings, sep="/")
    total = sum(leaf.size for leaf in flat.values())
    devices = len(mesh.local_devices)
    progress = Progress(
        "loading T5", len(flat) * devices, "parts", quiet=total < _QUIET_BELOW or not is_primary()
    )
    loaded, done = {}, 0
    for path, leaf in flat.items():
        parts = []
        indices = shardings[path].addressable_devices_indices_map(leaf.shape)
        for device, index in indices.items():
            part = parameters[path].read(files, index, leaf.dtype)
            # Waited for, so that the next part does not come on top of it.
            parts.append(jax.block_until_ready(jax.device_put(part, device)))
            done += 1
            progress.update(done)
        loaded[path] = jax.make_array_from_single_device_arrays(leaf.shape, shardings[path], parts)
    return unflatten_dict(loaded, sep="/")


def fingerprint(files: TensorFiles, architecture: Architecture, tokenizer: str) -> str:
    """Tells encoders apart without reading all of them.

    It depends on the architecture, the tokenizer's fingerprint, and some rows of every tensor,
    rounded to bfloat16: a copy in bfloat16 of weights in float32 has the same. It has 16
    hexadecimal digits.
    """
    digest = hashlib.sha256(tokenizer.encode())
    digest.update(json.dumps(dataclasses.asdict(architecture), sort_keys=True).encode())
    tensors = [parameter.tensors for parameter in _parameters(files, architecture).values()]
    for name in sorted(itertools.chain(*tensors)):
        rows = files.shape(name)[0]
        for row in sorted({rows * i // _SAMPLED_ROWS for i in range(_SAMPLED_ROWS)} | {rows - 1}):
            sample = files.read_slice(name, (slice(row, row + 1),))
            digest.update(sample.astype(ml_dtypes.bfloat16).tobytes())
    return digest.hexdigest()[:16]


def _parameters(files: TensorFiles, architecture: Architecture) -> dict[str, _Parameter]:
    """Where every parameter is; checked before anything is read."""
    parameters = {}
    for path, leaf in flatten_dict(parameter_shapes(architecture, jnp.float32), sep="/").items():
        is_stacked = path.startswith("blocks/")
        tensors = tuple(_tensor_names(files, path, architecture))
        parameters[path] = _Parameter(tensors, is_stacked, path.endswith("/kernel"), leaf.shape)
        for name in parameters[path].tensors:
            files.check_shape(name, parameters[path].tensor_shape)
    return parameters


def _tensor_names(files: TensorFiles, path: str, architecture: Architecture) -> Iterator[str]:
    name = _NAMES[path]
    if architecture.feed_forward_proj == "relu":
        name = name.replace("wi_1", "wi")
    if name == "shared.weight" and name not in files.names():
        name = "encoder.embed_tokens.weight"  # the same table, in files of an encoder alone
    blocks = range(architecture.num_layers) if "{}" in name else (0,)
    return (name.format(block) for block in blocks)


def count(architecture: Architecture) -> int:
    """Number of parameters of an encoder."""
    leaves = jax.tree.leaves(parameter_shapes(architecture, jnp.float32))
    return sum(math.prod(leaf.shape) for leaf in leaves)
