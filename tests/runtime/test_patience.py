"""Clients that do not get on with their request, and honest ones that take their time."""

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import threading
import time

import pytest
import uvicorn

from lumiere_jax.runtime import patience

LARGE = 16_000_000  # more than the system buffers
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"


async def app(scope, receive, send):
    """Answers with the size of the body, a byte each 0.1 s for a long time if it is asked for."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    large = LARGE if scope["path"] == "/large" else 0
    length = [] if scope["path"] == "/slow" else [(b"content-length", b"%d" % (large + 4))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for _ in range(20 if scope["path"] == "/slow" else 0):
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"." * large + b"%04d" % size})


@pytest.fixture(name="connect")
def fixture_connect(monkeypatch):
    """Opens a connection to a server that waits for 0.6 s, and for 0.1 s more with 100 bytes."""
    monkeypatch.setattr(patience, "_SECONDS", 0.6)
    monkeypatch.setattr(patience, "_BYTES_PER_SECOND", 1000)
    monkeypatch.setattr(patience, "_LOOK_SECONDS", 0.1)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=patience.PatientProtocol, ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    opened = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(listening.getsockname(), timeout=10))
        return opened[-1]

    connect.server = server
    yield connect
    for connection in opened:
        connection.close()
    server.should_exit = True
    thread.join()


def drip(connection, content, each=1, pause=0.1):
    """Sends some bytes at a time; the seconds until the server had enough, or None."""
    begun = time.monotonic()
    for place in range(0, len(content), each):
        if time.monotonic() - begun > 6:
            break
        try:
            connection.sendall(content[place : place + each])
            with contextlib.suppress(TimeoutError):
                connection.settimeout(pause)
                if not connection.recv(1):
                    return time.monotonic() - begun
        except ConnectionError:
            return time.monotonic() - begun
        time.sleep(0.001)
    connection.settimeout(10)
    return None


@pytest.mark.parametrize(
    ("first", "content"),
    [(b"", b""), (b"", HEAD), (HEAD, b"x" * 4000), (b"GET /slow HTTP/1.1\r\n", b"Host: x" * 20)],
)
def test_connections_that_do_not_get_on_are_closed(connect, first, content):
    connection = connect()
    connection.sendall(first)
    if content:
        assert 0.5 < drip(connection, content) < 3
    else:
        begun = time.monotonic()
        assert connection.recv(1) == b"" and time.monotonic() - begun < 3


def test_slow_uploads_are_taken(connect):
    connection, begun = connect(), time.monotonic()
    connection.sendall(HEAD)
    assert drip(connection, b"x" * 4000, each=200) is None
    assert time.monotonic() - begun > 1.8 and connection.recv(99).endswith(b"\r\n\r\n4000")


def test_answers_take_as_long_as_they_take(connect):
    connection = connect()
    connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    content = b"".join(iter(lambda: connection.recv(999), b""))
    assert content.endswith(b"0000\r\n0\r\n\r\n") and content.count(b"\r\n.\r\n") == 20


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_answers_that_nobody_reads_are_given_up(connect, more):
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n")
    connection.recv(1)
    until = time.monotonic() + 60
    while connect.server.server_state.connections:
        assert time.monotonic() < until
        time.sleep(0.05)
    size = 0
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(10**6):
            size += len(part)
    assert size < LARGE


def test_large_answers_may_be_read_slowly(connect):
    connection, size, begun = connect(), 0, time.monotonic()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    while size < LARGE:
        size += len(connection.recv(500_000))
        time.sleep(0.05)
    assert time.monotonic() - begun > 1.2


def test_a_connection_that_is_used_again_and_again_is_kept(connect):
    connection = connect()
    for number in range(12):
        body = b"x" * number
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % number)
        time.sleep(0.1)
        connection.sendall(body)
        assert connection.recv(999).endswith(b"\r\n\r\n%04d" % number)
        time.sleep(0.1)
    connection.sendall(HEAD)  # and then it stops
    assert drip(connection, b"x" * 4000) < 3


def test_as_many_open_files_as_there_may_be():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource; from lumiere_jax.serving import command\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {most}))\n"
        "command._allow_files(); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120)
    assert told.split() == [str(most)] * 2
