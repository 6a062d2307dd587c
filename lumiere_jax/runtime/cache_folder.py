"""A folder of things that took long to make, for the next process of the same user."""

import contextlib
import hashlib
import logging
import os
import stat
import time
from pathlib import Path

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

VARIABLE = "LUMIERE_CACHE"
"""Of the environment: the folder; "" for none."""

_MOST_BYTES = 2**31
_DIGEST = 32  # bytes of a file's own SHA-256, at its beginning
_LEFT_OVER_SECONDS = 3600  # age of a file that some process did not finish

_log = logging.getLogger("lumiere_jax")


class CacheFolder:
    """Bytes by their keys. Safe for processes that share it; what was not used for longest goes."""

    def __init__(self, path: Path, most_bytes: int = _MOST_BYTES):
        """Makes the folder, for this user alone; `OSError` if it cannot.

        Raises:
          UserError: if another user can write there, since what is read may be run.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own(path.stat()):
            raise UserError(
                f"{path} belongs to another user, or others can write to it, and the compiled "
                f"programs in it would be run; `chmod go-w` it, or set {VARIABLE} to another "
                'folder, or to "" for none.'
            )
        self._path, self._most_bytes = path, most_bytes

    @classmethod
    def of_user(cls) -> "CacheFolder | None":
        """The folder that `LUMIERE_CACHE` names, or that of the user; None if there is none.

        One that cannot be made is told in the log.
        """
        named, home = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        if named == "":
            return None
        path = Path(named or Path(home) / "lumiere_jax" / "programs").expanduser().absolute()
        try:
            return cls(path)
        except OSError as error:
            _log.warning("%s: compiled programs cannot be kept there (%s)", path, error.strerror)
            return None

    def read(self, key: str) -> bytes | None:
        """What was written; None if there is nothing, or nothing whole that this user wrote."""
        path = self._path / key
        try:
            data = _own_bytes(path, self._most_bytes)
            os.utime(path)  # it was used
        except OSError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
            return data[_DIGEST:]
        self.remove(key)
        return None

    def write(self, key: str, data: bytes) -> None:
        """Keeps something; `OSError` if it cannot."""
        with written(self._path / key) as path:
            path.write_bytes(hashlib.sha256(data).digest() + data)
        self._make_room()

    def remove(self, key: str) -> None:
        """Forgets something, if it is there."""
        with contextlib.suppress(OSError):
            (self._path / key).unlink()

    def _make_room(self) -> None:
        files = []
        for path in self._path.iterdir():
            with contextlib.suppress(OSError):  # another process removes files as well
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        size = sum(size for _, size, _ in files)
        for used, own, path in sorted(files):
            is_unfinished = path.name.startswith(".")
            is_old = time.time() - used > _LEFT_OVER_SECONDS
            if (is_unfinished and is_old) or (size > self._most_bytes and not is_unfinished):
                self.remove(path.name)
                size -= own


def _is_own(found: os.stat_result) -> bool:
    is_mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return is_mine and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _own_bytes(path: Path, most: int) -> bytes:
    """A file, no link, that nobody else has written; `OSError` for any other."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or not _is_own(found) or found.st_size > most:
            raise OSError(f"{path} is no file of this user alone")
        return file.read()
