"""What `python -m lumiere_jax.serve` does."""

import contextlib
import fcntl
import ipaddress
import os
import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lumiere_jax.runtime import web_server
from lumiere_jax.runtime.cache_folder import VARIABLE, CacheFolder
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store
from lumiere_jax.serving.supervisor import Supervisor

_SHORTEST_KEY = 16
_CACHES = (VARIABLE, "KERAS_HOME", "MPLCONFIGDIR")  # also what libraries write on import


def serve(
    settings: Settings,
    *,
    num_workers: int,
    host: str,
    port: int,
    key_file: str | None,
    allowed_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
) -> None:
    """Serves, with workers in processes of their own, until SIGTERM or Ctrl-C."""
    trust = trusting(trusted_proxies)
    _allow_files()
    CacheFolder.of_user()  # one that is unsafe is told now, and not by each worker
    keys = read_keys(key_file)
    listening = web_server.listen(host, port)
    database = Database(settings.database)
    with _supervised(database, settings, num_workers):
        # What imports JAX comes after the start of the workers, which do so at the same time.
        from lumiere_jax.serving.app import make_app
        from lumiere_jax.serving.model import Models

        models = Models.read(settings.bundle, distilled=settings.distilled)
        address = ipaddress.ip_address(listening.getsockname()[0].partition("%")[0])
        hosts = names(host, is_open=not keys and address.is_loopback, allowed=allowed_hosts)
        app = make_app(Store(database), models, settings, keys, lambda: server.should_exit, hosts)
        server = web_server.make_server(app, **trust)
        web_server.end_by_signal(server)
        where = web_server.address(host, listening.getsockname()[1])
        print(f"serving {settings.bundle} at {where} with {num_workers} workers", flush=True)
        server.run(sockets=[listening])


def _allow_files() -> None:
    """Allows this process as many connections as the system permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems permit less than they claim
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def work(settings: Settings, num_workers: int) -> None:
    """Runs only workers until SIGTERM or Ctrl-C."""
    from lumiere_jax.serving.model import Models

    CacheFolder.of_user()  # see `serve`
    Models.read(settings.bundle, distilled=settings.distilled)
    database, ending = Database(settings.database), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ending.set())
    with _supervised(database, settings, num_workers):
        print(f"{num_workers} workers take jobs from {database.shown}", flush=True)
        while not ending.wait(1.0):
            pass


@contextlib.contextmanager
def _supervised(database: Database, settings: Settings, num_workers: int) -> Iterator[None]:
    supervisor = Supervisor(database, settings, num_workers)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()
        database.close()


@contextlib.contextmanager
def data_folder(folder: Path) -> Iterator[Path]:
    """Locks a folder while this process runs, and yields the place in it for temporary files."""
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
                f"--data={folder} is used by another server that runs; give another folder, or "
                "stop that server."
            ) from error
        scratch = folder / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)  # of a server that was killed
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
    """The API keys of a file, one per line; none without a file."""
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
            "one per line; `openssl rand -hex 16` makes one."
        )
    return keys


def names(host: str, *, is_open: bool, allowed: Sequence[str]) -> set[str] | None:
    """Names that a server may be called by, beside addresses; None: any.

    Any website can point its own name at the loopback address, and its pages then count as pages of
    this server to the browser. So a server is limited to some names if it `is_open` to every client
    on this machine without a key.
    """
    if not is_open and not allowed:
        return None
    return {"localhost", host.lower(), *(name.strip().lower() for name in allowed)}


def trusting(proxies: Sequence[str]) -> dict[str, Any]:
    """Options of uvicorn: what these addresses and networks say of their clients is believed."""
    for network in proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UserError(
                f"--trusted_proxies: {network!r} is no address or network; write 10.0.0.7 or "
                "10.0.0.0/8."
            ) from error
    return {"proxy_headers": bool(proxies), "forwarded_allow_ips": list(proxies)}
