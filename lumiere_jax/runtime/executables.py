"""Compiled programs as bytes.

Whoever loads such bytes runs what is in them, as with any pickle: only those that this user, or
somebody whom this user trusts with code, has written may be loaded.
"""

import contextlib
import pickle
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache


def to_bytes(compiled: jax.stages.Compiled) -> bytes:
    """A program that was compiled here, for these devices or for others."""
    return pickle.dumps((_device_numbers(compiled), *serialize_executable.serialize(compiled)))


def from_bytes(data: bytes) -> jax.stages.Compiled:
    """The program, ready for the devices of this process and its peers.

    Raises any error of JAX or of `pickle` if these are not the devices, or the bytes no program.
    """
    numbers, program, given, made = pickle.loads(data)
    devices = {device.id: device for device in jax.devices()}
    return serialize_executable.deserialize_and_load(
        program, given, made, execution_devices=[devices[number] for number in numbers]
    )


def _device_numbers(compiled: jax.stages.Compiled) -> list[int]:
    """Of all its devices, in their order; those of a slice elsewhere stand in its arguments."""
    executable: Any = compiled.runtime_executable()  # XLA's own, which has no public type
    if hasattr(executable, "local_devices") and jax.process_count() == 1:
        return [device.id for device in executable.local_devices()]
    shardings = jax.tree.leaves(compiled.input_shardings)
    meshes = [s.mesh for s in shardings if isinstance(s, jax.sharding.NamedSharding)]
    return meshes[0].device_ids.ravel().tolist()


@contextlib.contextmanager
def without_own_cache_of_jax() -> Iterator[None]:
    """A program that JAX has read from there lacks functions when it is written again."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
