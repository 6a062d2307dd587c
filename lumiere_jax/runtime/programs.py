"""Compiled programs: the latest ones in memory, and in a folder for the next process.

JAX's own compilation cache traces a function before it finds what it kept, which takes seconds, and
an entry that was cut off stays broken. Here a program is found by what it is made of: the files of
this package, libraries, processor, devices and settings, a text of whoever asks, and the shapes and
places of the arguments.
"""

import collections
import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from lumiere_jax.runtime.cache_folder import CacheFolder

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
_IRRELEVANT = ("cache", "log", "traceback", "dump", "debug_info")  # settings of JAX that matter not

_log = logging.getLogger("lumiere_jax")


class Programs:
    """Compiled programs. For one thread at a time; processes may share a folder."""

    def __init__(self, folder: CacheFolder | None = None, most: int | None = None):
        """Reads nothing yet.

        Args:
          folder: of programs that are kept; None: they are forgotten with this process.
          most: how many are held in memory; None for all.
        """
        self._folder, self._most = folder, most
        self._latest: collections.OrderedDict[str, jax.stages.Compiled] = collections.OrderedDict()

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._latest)

    def get(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        about: str,
        on_compile: Callable[[], None] | None = None,
        is_used_once: bool = False,
        **options: Any,
    ) -> jax.stages.Compiled:
        """A function compiled for arguments like these, and for the mesh in use.

        Args:
          function: takes arrays, and trees of them.
          arguments: of the shapes, and in the places, of those to come.
          about: all that the function depends on beside its arguments, this package and the
            environment.
          on_compile: called before what takes long, compilation.
          is_used_once: it is not held in memory.
          **options: of `jax.jit`, which follow from the others.
        """
        key = _key(about, arguments)
        if key not in self._latest:
            found = self._read(key)
            if found is None:
                if on_compile is not None:
                    on_compile()
                # A new function: JAX is not to have it compiled already, see below.
                jitted = jax.jit(lambda *arguments: function(*arguments), **options)
                found = self._compile(jitted, arguments, key)
            if is_used_once:
                return found
            self._latest[key] = found
        self._latest.move_to_end(key)
        while self._most is not None and len(self._latest) > self._most:
            self._latest.popitem(last=False)
        return self._latest[key]

    def _read(self, key: str) -> jax.stages.Compiled | None:
        """A program that was kept; None if there is none that can be used."""
        data = self._folder.read(key) if self._folder and jax.process_count() == 1 else None
        if self._folder is None or data is None:
            return None
        try:
            numbers, program, given, made = pickle.loads(data)
            devices = {device.id: device for device in jax.devices()}
            chosen = [devices[number] for number in numbers]
            return serialize_executable.deserialize_and_load(
                program, given, made, execution_devices=chosen
            )
        except Exception as error:  # of whatever kind JAX raises
            _log.warning("a program that was kept cannot be used, and is made again: %s", error)
            self._folder.remove(key)
            return None

    def _compile(
        self, function: jax.stages.Wrapped, arguments: tuple[Any, ...], key: str
    ) -> jax.stages.Compiled:
        if self._folder is None or jax.process_count() > 1:
            return function.lower(*arguments).compile()
        with _without_own_cache_of_jax():
            compiled = function.lower(*arguments).compile()
        self._write(self._folder, key, compiled)
        return compiled

    def _write(self, folder: CacheFolder, key: str, compiled: jax.stages.Compiled) -> None:
        try:
            executable: Any = compiled.runtime_executable()  # XLA's own, which has no public type
            devices = executable.local_devices()
            program = serialize_executable.serialize(compiled)
            numbers = [device.id for device in devices]
            folder.write(key, pickle.dumps((numbers, *program)))
        except Exception as error:  # of a device whose programs cannot be kept, or a full disk
            _log.warning("a compiled program cannot be kept for the next time: %s", error)


@contextlib.contextmanager
def _without_own_cache_of_jax() -> Iterator[None]:
    """A program that JAX has read from there lacks functions when it is written again."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _key(about: str, arguments: tuple[Any, ...]) -> str:
    leaves, structure = jax.tree.flatten(arguments)
    circumstances = _environment(), _settings(), jax.sharding.get_abstract_mesh()
    digest = hashlib.sha256(repr((circumstances, about, str(structure))).encode())
    for leaf in leaves:
        digest.update(f"{leaf.shape} {leaf.dtype} {_place(leaf)}\n".encode())
    return digest.hexdigest()


def _place(leaf: Any) -> str:
    if not isinstance(leaf, jax.Array):
        return ""
    return f"{_sharding(leaf.sharding)} {leaf.committed} {jax.typeof(leaf).weak_type}"


@functools.lru_cache
def _sharding(sharding: jax.sharding.Sharding) -> str:
    devices: Any = sharding.device_set
    numbers = sorted(device.id for device in devices)
    if isinstance(sharding, jax.sharding.NamedSharding):
        numbers = sharding.mesh.device_ids.ravel().tolist()
    return f"{sharding} {numbers}"


@functools.cache
def _environment() -> str:
    """What decides how any function is compiled in this process."""
    device = jax.devices()[0]
    return repr(
        [
            _package_digest(),
            [importlib.metadata.version(name) for name in _LIBRARIES],
            [platform.python_version(), platform.machine(), _processor(), os.cpu_count()],
            [device.client.platform_version, *(d.device_kind for d in jax.devices())],
            [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
        ]
    )


def _settings() -> list[str]:
    """JAX's own, which may change meanwhile."""
    relevant = [
        f"{name}={value}"
        for name, value in jax.config.values.items()
        if not any(word in name for word in _IRRELEVANT)
    ]
    return [*sorted(relevant), str(jax.dtypes.canonicalize_dtype(float))]


def _package_digest() -> str:
    """Of all files of this package: any of them may decide what is computed."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    """Its name and the instructions that it has; what is compiled for it runs on no other."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Feat")))
    return platform.processor()
