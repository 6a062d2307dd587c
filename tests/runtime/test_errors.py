"""How a binary ends: exit codes and what it prints."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

BINARY = """
import atexit
import signal
import time
from absl import flags
from lumiere_jax.runtime import config_file, errors

CONFIG = config_file.define_flag("")
WHAT = ["pass", "user_error", "defect", "preempted", "peer", "wait", "interrupt_destructor"]
DO = flags.DEFINE_enum("do", None, WHAT, "", required=True)
flags.DEFINE_integer("steps", 3, "")

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def main(argv):
    print("started", flush=True)
    if DO.value == "user_error":
        raise errors.UserError("no clip in /data:\\n  give another folder")
    if DO.value == "defect":
        raise ValueError("a defect")
    if DO.value == "preempted":
        raise errors.Preempted("step 7 is saved")
    if DO.value == "peer":
        atexit.register(time.sleep, 60)  # what waits for the other process
        raise errors.PeerError("process 1 is gone")
    if DO.value == "wait":
        for _ in range(6000):  # a signal that comes just before a sleep waits for its end
            time.sleep(0.1)
    if DO.value == "interrupt_destructor":
        Interrupted()  # and gone
        for _ in range(6000):
            time.sleep(0.1)

errors.run(main)
"""
CONFIG = """
import ml_collections

def get_config(variant="tiny"):
    if variant != "tiny":
        raise ValueError(f"no variant {variant}")
    return ml_collections.ConfigDict({"learning_rate": 1e-3, "model": {"width": 32}})
"""


@pytest.fixture(name="binary", scope="module")
def fixture_binary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("binary")
    (folder / "binary.py").write_text(BINARY)
    (folder / "config.py").write_text(CONFIG)
    (folder / "broken.py").write_text("def get_config(")
    (folder / "empty.py").write_text("")
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "binary.py", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--do=user_error"], "error: no clip in /data: give another folder"),
        (["--do=pass", "--stpes=4"], "Unknown command line flag 'stpes'. Did you mean: steps"),
        (["--do=pass", "--steps=many"], "--steps=many: invalid literal"),
        (["--do=dance"], "--do=dance: value should be one of"),
        ([], "Flag --do must have a value"),
        (["--do=pass", "a", "red", "circle"], "unexpected argument 'a'"),
        (["--do=pass", "--config=no.py"], "config file cannot be loaded: [Errno 2]"),
        (["--do=pass", "--config=no.py", "--config.model.width=8"], "/no.py'"),
        (["--do=pass", "--config=config.py:huge"], "ValueError: no variant huge"),
        (["--do=pass", "--config=broken.py"], "SyntaxError: '(' was never closed"),
        (["--do=pass", "--config=empty.py"], "no function get_config"),
        (["--do=pass", "--config=config.py", "--config.model.width.a=8"], "does not have: Attr"),
        (["--do=pass", "--config=config.py", "--config.model.widht=8"], "have: 'widht'. Did you"),
        (["--do=pass", "--config=config.py", "--config.model.width=x"], "invalid literal"),
    ],
)
def test_mistake_is_told_in_one_line(binary, arguments, message):
    process = start(binary, *arguments)
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    assert message in stderr


def test_no_mistake(binary):
    process = start(binary, "--do=pass", "--config=config.py", "--config.model.width=8")
    assert process.communicate() == ("started\n", "")
    assert process.returncode == 0


def test_defect_keeps_its_traceback(binary):
    process = start(binary, "--do=defect")
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "Traceback" in stderr and "ValueError: a defect" in stderr


def test_interrupt(binary):
    process = start(binary, "--do=wait")
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "interrupted\n")
    assert process.returncode == 130


def test_interrupt_that_python_drops_comes_again(binary):
    process = start(binary, "--do=interrupt_destructor")
    assert process.communicate() == ("started\n", "interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [("preempted", 75, "preempted: step 7 is saved\n"), ("peer", 76, "error: process 1 is gone\n")],
)
def test_end_that_the_same_command_continues(binary, what, code, message):
    process = start(binary, f"--do={what}")
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (code, message)
    assert stdout == "started\n"
