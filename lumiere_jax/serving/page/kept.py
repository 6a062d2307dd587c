"""Files of visitors that the page keeps: for an hour, and of no visitor more than a share."""

import collections
import contextlib
import dataclasses
import re
import time
import uuid
from pathlib import Path

from lumiere_jax.serving.shares import Shares

_SECONDS = 3600.0 + 120  # Gradio deletes what it knows of after an hour, and is to do so first
_SWEEP_SECONDS = 60.0  # `sweep` is called more often than that
_MOST_FILES = 2**14  # the least that one counts as is this part of all bytes
_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)


@dataclasses.dataclass
class Share:
    """Bytes that a visitor holds."""

    since: float
    client: str
    amount: int


class Kept:
    """The folder of these files. For one thread, but for `sweep`."""

    def __init__(self, folder: Path, max_upload: int):
        """Keeps as many bytes together as 32 uploads of the largest size have."""
        self.folder, self.max_upload, most = folder.resolve(), max_upload, 32 * max_upload
        self._shares, self._least = Shares(most), most // _MOST_FILES
        self._taken: collections.deque[Share] = collections.deque()
        self._lasting: set[Path] = set()

    def spare(self) -> None:
        """What is there now is not deleted."""
        self._lasting = set(self.folder.rglob("*"))

    def take(self, client: str, size: int) -> Share | None:
        """A share of so many bytes, until what is written is deleted; None if it is too much."""
        now = time.monotonic()
        while self._taken and now - self._taken[0].since > _SECONDS + _SWEEP_SECONDS:
            ended = self._taken.popleft()
            self._shares.give(ended.client, ended.amount)
            ended.amount = 0
        share = Share(now, client, size + self._least)
        if not self._shares.take(client, share.amount):
            return None
        self._taken.append(share)
        return share

    def settle(self, share: Share, written: int) -> None:
        """Gives back what was announced and not written."""
        left = max(share.amount - (written + self._least if written else 0), 0)
        share.amount -= left
        self._shares.give(share.client, left)

    def write(self, content: bytes, name: str) -> str:
        """The path of a new file, which nobody can guess."""
        path = self.folder / uuid.uuid4().hex / (_UNSAFE.sub("_", name)[-60:].lstrip(".") or "file")
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return str(path)

    def sweep(self) -> None:
        """Deletes what is older than an hour, and folders with nothing in them."""
        before = time.time() - _SECONDS
        for path in sorted(self.folder.rglob("*"), reverse=True):  # a folder after what is in it
            with contextlib.suppress(OSError):  # a folder that is not empty, or what is gone by now
                if path not in self._lasting and path.lstat().st_ctime < before:
                    path.rmdir() if path.is_dir() else path.unlink()
