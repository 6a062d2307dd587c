"""The binary as users start it: processes that end, die, and come back."""

import os
import signal
import socket
import subprocess
import sys
import tempfile

import httpx
import psutil
import pytest

from lumiere_jax.data.video_io import read_video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import command
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.store import Store
from tests.inference.running import run
from tests.serving.queue import submit
from tests.serving.test_uploads import picture

SLOW = {"steps": 20_000, "base_only": True}
STEPS = "--max_steps=20000"


def test_from_a_prompt_to_a_video(start_server, tmp_path):
    server = start_server()
    url = httpx.URL(server.url)
    silent = socket.create_connection((url.host, url.port))
    assert httpx.get(url, headers={"host": f"evil.org:{url.port}"}).status_code == 403
    if sys.platform == "linux":
        soft, most = psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft == most
    texts = [server.submit(base_only=True, steps=1, seed=seed) for seed in range(3)]
    image = server.submit({"image": picture()}, task="animate", base_only=True, steps=1)
    for job in server.wait(*texts, image):
        assert job["state"] == "done", job
        reply = httpx.get(server.url + job["video_url"])
        (tmp_path / "x.mp4").write_bytes(reply.content)
        assert len(read_video(tmp_path / "x.mp4", fps=8)) == 8
    left = {path.name for path in (server.data / "tmp").iterdir()}
    assert left <= {"gradio", "examples"}  # of the page

    # One that runs is cancelled, and its worker goes on with the next.
    slow = server.submit(**SLOW | {"steps": 250})
    cancelled = server.client.delete(f"/jobs/{slow}").json()
    assert cancelled["state"] == "cancelled"
    (job,) = server.wait(server.submit(base_only=True, steps=1))
    assert job["state"] == "done" and server.job(slow)["state"] == "cancelled"
    silent.settimeout(300)
    assert silent.recv(1) == b""
    silent.close()
    assert server.terminate() == 0
    assert {path.name for path in server.data.iterdir()} <= {"lock", "queue.sqlite", "cache"}


def test_workers_that_are_killed_and_a_server_that_is_told_to_end(start_server):
    server = start_server(STEPS)
    job = server.submit(**SLOW)
    for state in ("running", "failed"):
        server.wait(job, states=["running"])
        (worker,) = server.workers()
        worker.send_signal(signal.SIGKILL)
        worker.wait(200)
        if state == "running":
            server._wait(lambda: server.job(job)["attempts"] == 2)
    (failed,) = server.wait(job)
    assert failed["state"] == "failed" and "the worker was lost 2 times" in failed["error"]
    (done,) = server.wait(server.submit(base_only=True, steps=1))
    assert done["state"] == "done"

    # What runs at the end goes back.
    job = server.submit(**SLOW)
    server.wait(job, states=["running"])
    workers = server.workers()
    with server.client.stream("GET", f"/jobs/{job}/events") as stream:
        assert next(stream.iter_lines())
        assert server.terminate() == 0
    assert "Traceback" not in server.log.read_text()
    assert not any(worker.is_running() for worker in workers)
    database = Database(f"sqlite:///{server.data / 'queue.sqlite'}")
    found = Store(database).get(job)
    assert (found.state, found.attempts) == ("queued", 0)
    assert Store(database).living_workers(3600) == []
    database.close()


def test_the_limit_of_time_replaces_the_worker(start_server):
    server = start_server(STEPS, "--job_timeout=1")  # less than loading takes
    (before,) = server.workers()
    (failed,) = server.wait(server.submit(**SLOW))
    assert failed["state"] == "failed" and "longer than the 1 s" in failed["error"]
    assert failed["attempts"] == 1
    before.wait(200)
    server._wait(lambda: [worker.pid for worker in server.workers()] not in ([], [before.pid]))


def test_what_ran_when_the_machine_died_waits_again_at_the_next_start(start_server, tmp_path):
    (tmp_path / "data").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'data' / 'queue.sqlite'}")
    job = submit(Store(database))
    assert Leases(database, "dead", 3600).claim()
    database.close()
    server = start_server("--workers=0", is_ready=False)
    assert server.job(job.id)["state"] == "queued"


def test_two_workers_on_postgres_of_which_one_is_killed(start_server, new_postgres, tmp_path):
    flags = (f"--database={new_postgres}", STEPS, "--lease=6")
    server = start_server("--workers=0", *flags, is_ready=False)
    assert server.client.get("/health").status_code == 503
    others = [
        start_server("--worker_only", *flags, data=tmp_path / name, is_ready=False)
        for name in ("one", "two")
    ]
    server._wait(lambda: server.client.get("/health").json()["workers"] == 2)
    slow = server.submit(**SLOW)
    server.wait(slow, states=["running"])
    quick = [server.submit(base_only=True, steps=1, seed=seed) for seed in range(4)]
    assert {job["state"] for job in server.wait(*quick)} == {"done"}
    # A machine is gone at once: nobody is left on it to tell.
    (held,) = [other for other in others if _holds(other, new_postgres)]
    os.killpg(held.process.pid, signal.SIGKILL)
    held.process.wait()
    server._wait(lambda: server.job(slow)["attempts"] == 2)
    server.client.delete(f"/jobs/{slow}")
    more = [server.submit(base_only=True, steps=1, seed=seed) for seed in range(4)]
    assert {job["state"] for job in server.wait(*more)} == {"done"}
    assert server.client.get("/health").json()["workers"] == 1


def _holds(server, url) -> bool:
    """Whether a worker of this server has the job that runs."""
    import psycopg

    with psycopg.connect(url) as connection:
        (worker,) = connection.execute(
            "SELECT worker FROM lumiere_jobs WHERE state = 'running'"
        ).fetchone()
    return f"-{server.process.pid}-" in worker


def test_what_cannot_be_served(bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, message in (
            ({"bundle": tmp_path / "none"}, f"there is no folder {tmp_path / 'none'}"),
            ({"port": port}, f"cannot serve at 127.0.0.1:{port} (Address already in use)"),
            ({"database": "postgresql://a:secret@127.0.0.1:1/x"}, "a:***@127.0.0.1:1/x cannot be"),
            ({"worker_only": True, "workers": 0}, "would do nothing"),
        ):
            flags = {"bundle": bundle, "data": tmp_path / "data", "port": 0} | flags
            code, _, errors = run("serve", **flags)
            assert code == 2 and message in errors and "Traceback" not in errors, errors
            assert "secret" not in errors


def test_keys_that_cannot_be_used(tmp_path):
    path = tmp_path / "keys"
    for content, message in (
        (None, "cannot be read"), (b"", "at least one key of 16"), (b"short\n", "at least one key"),
        (b"\xff" * 20, "cannot be read"),
    ):  # fmt: skip
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            command.read_keys(str(path))
    path.write_text(f"{'a' * 16}\n\n  {'b' * 20}\n")
    assert command.read_keys(str(path)) == ["a" * 16, "b" * 20] and command.read_keys(None) == []


def test_a_data_folder_belongs_to_one_server(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .Not a directory"):
        with command.data_folder(tmp_path / "file" / "x"):
            pass
    with command.data_folder(tmp_path / "data") as scratch:
        assert tempfile.gettempdir() == str(scratch)
        (scratch / "left").write_text("")
        with pytest.raises(UserError, match="is used by another server that runs"):
            with command.data_folder(tmp_path / "data"):
                pass
        assert (scratch / "left").exists()
    assert not scratch.exists() and tempfile.gettempdir() != str(scratch)


def test_missing_packages_are_told_with_the_extra():
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "sys.argv = ['serve', '--bundle=x']\n"
        "from lumiere_jax import serve; from lumiere_jax.runtime import errors\n"
        "errors.run(serve.main)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 2 and "lumiere_jax[serve]" in process.stderr, process.stderr


def test_a_server_and_its_workers_need_no_tensorflow(without_tensorflow):
    rooms = "app, runner, worker, command, supervisor"
    code = f"import lumiere_jax.serve; from lumiere_jax.serving import {rooms}"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0 and not process.stderr, process.stderr
