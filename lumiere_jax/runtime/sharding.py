"""Placement of arrays on a pod: a mesh with named axes, and short rules from names to its axes.

The axes of the mesh are

- "data": every position holds all of the parameters; slices of a multi-slice job lie along it, so
  that only gradients cross the data-centre network;
- "fsdp": the parameters, their optimizer state and their EMA are split over it, and so is the
  batch (fully sharded data parallelism, arXiv 1910.02054, 2304.11277);
- "space": rows of pixels of one clip or, at sampling, windows of MultiDiffusion.

Models name logical axes only ("clips", "height"), samplers "windows" and the "rows" of whole clips;
`logical_rules` says what they mean.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lumiere_jax.runtime.config_section import ConfigSection
from lumiere_jax.runtime.errors import UserError

AXES = ("data", "fsdp", "space")
BATCH_AXES = ("data", "fsdp")
_SMALLEST_SPLIT = 2**14  # scalars; gathering less costs more than it saves

PARAMETER_RULES = (
    (r"(^|/)(bias|scale|position|count|step)$", "whole"),
    (r"", "fsdp"),
)
"""The first pattern found in a parameter's path decides whether every device holds it whole."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(ConfigSection):
    """The size of each axis of `AXES`; one of them may be -1: the devices that are left."""

    data: int = -1
    fsdp: int = 1
    space: int = 1


def create_mesh(config: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges devices, by default those of all processes, in the mesh of a `MeshConfig`.

    Sizes that do not fit the devices, or the slices of the job, are a `UserError`.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _axis_sizes({axis: config[axis] for axis in AXES}, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if sizes[0] % slices:
        raise UserError(
            f"mesh.data={sizes[0]} is not divisible by the {slices} slices of this job, which lie "
            f"along it; use a multiple of {slices}."
        )
    if slices > 1:
        within = (sizes[0] // slices, *sizes[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            within, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    elif devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        grid = np.array(devices).reshape(sizes)
    return _mesh(grid)


def _mesh(grid: np.ndarray) -> Mesh:
    # Linen's logical constraints fail under the explicit axes that are JAX's default.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _axis_sizes(wanted: dict[str, int], num_devices: int) -> tuple[int, ...]:
    text = ", ".join(f"mesh.{axis}={size}" for axis, size in wanted.items())
    free = [axis for axis, size in wanted.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in wanted.values()):
        raise UserError(f"{text}: sizes must be 1 or more, and one of them may be -1 (the rest).")
    fixed = math.prod(size for size in wanted.values() if size != -1)
    if num_devices % fixed or (not free and fixed != num_devices):
        raise UserError(
            f"{text} do not fit {num_devices} devices: the product must "
            f"{'divide' if free else 'be'} {num_devices}; set one of them to -1 to let it follow."
        )
    return tuple(num_devices // fixed if size == -1 else size for size in wanted.values())


def local_mesh() -> Mesh:
    """All devices of this process, which share parameters and batches between them."""
    return _mesh(np.array(jax.local_devices()).reshape(1, -1, 1))


def sampling_mesh(batch_size: int, fits: Callable[[int], bool]) -> Mesh:
    """A mesh for sampling: clips over "data" as far as they go, then parts of clips over "space".

    It has as many devices as that keeps busy; `fits` says whether a clip, or its windows, can be
    split into a number of parts.
    """
    devices = jax.devices()
    data = math.gcd(batch_size, len(devices))
    left = len(devices) // data
    space = max(n for n in range(1, left + 1) if left % n == 0 and fits(n))
    return _mesh(np.array(devices[: data * space]).reshape(data, 1, space))


def space_size() -> int:
    """Size of the axis "space" of the mesh in use, 1 outside of any."""
    return jax.sharding.get_abstract_mesh().shape.get("space", 1)


def logical_rules(space: str) -> tuple[tuple[str, Any], ...]:
    """What the models' axis names mean; the axis "space" splits `space`: "height" or "windows"."""
    return (
        ("clips", BATCH_AXES),
        ("rows", "space"),
        ("height", "space" if space == "height" else None),
        ("windows", "space" if space == "windows" else None),
    )


@contextlib.contextmanager
def use_mesh(mesh: Mesh, space: str = "height") -> Iterator[None]:
    """Gives the models' axis names their meaning while a function is traced."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(logical_rules(space)):
        yield


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_clip(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose leading axis is the global batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def on_every_device(
    apply: Callable[[dict, jax.Array], jax.Array], mesh: Mesh
) -> jax.stages.Wrapped:
    """Compiles a network for a batch whose clips are split over all devices of a mesh.

    Every device computes its own clips as if it were alone, so that the number of devices does not
    change a bit of them.
    """
    whole, clips = PartitionSpec(), PartitionSpec(mesh.axis_names)
    return jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=(whole, clips), out_specs=clips))


def parameter_spec(path: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Where a parameter, or anything that belongs to one, lives on an axis "fsdp" of this size.

    Its path, with slashes ("down_0_0_block/conv_0/kernel"), is what those of its optimizer state
    and EMA end in. The output channels (the last axis) are split or, where these do not divide
    evenly, the input channels; small arrays are not, and neither are spatial axes of kernels: that
    would exchange halos of weights.
    """
    rule = next(rule for pattern, rule in PARAMETER_RULES if re.search(pattern, path))
    if rule == "whole" or fsdp == 1 or math.prod(shape) < _SMALLEST_SPLIT:
        return PartitionSpec()
    for axis in range(len(shape) - 1, max(len(shape) - 3, -1), -1):
        if shape[axis] % fsdp == 0:
            return PartitionSpec(*[None] * axis, "fsdp")
    return PartitionSpec()


def state_shardings(shapes: Any, mesh: Mesh) -> Any:
    """Shardings of a training state, or of any tree whose paths end in parameters' paths."""

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, parameter_spec(name, leaf.shape, mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(place, shapes)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """A tree of `jax.ShapeDtypeStruct` with the shardings of another tree of the same structure."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a mesh splits a global batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Makes sure that a global batch can be split over devices; a `UserError` otherwise."""
    parts = batch_parts(mesh)
    if batch_size % parts:
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by {parts}, the devices that share "
            f"it ({' × '.join(f'{axis} {mesh.shape[axis]}' for axis in BATCH_AXES)}); use a "
            f"multiple of {parts}."
        )


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Assembles the global batch, split by clip, from each process's own part of it.

    The arrays of a part are `[batch_size / processes, ...]`, in the result `[batch_size, ...]`.
    """
    sharding, processes = by_clip(mesh), jax.process_count()
    return {
        name: jax.make_array_from_process_local_data(
            sharding, part, (len(part) * processes, *part.shape[1:])
        )
        for name, part in batch.items()
    }


def padded_batch(batch_size: int, mesh: Mesh) -> int:
    """The smallest batch of at least `batch_size` that can be split over a mesh."""
    parts = batch_parts(mesh)
    return -(-batch_size // parts) * parts


def placed(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has, on a mesh that may reach beyond this one."""
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def one_for_each_part(rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """A batch of a row for each part that a mesh splits it into, which repeats the rows it is of.

    Every process has the rows, and puts on its devices no more than belongs there.
    """
    shape = (batch_parts(mesh), *rows.shape[1:])

    def part(index: Any) -> np.ndarray:
        return rows[np.arange(shape[0])[index[0]] % len(rows)]

    return jax.make_array_from_callback(shape, by_clip(mesh), part)


def first_rows(batch: jax.Array, count: int) -> np.ndarray:
    """The first rows of a batch that is split over a mesh, as NumPy, on every process.

    All of them must call it. A device holds one row of the others at a time.
    """
    everywhere = NamedSharding(cast(NamedSharding, batch.sharding).mesh, PartitionSpec())
    pick = jax.jit(pick_row, out_shardings=everywhere)
    return np.stack([np.asarray(pick(batch, row).addressable_data(0)) for row in range(count)])


def pick_row(batch: jax.Array, row: jax.typing.ArrayLike) -> jax.Array:
    """A row of a batch that is split over devices, to be compiled.

    It is a sum with zeros, which changes nothing: for an index XLA gathers the whole batch.
    """
    is_row = (jnp.arange(len(batch)) == row).reshape(-1, *[1] * (batch.ndim - 1))
    return jnp.where(is_row, batch, 0).sum(axis=0)


def gather(batch: jax.Array | np.ndarray, count: int | None = None) -> np.ndarray:
    """The first rows of a batch, or all, as NumPy on every process; all of them must call it."""
    if isinstance(batch, np.ndarray) or batch.is_fully_addressable:
        return np.asarray(batch)[:count]
    return first_rows(batch, len(batch) if count is None else min(count, len(batch)))
