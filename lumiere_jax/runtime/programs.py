"""Compiled programs: the latest ones in memory, and in a folder for the next process.

JAX's own compilation cache traces a function before it finds what it kept, which takes seconds, and
an entry that was cut off stays broken. Here a program is found by what it is made of, see
`program_key`.
"""

import collections
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax

from lumiere_jax.runtime import distributed, executables, program_key
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.made_ahead import MadeAhead

_log = logging.getLogger("lumiere_jax")


class Programs:
    """Compiled programs. For one thread at a time; processes may share a folder."""

    def __init__(
        self,
        folder: CacheFolder | None = None,
        most: int | None = None,
        made_ahead: MadeAhead | None = None,
    ):
        """Reads nothing yet.

        Args:
          folder: of programs that are kept; None: they are forgotten with this process.
          most: how many are held in memory; None for all.
          made_ahead: where those that have a name are found first, and else kept; jobs of several
            hosts may use it.
        """
        self._folder, self._most, self._made_ahead = folder, most, made_ahead
        self._latest: collections.OrderedDict[str, jax.stages.Compiled] = collections.OrderedDict()
        self._within: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._latest)

    @contextlib.contextmanager
    def compiling_within(
        self, context: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Until it is left, each compilation takes place inside a `context()`."""
        before, self._within = self._within, context
        try:
            yield
        finally:
            self._within = before

    def get(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        about: str,
        on_compile: Callable[[], None] | None = None,
        is_used_once: bool = False,
        name: str = "",
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
          name: of a program that may have been made ahead.
          **options: of `jax.jit`, which follow from the others.
        """
        parts = program_key.key_parts(about, arguments)
        key, store = program_key.digest(parts), self._made_ahead if name else None
        if key not in self._latest:
            found = store.load(name, parts) if store else self._read(key)
            if found is None:
                if on_compile is not None:
                    on_compile()
                with self._within():
                    found = self._compile(_new(function, options), arguments, store is not None)
                if store:
                    _save(store, name, parts, found)
                else:
                    self._write(key, found)
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
            return executables.from_bytes(data)
        except Exception as error:  # of whatever kind JAX raises
            _log.warning("a program that was kept cannot be used, and is made again: %s", error)
            self._folder.remove(key)
            return None

    def _compile(
        self, function: jax.stages.Wrapped, arguments: tuple[Any, ...], is_kept_elsewhere: bool
    ) -> jax.stages.Compiled:
        is_kept_here = self._folder and jax.process_count() == 1
        if not (is_kept_elsewhere or is_kept_here):
            return function.lower(*arguments).compile()
        with executables.without_own_cache_of_jax():
            return function.lower(*arguments).compile()

    def _write(self, key: str, compiled: jax.stages.Compiled) -> None:
        if self._folder is None or jax.process_count() > 1:
            return
        try:
            self._folder.write(key, executables.to_bytes(compiled))
        except Exception as error:  # of a device whose programs cannot be kept, or a full disk
            _log.warning("a compiled program cannot be kept for the next time: %s", error)


def _new(function: Callable[..., Any], options: dict[str, Any]) -> jax.stages.Wrapped:
    """A new function: JAX is not to have it compiled already, in its own cache's way."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    call.__name__ = getattr(function, "__name__", "call")  # in profiles, and logs of compilations
    return jax.jit(call, **options)


def _save(
    store: MadeAhead, name: str, parts: dict[str, str], compiled: jax.stages.Compiled
) -> None:
    """Keeps a program for the next run, on one process."""
    if not distributed.is_primary():
        return
    try:
        distributed.say(f"the {name} is kept in {store.save(name, parts, compiled)}")
    except Exception as error:
        _log.warning("the compiled %s cannot be kept for the next time: %s", name, error)
