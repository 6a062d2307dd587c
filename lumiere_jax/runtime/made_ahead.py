"""Compiled programs in a folder that a job is given: made before it started, or by its first run.

A file holds a line of JSON, which says what is in it and what it was made for, and the program.
Loading one runs code of whoever wrote it, so a folder is read only if it is named on purpose.
"""

import datetime
import hashlib
import json
import stat
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from lumiere_jax.runtime import distributed, executables, program_key
from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

_SHOWN = ("libraries", "devices")  # parts of a key that people can read


class MadeAhead:
    """Programs by their names, such as "training step", and the parts of their keys."""

    def __init__(self, folder: str):
        """Reads nothing yet.

        Args:
          folder: local or in a bucket; it need not exist.

        Raises:
          UserError: if any user of this machine can write there, since what is read is run.
        """
        self._folder = epath.Path(folder)
        if "://" not in folder and self._folder.exists():
            if not self._folder.is_dir():
                raise UserError(f"{folder} is no folder of compiled programs, but a file.")
            if self._folder.stat().mode & stat.S_IWOTH:
                raise UserError(
                    f"{folder}: anyone can write to it, and the compiled programs in it would be "
                    "run; `chmod o-w` it, if you trust what is there."
                )

    def load(self, name: str, parts: Mapping[str, str]) -> jax.stages.Compiled | None:
        """The program, or None if there is none for these parts; says which, and why.

        All processes of a job make this call, and all get the program or none of them.
        """
        begin, path, found = time.monotonic(), self.place(name, parts), None
        try:
            if path.exists():
                found = executables.from_bytes(_contents(path))
                reason = "another process of this job could not read it"
            else:
                reason = self._what_differs(name, parts)
        except Exception as error:  # of whatever kind a file system, `pickle` or JAX raises
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = f"{path.name} cannot be used: {first_line:.200}"
        if distributed.agree(found is not None):
            seconds = time.monotonic() - begin
            say(f"the {name} was made ahead: loaded {path} in {seconds:.1f} s")
            return found
        say(f"the {name} is compiled, since {self._folder} has none that fits ({reason})")
        return None

    def save(
        self, name: str, parts: Mapping[str, str], compiled: jax.stages.Compiled
    ) -> epath.Path:
        """Writes a program; the error of a file system, or of JAX, if that cannot be."""
        program, path = executables.to_bytes(compiled), self.place(name, parts)
        head = {
            "program": name,
            "bytes": len(program),
            "sha256": hashlib.sha256(program).hexdigest(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "key": dict(parts),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        with written(path) as file:
            file.write_bytes(json.dumps(head, ensure_ascii=False).encode() + b"\n" + program)
        return path

    def place(self, name: str, parts: Mapping[str, str]) -> epath.Path:
        """The file of a program."""
        return self._folder / f"{_file_name(name)}-{program_key.digest(parts)[:16]}.program"

    def _what_differs(self, name: str, parts: Mapping[str, str]) -> str:
        """What the program is made for that comes nearest."""
        paths = self._folder.glob(f"{_file_name(name)}-*.program") if self._folder.exists() else ()
        others = [_differing(_head(path)["key"], parts) for path in paths]
        if not others:
            return f"there is no {name}"
        nearest = min(others, key=len)
        return f"what differs: {', '.join(nearest)}"


def _file_name(name: str) -> str:
    return name.replace(" ", "_")


def _differing(made_for: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The parts that are not the same, with their values where these can be read."""
    names = [name for name in wanted if made_for.get(name) != wanted[name]]
    return [
        f"{name} ({made_for.get(name)} there, {wanted[name]} here)" if name in _SHOWN else name
        for name in names
    ]


def _head(path: epath.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return json.loads(file.readline())


def _contents(path: epath.Path) -> bytes:
    """The program of a file, if it is whole."""
    head, _, program = path.read_bytes().partition(b"\n")
    if hashlib.sha256(program).hexdigest() != json.loads(head)["sha256"]:
        raise ValueError("it is damaged")
    return program
