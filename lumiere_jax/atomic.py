"""Files that are never seen half-written, in a local folder or a bucket."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from lumiere_jax.errors import UserError


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[Path]:
    """A local file to write, which becomes `path` if all went well.

    Beside a local `path` it has a temporary name, and is renamed. For one in a bucket
    ("gs://BUCKET/NAME") it is in a temporary folder, and is uploaded: a bucket shows only whole
    objects.

    Raises:
      OSError: if the folder cannot be written.
    """
    path = epath.Path(path)
    if "://" in str(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            yield temporary
            path.write_bytes(temporary.read_bytes())
        return
    temporary = Path(path).with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def local(path: str | os.PathLike) -> Path:
    """A path of this machine.

    Raises:
      UserError: if it is in a bucket, where no folder can be renamed.
    """
    if "://" in str(path):
        raise UserError(f"{path} is in a bucket; write a local folder, and copy it there.")
    return Path(path)


@contextlib.contextmanager
def written_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to fill, which becomes the local folder `path`, in place of a former one.

    Folders above it are made. Of an error or an interruption nothing is left, and what was at
    `path` stays.

    Raises:
      UserError: if it cannot be written, or is in a bucket.
    """
    path = local(path).resolve()  # behind a link, which stays
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another.") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(temporary: Path, path: Path) -> None:
    """Puts a folder in the place of another one, which is removed."""
    former = temporary.with_name(f"{temporary.name}-former")
    os.replace(path, former)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8 so that nobody sees half of it.

    Raises:
      OSError: if the folder cannot be written.
    """
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
