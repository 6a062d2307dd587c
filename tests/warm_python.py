"""A Python that has imported what is slow: every command that `python()` starts is a fork of it.

A command is run as the interpreter would run it (`-m MODULE`, `-c CODE`, a script, or standard
input), in a process of its own with its own directory, environment and pipes, but without waiting
for JAX and TensorFlow. One warm Python serves all test processes, and ends with the last of them.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
IMPORTED = (
    "lumiere_jax.training.train", "lumiere_jax.inference.pipeline", "lumiere_jax.inference.outputs",
    "lumiere_jax.checkpoints.exporting", "lumiere_jax.training.distill",
    "lumiere_jax.evaluation.command", "lumiere_jax.planning.dry_run", "orbax.checkpoint",
    "lumiere_jax.data.prepared", "lumiere_jax.data.video_folder", "lumiere_jax.data.ucf101",
    "matplotlib.pyplot", "tensorflow", "tensorflow_datasets", "lumiere_jax.data.moving_digits",
)  # fmt: skip
ARGUMENTS_BY = "WARM_PYTHON_ARGUMENTS_BY"
"""Variable that names a module; its `shrunk(program, arguments)` says what a command is given."""

CLIENT = """
import json, os, signal, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({path!r})
job = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ)}}
socket.send_fds(link, [b"x"], [0, 1, 2])
link.sendall(json.dumps(job).encode() + b"\\0")
answers = link.makefile()
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(answers.readline() or 1)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@functools.cache
def python() -> str:
    """A program that takes the arguments of `python`; whoever kills it kills the command."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"warm_python_{run}"  # paths of sockets are short
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "socket").exists():
            _start(folder)
    os.open(folder / "users", os.O_WRONLY)  # open as long as this process lives
    return str(folder / "python")


def run_on_devices(devices: int, module: str, *arguments: object) -> dict:
    """Runs a module on so many virtual devices; what it prints at last is JSON."""
    flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    process = subprocess.run(
        [python(), "-m", module, *arguments], cwd=REPOSITORY, capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": flags}, timeout=900,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def _start(folder: Path) -> None:
    """Starts the warm Python, and returns as soon as it takes commands."""
    os.mkfifo(folder / "users")
    client = folder / "python"
    client.write_text(f"#!{sys.executable} -ISE\n" + CLIENT.format(path=str(folder / "socket")))
    client.chmod(0o755)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_python", folder], cwd=REPOSITORY, stdout=log,
            stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    while not (folder / "socket").exists():
        assert server.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    server.returncode = 0  # it ends by itself: nobody is to be warned that it still runs


def _serve(folder: Path) -> dict | None:
    """Forks for every job; returns in the process that is to do one, with what it is.

    In the first process it returns None, when all that use it have ended.
    """
    users = os.open(folder / "users", os.O_RDONLY | os.O_NONBLOCK)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    events = select.poll()
    events.register(listening, select.POLLIN)
    events.register(users, 0)  # its end alone
    while listening.fileno() in dict(events.poll()):
        link, _ = listening.accept()
        if os.fork():
            link.close()
            continue
        listening.close()
        os.close(users)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if (job := _attend(link)) is not None:
            return job
    return None


def _attend(link: socket.socket) -> dict:
    """Forks for one job, which it returns in the child; tells the client how that ended."""
    _, files, _, _ = socket.recv_fds(link, 1, 3)
    text = b""
    while not text.endswith(b"\0"):
        text += link.recv(2**16)
    job = json.loads(text[:-1])
    worker = os.fork()
    if worker == 0:
        link.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return job
    for file in files:
        os.close(file)
    link.sendall(f"{worker}\n".encode())
    # The client sends nothing more: what can be read is its end.
    threading.Thread(target=_kill_after_end, args=(link, worker), daemon=True).start()
    _, status, usage = os.wait4(worker, 0)
    command = " ".join(job["argv"])[:100]
    print(f"{usage.ru_utime + usage.ru_stime:.1f} s of CPU: {command!r}", flush=True)
    code = os.waitstatus_to_exitcode(status)
    try:
        link.sendall(f"{code}\n".encode())
    except BrokenPipeError:  # it was killed
        pass
    os._exit(0)


def _kill_after_end(link: socket.socket, worker: int) -> None:
    """Kills the process of a client that is gone."""
    link.recv(1)
    os.kill(worker, signal.SIGKILL)


def _configure_jax(before: dict[str, str], after: dict[str, str]) -> None:
    """Settings that JAX took from the environment when it was imported, which was before."""
    import jax

    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name) and hasattr(jax.config, name.lower()):
            value = after.get(name)
            is_number = value is not None and value.lstrip("-").isdigit()
            jax.config.update(name.lower(), int(value) if is_number else value)


def _run(job: dict) -> None:
    """Does what the interpreter does with these arguments."""
    os.chdir(job["cwd"])
    _configure_jax(dict(os.environ), job["environ"])
    os.environ.clear()
    os.environ.update(job["environ"])
    sys.stdin = open(0)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))
    first, *rest = job["argv"] or ["-"]
    sys.path[0] = "" if first.startswith("-") else os.path.dirname(os.path.abspath(first))
    changed_by = os.environ.get(ARGUMENTS_BY)
    shrunk = importlib.import_module(changed_by).shrunk if changed_by else lambda _, given: given
    if first == "-m":
        sys.argv = [rest[0], *shrunk(rest[0], rest[1:])]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first in ("-", "-c"):
        sys.argv = [first, *rest[first == "-c" :]]
        code = rest[0] if first == "-c" else sys.stdin.read()
        exec(compile(code, "<page>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *shrunk(first, rest)]
        runpy.run_path(first, run_name="__main__")


def _end(job: dict) -> None:
    """Ends as the interpreter does, but does not take apart what was imported, which takes long."""
    code: object = 1
    try:
        _run(job)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _main() -> None:
    warnings.filterwarnings("ignore", message=".*fork.*")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind `&`
    for name in IMPORTED:
        __import__(name)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    folder = Path(sys.argv[1])
    if (job := _serve(folder)) is not None:
        _end(job)
    shutil.rmtree(folder)


if __name__ == "__main__":
    _main()
