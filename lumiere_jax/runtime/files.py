"""Files that are never seen half-written, in a local folder or a bucket.

(Atomic writers of libraries know no buckets, and none replaces a folder.)
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from etils import epath

from lumiere_jax.runtime.errors import UserError


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[Path]:
    """A local file to write, which becomes `path` if all went well; an `OSError` if it cannot be.

    Beside a local `path` it has a temporary name, and is renamed. For one in a bucket
    ("gs://BUCKET/NAME") it is in a temporary folder, and is uploaded: a bucket shows only whole
    objects.
    """
    place = epath.Path(path).expanduser()
    if "://" in str(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / place.name
            yield temporary
            place.write_bytes(temporary.read_bytes())
        return
    temporary = Path(place).with_name(f".{place.stem}-{uuid.uuid4().hex[:8]}{place.suffix}")
    try:
        yield temporary
        os.replace(temporary, place)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def local(path: str | os.PathLike) -> Path:
    """A path of this machine; a `UserError` in a bucket, where no folder can be renamed."""
    if "://" in str(path):
        raise UserError(f"{path} is in a bucket; write a local folder, and copy it there.")
    return Path(path).expanduser()


@contextlib.contextmanager
def written_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to fill, which becomes the local folder `path` and replaces a former one.

    Folders above it are made. An error or an interruption (SIGINT, SIGTERM) leaves nothing behind,
    and what was at `path` stays. If it cannot be written, that is a `UserError`.
    """
    path = local(path)
    try:
        path = path.resolve()  # behind a link, which stays
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another.") from error
    with _sigterm_is_raised():
        try:
            yield temporary
            temporary.chmod(0o755)
            if path.exists():
                _exchange(temporary, path)
            else:
                os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error}); nothing was changed.") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _sigterm_is_raised() -> Iterator[None]:
    """Ends the process at SIGTERM by an exception, unless there is a handler already."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exchange(temporary: Path, path: Path) -> None:
    """Replaces a folder by another one."""
    former = temporary.with_name(f"{temporary.name}-former")
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        os.replace(path, former)
        try:
            os.replace(temporary, path)
        except OSError:
            os.replace(former, path)
            raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    shutil.rmtree(former, ignore_errors=True)


def keep_others(former: Path, folder: Path, but: Collection[str] = ()) -> None:
    """Copies all but some names of a folder into the one that replaces it and keeps what it has.

    Raises:
      UserError: if there is something that is neither a file, a folder nor a link.
      OSError: if it cannot be copied.
    """
    for path in former.iterdir():
        target = folder / path.name
        if path.name in but or target.exists():
            continue
        if path.is_symlink() or path.is_file():
            shutil.copy2(path, target, follow_symlinks=False)
        elif path.is_dir():
            target.mkdir()
            keep_others(path, target)
        else:
            raise UserError(f"{path} is neither a file nor a folder; move it away.")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, by `written`."""
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
