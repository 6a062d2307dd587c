"""An HTTP server: its socket, its address for a browser, and its end by a signal."""

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from lumiere_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import uvicorn  # of the extras `serve` and `study`

_GRACE_SECONDS = 5  # for requests that are being answered when the server ends


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; a `UserError` if there cannot be one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # Python's own text repeats the address; names that are not found have no errno.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(
            f"cannot serve at {host}:{port} ({reason}); give another --port or --host."
        ) from error


def address(host: str, port: int) -> str:
    """The URL of the server for a browser."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def make_server(app: Any, **options: Any) -> "uvicorn.Server":
    """A server of an ASGI application, which logs warnings alone; `options` are uvicorn's."""
    import uvicorn

    from lumiere_jax.runtime.patience import PatientProtocol

    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **options,
    )
    return uvicorn.Server(config)


def end_by_signal(server: "uvicorn.Server") -> None:
    """Lets SIGTERM and Ctrl-C end a server before and while it runs; `run` then returns."""

    def end(number: int, frame: Any) -> None:
        server.should_exit = True

    # uvicorn raises a signal again when it has ended, but there is still work to do then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
