"""A Python that has imported what is slow: every `python` of a page is a fork of it.

    python -m tests.docs.warm_python SOCKET

A command of a page is run as the interpreter would run it (`-m MODULE`, `-c CODE`, a script, or
standard input), in a process of its own with its own directory, environment and pipes, but without
waiting for JAX and TensorFlow. Its flags come from the page; `shrinking.py` adds more.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
import warnings

IMPORTED = (
    "lumiere_jax.training.train", "lumiere_jax.inference.pipeline",
    "lumiere_jax.checkpoints.exporting", "lumiere_jax.training.distill",
    "lumiere_jax.evaluation.command", "lumiere_jax.planning.dry_run", "orbax.checkpoint",
    "lumiere_jax.data.prepared", "lumiere_jax.data.video_folder", "lumiere_jax.data.ucf101",
    "matplotlib.pyplot", "tensorflow", "tensorflow_datasets", "lumiere_jax.data.moving_digits",
)  # fmt: skip
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
sys.exit(int(answers.readline() or 1))
"""


def client(path: str) -> str:
    """A script that stands for `python`, and hands its work to the server at a socket."""
    return f"#!{sys.executable} -ISE\n" + CLIENT.format(path=path)


def _serve(path: str) -> dict:
    """Forks for every job; returns in the process that is to do one, with what it is."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        link, _ = listening.accept()
        if os.fork():
            link.close()
            continue
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, files, _, _ = socket.recv_fds(link, 1, 3)
        text = b""
        while not text.endswith(b"\0"):
            text += link.recv(2**16)
        worker = os.fork()
        if worker == 0:
            link.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return json.loads(text[:-1])
        for file in files:
            os.close(file)
        link.sendall(f"{worker}\n".encode())
        _, status, usage = os.wait4(worker, 0)
        command = " ".join(json.loads(text[:-1])["argv"])[:100]
        print(f"{usage.ru_utime + usage.ru_stime:.1f} s of CPU: {command!r}", flush=True)
        code = os.waitstatus_to_exitcode(status)
        link.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
        os._exit(0)


def _run(job: dict) -> None:
    """Does what the interpreter does with these arguments."""
    from tests.docs import shrinking

    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environ"])
    sys.stdin, sys.stdout, sys.stderr = (
        open(0),
        open(1, "w", buffering=1),
        open(2, "w", buffering=1),
    )
    first, *rest = job["argv"] or ["-"]
    sys.path[0] = "" if first.startswith("-") else os.path.dirname(os.path.abspath(first))
    if first == "-m":
        sys.argv = [rest[0], *shrinking.shrunk(rest[0], rest[1:])]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first in ("-", "-c"):
        sys.argv = [first, *rest[first == "-c" :]]
        code = rest[0] if first == "-c" else sys.stdin.read()
        exec(compile(code, "<page>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *shrinking.shrunk(first, rest)]
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
    for name in IMPORTED:
        __import__(name)
    gc.collect()
    gc.freeze()
    _end(_serve(sys.argv[1]))


if __name__ == "__main__":
    _main()
