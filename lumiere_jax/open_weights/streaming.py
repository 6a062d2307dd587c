"""Saves a tree of arrays of which no more than one is in memory."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import type_handlers


@dataclasses.dataclass(frozen=True)
class Deferred:
    """An array that is made when it is saved.

    Attributes:
      shape: of the array.
      dtype: of the array.
      read: makes it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Number of scalars."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes that it will take."""
        return self.size * self.dtype.itemsize


class _DeferredHandler(type_handlers.NumpyHandler):
    """Writes one array after the other, each before the next is read."""

    async def serialize(
        self,
        values: Sequence[Deferred],
        infos: Sequence[Any],
        args: Sequence[Any] | None = None,
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        for value, info, arg in zip(values, infos, args, strict=True):
            for written in await super().serialize([value.read()], [info], [arg]):
                written.result()
        return []


def save(place: epath.Path, tree: dict[str, Any]) -> None:
    """Saves a nested dict of `Deferred` in the layout of `checkpoint.Checkpointer`'s items.

    Args:
      place: a folder that does not exist yet.
      tree: what to save.
    """
    registry = type_handlers.create_type_handler_registry(
        (Deferred, _DeferredHandler(deepcopy_host_arrays=False)),
        (jax.Array, type_handlers.ArrayHandler()),  # or Orbax warns that it is not there
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    with ocp.Checkpointer(handler) as writer:
        writer.save(place, args=ocp.args.PyTreeSave(tree))
