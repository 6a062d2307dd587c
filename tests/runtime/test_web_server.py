"""The socket and the address of a server, and its end by a signal."""

import subprocess
import sys

import pytest

from lumiere_jax.runtime import web_server
from lumiere_jax.runtime.errors import UserError


def test_the_address_that_is_printed():
    assert web_server.address("127.0.0.1", 80) == "http://127.0.0.1:80/"
    assert web_server.address("::1", 80) == "http://[::1]:80/"
    assert "0.0.0.0" not in web_server.address("0.0.0.0", 80)


def test_a_port_in_use_and_a_name_that_is_not_found_are_told():
    with web_server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot serve at 127.0.0.1:{port} .*--port"):
            web_server.listen("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot serve at none.invalid:0 .*--host"):
        web_server.listen("none.invalid", 0)


@pytest.mark.parametrize("is_running", [False, True])
def test_a_signal_ends_a_server_that_starts_or_runs_and_work_after_it_is_done(is_running):
    """The signal comes before the server runs, or from the application as it starts."""
    code = f"""
import os, signal
from lumiere_jax.runtime import web_server
async def app(scope, receive, send):
    await receive()
    if {is_running}:
        os.kill(os.getpid(), signal.SIGINT)
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
server = web_server.make_server(app, lifespan="on")
web_server.end_by_signal(server)
if not {is_running}:
    os.kill(os.getpid(), signal.SIGTERM)
server.run(sockets=[web_server.listen("127.0.0.1", 0)])
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
