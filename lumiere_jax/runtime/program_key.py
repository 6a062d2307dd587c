"""What decides how a function is compiled, in named parts, so that one can say which one differs.

A machine without a TPU finds the same parts for a slice that it only has a description of as the
slice itself does.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
# Settings of JAX that matter not; the devices themselves are in the key.
_IRRELEVANT = ("cache", "log", "traceback", "dump", "debug_info", "jax_platform", "create_options")


def key_parts(about: str, arguments: tuple[Any, ...]) -> dict[str, str]:
    """The parts, by what people call them.

    Args:
      about: all that the function depends on beside its arguments, this package and the
        environment.
      arguments: arrays, or shapes with their shardings, in trees; for the mesh in use.
    """
    leaves, structure = jax.tree.flatten(arguments)
    devices = _devices(leaves)
    is_tpu = devices[0].platform == "tpu"
    mesh = jax.sharding.get_abstract_mesh()
    places = repr((str(structure), mesh.shape_tuple, mesh.axis_types))
    digest = hashlib.sha256(places.encode())
    for leaf in leaves:
        digest.update(f"{leaf.shape} {leaf.dtype} {_place(leaf)}\n".encode())
    return {
        "code of lumiere_jax": package_digest(),
        "libraries": _versions((*_LIBRARIES, "libtpu") if is_tpu else _LIBRARIES),
        "host": "" if is_tpu else _host(devices[0]),
        "devices": _described(devices),
        "flags of XLA": _flags(),
        "settings of JAX": json.dumps(_settings()),
        "config": about,
        "shapes and places of arrays": digest.hexdigest(),
    }


def digest(parts: Mapping[str, str]) -> str:
    """One text for all parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def package_digest() -> str:
    """Of all files of this package: any of them may decide what is computed."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


@functools.cache
def _versions(libraries: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)


def _devices(leaves: Sequence[Any]) -> list[Any]:
    """Those of a mesh that arguments are on; without any, all that this process knows."""
    for leaf in leaves:
        if isinstance(sharding := getattr(leaf, "sharding", None), jax.sharding.NamedSharding):
            return list(sharding.mesh.devices.flat)
    return jax.devices()


def _described(devices: Sequence[Any]) -> str:
    """How many of which kind, and a digest of where each is, in their order."""
    names = ("id", "coords", "core_on_chip", "slice_index")
    where = [[getattr(device, name, None) for name in names] for device in devices]
    short = hashlib.sha256(json.dumps(where).encode()).hexdigest()[:8]
    return f"{len(devices)} × {devices[0].device_kind}, arranged as {short}"


def _place(leaf: Any) -> str:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return ""
    weak = getattr(leaf, "weak_type", False)
    return f"{_sharding(sharding)} {getattr(leaf, 'committed', True)} {weak}"


@functools.lru_cache
def _sharding(sharding: jax.sharding.Sharding) -> str:
    devices: Any = sharding.device_set
    numbers = sorted(device.id for device in devices)
    if isinstance(sharding, jax.sharding.NamedSharding):
        numbers = sharding.mesh.device_ids.ravel().tolist()
    return f"{sharding} {numbers}"


@functools.cache
def _host(device: Any) -> str:
    """What a program of a CPU, or the compiler of a GPU, depends on."""
    processor = [platform.machine(), _processor(), os.cpu_count()]
    version = platform.python_version(), device.client.platform_version
    return repr([*version, *(processor if device.platform == "cpu" else ())])


def _flags() -> str:
    names = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
    return " ".join(flag for name in names for flag in os.environ.get(name, "").split())


def _settings() -> list[str]:
    """JAX's own, which may change meanwhile."""
    relevant = [
        f"{name}={value}"
        for name, value in jax.config.values.items()
        if not any(word in name for word in _IRRELEVANT)
    ]
    return [*sorted(relevant), str(jax.dtypes.canonicalize_dtype(float))]


@functools.cache
def _processor() -> str:
    """Its name and the instructions that it has; what is compiled for it runs on no other."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Feat")))
    return platform.processor()
