"""What `python -m lumiere_jax.serve` does."""

import contextlib
import fcntl
import ipaddress
import os
import resource
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store
from lumiere_jax.serving.supervisor import Supervisor

_GRACE_SECONDS = 5  # for requests that are being answered when the server ends
_SHORTEST_KEY = 16
_CACHES = ("KERAS_HOME", "MPLCONFIGDIR")  # where libraries write as they are imported


def serve(
    settings: Settings,
    *,
    num_workers: int,
    host: str,
    port: int,
    key_file: str | None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serves, with workers beside, until SIGTERM or Ctrl-C.

    Args:
      settings: see there.
      num_workers: beside the server.
      host: address to serve at, or its name.
      port: to serve at; 0 for any.
      key_file: see `read_keys`.
      allowed_hosts: see `names`.

    Raises:
      UserError: if bundle, database, key file or address cannot be used.
    """
    import uvicorn

    from lumiere_jax.serving.app import make_app
    from lumiere_jax.serving.patience import PatientProtocol

    _allow_files()
    keys = read_keys(key_file)
    models = Models.read(settings.bundle, distilled=settings.distilled)
    listening = listen(host, port)
    database = Database(settings.database)
    is_local = ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
    hosts = names(host, is_open=not keys and is_local, allowed=allowed_hosts)
    app = make_app(Store(database), models, settings, keys, lambda: server.should_exit, hosts)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    # uvicorn hands the signal on when it has ended; there is still something to do then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    supervisor = Supervisor(database, settings, num_workers)
    supervisor.start()
    try:
        where = address(host, listening.getsockname()[1])
        print(f"serving {settings.bundle} at {where} with {num_workers} workers", flush=True)
        server.run(sockets=[listening])
    finally:
        supervisor.stop()
        database.close()


def _allow_files() -> None:
    """Lets this process have as many connections as the system permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems permit less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def work(settings: Settings, num_workers: int) -> None:
    """Runs workers alone until SIGTERM or Ctrl-C.

    Raises:
      UserError: if bundle or database cannot be used.
    """
    Models.read(settings.bundle, distilled=settings.distilled)
    database, ending = Database(settings.database), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ending.set())
    supervisor = Supervisor(database, settings, num_workers)
    supervisor.start()
    try:
        print(f"{num_workers} workers take jobs from {database.shown}", flush=True)
        while not ending.wait(1.0):
            pass
    finally:
        supervisor.stop()
        database.close()


@contextlib.contextmanager
def data_folder(folder: Path) -> Iterator[Path]:
    """Makes a folder this process's own while it runs, and the place of all its temporary files.

    Returns:
      Where these are to be.

    Raises:
      UserError: if it cannot be written, or another server has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(
            f"--data={folder} cannot be written ({error.strerror}); give another folder."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"--data={folder} is used by another server that runs; give another folder, or end "
                "that one."
            ) from error
        scratch = folder / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
        scratch.mkdir()
        before, tempfile.tempdir = tempfile.tempdir, str(scratch)
        for name in _CACHES:
            os.environ.setdefault(name, str(folder / "cache" / name.lower()))
        try:
            yield scratch
        finally:
            tempfile.tempdir = before
            shutil.rmtree(scratch, ignore_errors=True)


def read_keys(path: str | None) -> list[str]:
    """The API keys of a file, one a line; none without a file.

    Raises:
      UserError: if it cannot be read, has no key, or one that is too short to be secret.
    """
    if path is None:
        return []
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--api_key_file={path} cannot be read ({error}); write a key of ASCII letters on each "
            "line."
        ) from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys or min(map(len, keys)) < _SHORTEST_KEY:
        raise UserError(
            f"--api_key_file={path}: write at least one key of {_SHORTEST_KEY} characters or more, "
            "one a line, such as `openssl rand -hex 16` makes."
        )
    return keys


def names(host: str, *, is_open: bool, allowed: Sequence[str]) -> set[str] | None:
    """Names that a server may be called by, beside addresses; None: any.

    The page of a stranger can give its own name the address of the loopback, and is then no page of
    another site to the browser.

    Args:
      host: what it serves at.
      is_open: whether to be on this machine is all that a client needs.
      allowed: further names, as of a proxy.
    """
    if not is_open and not allowed:
        return None
    return {"localhost", host.lower(), *(name.strip().lower() for name in allowed)}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      UserError: if the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # What Python makes of it repeats the address; names that are not found have no errno.
        reason = os.strerror(error.errno) if (error.errno or 0) > 0 else error.strerror
        raise UserError(
            f"cannot serve at {host}:{port} ({reason}); give another --port or --host."
        ) from error


def address(host: str, port: int) -> str:
    """Where a browser finds the server."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
