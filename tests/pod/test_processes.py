"""Real processes of one run: stopped, killed, hung, or never there."""

import re
import signal
import sys
from pathlib import Path

import pytest

from lumiere_jax.runtime.errors import EXIT_PEER, EXIT_PREEMPTED, EXIT_USER_ERROR
from tests.pod.local_processes import LocalPod, free_port

LOOP = [sys.executable, str(Path(__file__).with_name("looping_process.py"))]
ENDLESS = [*LOOP, "--steps=100000"]


def last_step(pod: LocalPod, index: int) -> int:
    return int(re.findall(r"preempted at step (\d+)", pod.output(index))[-1])


def test_all_end_together(tmp_path):
    with LocalPod([*LOOP, "--cadence"], tmp_path, devices=2) as pod:
        assert pod.wait() == [0, 0], pod.output(0) + pod.output(1)
        for index in (0, 1):
            assert "agreed True False" in pod.output(index)
            assert "same True False" in pod.output(index)
            assert "saved 3 6 8\n" in pod.output(index)  # by the clock of the first
            assert "step 3 mean 3" in pod.output(index) and "done" in pod.output(index)
        assert "2 process(es) with 2 device(s) each, 4 in all" in pod.output(0)
        assert "process(es)" not in pod.output(1)


WAIT = """
import time, jax
from lumiere_jax.runtime import distributed
jax.config.update("jax_cpu_collectives_implementation", None)  # a collective would be an error
with distributed.joined(False):
    for point in range(3):
        time.sleep(jax.process_index())
        came = time.time()
        distributed.wait_for_all("here")
        print("came", came, "went", time.time(), flush=True)
"""


def test_processes_wait_for_each_other_without_a_collective(tmp_path):
    with LocalPod([sys.executable, "-c", WAIT], tmp_path) as pod:
        assert pod.wait() == [0, 0], pod.output(0) + pod.output(1)
        times = [re.findall(r"came (\S+) went (\S+)", pod.output(index)) for index in (0, 1)]
        assert len(times[0]) == len(times[1]) == 3
        for first, second in zip(*times, strict=True):
            assert float(first[1]) >= float(second[0])  # the first waited for the second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_one_stops_all_after_the_same_step(tmp_path, number):
    with LocalPod(ENDLESS, tmp_path) as pod:
        pod.wait_for("step 5")
        pod.wait_for("step 5", 1)
        pod.send(1, number)
        assert pod.wait() == [EXIT_PREEMPTED] * 2
        assert last_step(pod, 0) == last_step(pod, 1) >= 5
        assert all("preempted: stopped by SIGTERM" in pod.output(index) for index in (0, 1))


def test_signal_stops_one_process_that_is_alone(tmp_path):
    with LocalPod(ENDLESS, tmp_path, processes=1) as pod:
        pod.wait_for("step 5")
        pod.send(0, signal.SIGTERM)
        assert pod.wait() == [EXIT_PREEMPTED]
        assert pod.output(0).count("preempted: stopped by SIGTERM\n") == 1


def test_killed_process_ends_the_others(tmp_path):
    with LocalPod(ENDLESS, tmp_path) as pod:
        pod.wait_for("step 5")
        pod.send(1, signal.SIGKILL)
        assert pod.wait(0) == [EXIT_PEER]  # long before the heartbeat timeout
        assert "error: process 0 of 2 lost another process (UNKNOWN: Gloo" in pod.output(0)


def test_silent_process_ends_the_others_after_the_heartbeat_timeout(tmp_path):
    """As on a TPU, where no socket tells that a process is gone."""
    with LocalPod([*ENDLESS, "--nocollective", "--heartbeat_timeout=4"], tmp_path) as pod:
        pod.wait_for("step 5", 0)
        pod.wait_for("step 5", 1)
        pod.send(1, signal.SIGKILL)
        assert pod.wait(0) == [-signal.SIGABRT]
        assert "The following tasks are unhealthy" in pod.output(0)


def test_hung_process_ends_the_others(tmp_path):
    with LocalPod([*ENDLESS, "--watchdog=5"], tmp_path) as pod:
        pod.wait_for("step 5", 1)
        pod.send(1, signal.SIGSTOP)
        assert pod.wait(0) == [EXIT_PEER]
        assert "error: process 0 of 2: the loop made no progress for" in pod.output(0)
        assert "last: step" in pod.output(0)


def test_wrong_address_is_told(tmp_path):
    environment = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
    }
    command = [*LOOP, "--start_timeout=3"]
    with LocalPod(command, tmp_path, processes=1, environment=environment) as pod:
        assert pod.wait() == [EXIT_USER_ERROR]
        assert pod.output(0).count("error: process 1 of 2 did not meet the others at 127") == 1
