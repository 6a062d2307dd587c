"""A pod of local processes, with a stand-in for Python: what they get, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.launch.scripts import LAUNCH, dry_run, run_script

ARGUMENTS = ("--config=configs/stunet.py:tiny", "--workdir=a folder")


@pytest.fixture(name="python")
def fixture_python(tmp_path) -> str:
    path = tmp_path / "python"
    stand_in = LAUNCH.parent / "tests" / "launch" / "stand_in.py"
    path.write_text(f'#!/bin/bash\nexec "{sys.executable}" -S "{stand_in}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(name="start")
def fixture_start(python) -> Iterator:
    """Starts a pod, and waits until all its processes have printed `waiting`: are ready, say."""
    pods = []

    def start(
        actions: str, *flags: str, waiting: str = "] ready\n"
    ) -> tuple[subprocess.Popen, list[int], list[str]]:
        count = len(actions.split())
        pod = subprocess.Popen(
            [LAUNCH / "local_pod.sh", f"--processes={count}", *flags, "--", *ARGUMENTS],
            env=os.environ | {"LUMIERE_PYTHON": python, "STAND_IN": actions},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        pods.append(pod)
        lines, ready = [], 0
        while ready < count:
            line = pod.stdout.readline()
            assert line, lines
            lines.append(line.rstrip("\n"))
            ready += waiting in line
        return pod, read_pids(lines), lines

    yield start
    for pod in pods:
        if pod.poll() is None:
            pod.terminate()
        pod.communicate(timeout=600)


def read_pids(lines: list[str]) -> list[int]:
    found = [line.split() for line in lines if line.startswith("[pod] process") and " PID " in line]
    assert [int(words[2]) for words in found] == list(range(len(found)))
    return [int(words[5].rstrip(";")) for words in found]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_process_knows_its_place(python):
    result = run_script(
        "local_pod.sh", "--processes=3", "--devices=5", "--port=23456", "--", *ARGUMENTS,
        LUMIERE_PYTHON=python, STAND_IN="0 0 0", XLA_FLAGS="--xla_cpu_enable_fast_math=false",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    for process in range(3):
        prefix = f"[{process}] "
        own = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
        assert "to stderr" in own and len(own) == 2
        (report,) = [json.loads(line) for line in own if line.startswith("{")]
        assert report["arguments"] == ["-u", "-m", "lumiere_jax.main", *ARGUMENTS]
        flags = "--xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=5"
        expected = {
            "JAX_COORDINATOR_ADDRESS": "127.0.0.1:23456",
            "JAX_NUM_PROCESSES": "3",
            "JAX_PROCESS_ID": str(process),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags,
        }
        assert expected.items() <= report["variables"].items()
    assert all(line.startswith(("[0] ", "[1] ", "[2] ", "[pod] ")) for line in lines)


@pytest.mark.parametrize(("actions", "code"), [("0 3", 3), ("4 0", 4), ("75 75", 75), ("0 0", 0)])
def test_ends_with_the_first_code_that_is_not_zero(python, actions, code):
    result = run_script("local_pod.sh", "--", *ARGUMENTS, LUMIERE_PYTHON=python, STAND_IN=actions)
    assert result.returncode == code
    for process, own in enumerate(actions.split()):
        assert f"[pod] process {process} ended with exit code {own}: " in result.stdout


def test_first_means_first_in_time(start):
    pod, pids, _ = start("wait wait")
    os.kill(pids[1], signal.SIGTERM)
    for line in pod.stdout:
        if line.startswith("[pod] process 1 ended"):
            break
    assert pod.poll() is None  # it waits for all
    os.kill(pids[0], signal.SIGINT)
    output, _ = pod.communicate(timeout=600)
    assert pod.returncode == 75
    assert "[0] saved after [130]\n" in output


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)]
)
def test_hands_signals_on_to_all_processes(start, sent, code):
    pod, pids, _ = start("wait wait wait")
    pod.send_signal(sent)
    output, _ = pod.communicate(timeout=600)
    assert pod.returncode == code
    for process in range(3):
        assert f"[{process}] saved after [{code}]\n" in output  # the last line, without an end
    assert not any(is_alive(pid) for pid in pids)


def test_timeout_ends_all_processes(start):
    # On a busy machine the second may end before a process is "ready", or has even begun.
    pod, pids, _ = start("wait wait", "--timeout=1", waiting=" is PID ")
    output, _ = pod.communicate(timeout=600)
    assert pod.returncode == 124
    assert "--timeout=1: ending what still runs" in output
    for process in range(2):
        assert f"[pod] process {process} ended with exit code " in output
    assert not any(is_alive(pid) for pid in pids)


def test_dry_run_prints_what_each_process_would_be():
    commands = dry_run("local_pod.sh", "--port=1234", "--", *ARGUMENTS, LUMIERE_PYTHON="py")
    assert len(commands) == 2
    for process, command in enumerate(commands):
        assert command[0] == "env"
        assert command[-5:] == ["-u", "-m", "lumiere_jax.main", *ARGUMENTS]
        assert command[-6] == "py"
        assert f"JAX_PROCESS_ID={process}" in command
        assert "JAX_COORDINATOR_ADDRESS=127.0.0.1:1234" in command


def test_another_program():
    (command, _) = dry_run("local_pod.sh", "--program=eval", "--", "--task=held_out")
    assert command[-4:] == ["-u", "-m", "lumiere_jax.eval", "--task=held_out"]


def test_finds_a_port_itself():
    (first, second) = dry_run("local_pod.sh", "--", *ARGUMENTS)
    address = [word for word in first if word.startswith("JAX_COORDINATOR_ADDRESS=127.0.0.1:")]
    assert 1024 < int(address[0].split(":")[1]) < 65536
    assert address[0] in second


def worker(command: str, *arguments: str, python: str, job, action: str = "wait"):
    environment = {"LUMIERE_PYTHON": python, "LUMIERE_JOB": str(job), "STAND_IN": action}
    return run_script("worker.sh", command, *arguments, **environment)


def wait_for(job, text: str, times: int = 1) -> None:
    end = time.monotonic() + 60
    while (job / "log").read_text().count(text) < times:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_worker_starts_one_job_stops_it_and_starts_it_again(python, tmp_path):
    job = tmp_path / "job"
    call = {"python": python, "job": job}
    for times in (1, 2):
        result = worker("start", "--", *ARGUMENTS, **call)
        assert result.returncode == 0, result.stderr
        wait_for(job, "ready", times)
        second = worker("start", "--", *ARGUMENTS, **call)
        assert second.returncode == 2 and "a job runs here already" in second.stderr
        result = worker("stop", **call)
        assert "exit code 75: preempted after a checkpoint" in result.stdout
    log = (job / "log").read_text()
    assert log.count("saved after [75]") == 2
    assert '"arguments": ["-u", "-m", "lumiere_jax.main", "--distributed", "--config' in log
    assert "no job runs here" in worker("stop", **call).stdout


def test_worker_tail_shows_the_log_and_ends_as_the_job_did(python, tmp_path):
    call = {"python": python, "job": tmp_path / "job", "action": "3"}
    assert worker("start", "--", *ARGUMENTS, **call).returncode == 0
    wait_for(tmp_path / "job", "exit code 3")
    result = worker("tail", **call)
    assert "to stderr" in result.stdout and result.returncode == 3
