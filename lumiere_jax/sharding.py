"""Placement of arrays on devices: data parallelism over a mesh with the axis "data"."""

import math

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lumiere_jax.errors import UserError


def training_shardings(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """Shardings of a training step over all devices.

    Args:
      batch_size: clips of a global batch.

    Returns:
      Of what every device holds whole, and of arrays that are split by clip.

    Raises:
      UserError: if the batch cannot be split evenly.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by the {devices} devices; use a "
            f"multiple of {devices}."
        )
    return _shardings(devices)


def sampling_shardings(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """As `training_shardings`, over as many devices as divide the batch evenly."""
    return _shardings(math.gcd(batch_size, jax.device_count()))


def _shardings(num_devices: int) -> tuple[NamedSharding, NamedSharding]:
    mesh = jax.make_mesh(
        (num_devices,),
        ("data",),
        devices=jax.devices()[:num_devices],
        axis_types=(AxisType.Auto,),
    )
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
