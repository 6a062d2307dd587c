"""One process, and what the environment says of others; tests/pod starts real ones."""

from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lumiere_jax.runtime import distributed
from lumiere_jax.runtime.errors import PeerError, Preempted, UserError
from lumiere_jax.runtime.sharding import AXES

POD = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"JAX_COORDINATOR_ADDRESS": ""}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t1v-0,t1v-1"}, True),
        ({"TPU_PROCESS_ADDRESSES": "a:8476,b:8476", "TPU_WORKER_HOSTNAMES": "a"}, True),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "slice-0-0"}, True),
        (POD, True),
    ],
)
def test_only_a_described_cluster_counts(environment, expected):
    assert distributed.is_configured(environment) is expected


def test_settings_from_the_environment():
    assert distributed.cluster_settings({}) == {}
    assert distributed.cluster_settings(POD) == {
        "coordinator_address": "10.0.0.1:1234",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }
    address = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}  # the rest may be known to Slurm
    assert distributed.cluster_settings(address) == {"coordinator_address": "10.0.0.1:1234"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_COORDINATOR_ADDRESS", "10.0.0.1", "HOST:PORT"),
        ("JAX_NUM_PROCESSES", "", "JAX_NUM_PROCESSES= .*set all three"),
        ("JAX_PROCESS_ID", "three", "JAX_PROCESS_ID=three.*set all three"),
        ("JAX_PROCESS_ID", "4", "counted from 0"),
        ("JAX_PROCESS_ID", "-1", "counted from 0"),
    ],
)
def test_incomplete_settings_are_told(name, value, message):
    with pytest.raises(UserError, match=message):
        distributed.cluster_settings(POD | {name: value})


@pytest.fixture(name="started")
def fixture_started(monkeypatch):
    """The arguments of the calls of `jax.distributed.initialize`, which does nothing."""
    for name in POD:
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **settings: calls.append(settings))
    return calls


def test_one_process_starts_nothing(started):
    distributed.initialize(False)
    assert not started


def test_flag_asks_jax_to_find_the_cluster(started):
    distributed.initialize(True, heartbeat_timeout_s=7)
    [settings] = started
    assert "coordinator_address" not in settings
    assert settings["heartbeat_timeout_seconds"] == 7


def test_environment_starts_without_the_flag(started, monkeypatch):
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    distributed.initialize(False)
    assert started[0]["process_id"] == 3


@pytest.mark.parametrize(
    ("environment", "error", "message"),
    [
        ({}, ValueError("coordinator_address should be defined."),
         "no cluster was found .*leave --distributed out"),
        (POD, RuntimeError("Failed to recognize coordinator address w-0"),
         "process 3 of 4 did not meet .*10.0.0.1:1234.*w-0"),
    ],
)  # fmt: skip
def test_a_start_that_fails_is_told(started, monkeypatch, environment, error, message):
    monkeypatch.setattr(jax.distributed, "initialize", mock.Mock(side_effect=error))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        distributed.initialize(not environment)


def test_one_process_agrees_with_itself(capsys):
    assert distributed.agree(True) and not distributed.agree(False)
    assert distributed.is_primary()
    distributed.say("hello")
    assert capsys.readouterr().out == "hello\n"
    distributed.shutdown()


def test_shutdown_that_fails_is_told(monkeypatch):
    error = RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nmore")
    monkeypatch.setattr(jax.distributed, "shutdown", mock.Mock(side_effect=error))
    with pytest.raises(PeerError, match=r"\(DEADLINE_EXCEEDED: Barrier timed out\.\)"):
        distributed.shutdown()


def test_leaves_with_the_others_when_done_or_preempted_only(monkeypatch):
    left = []
    monkeypatch.setattr(distributed, "shutdown", lambda: left.append(True))
    with distributed.joined(False):
        assert not left
    assert left == [True]
    with pytest.raises(Preempted), distributed.joined(False):
        raise Preempted
    assert left == [True, True]
    with pytest.raises(OSError), distributed.joined(False):
        raise OSError("no space")
    assert left == [True, True]


def pretend(monkeypatch, processes: list[int]) -> list:
    """Pretends that there is a device for each process number given."""
    devices = [SimpleNamespace(process_index=p, device_kind="chip") for p in processes]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: max(processes) + 1)
    return devices


def mesh_of(devices: list, *sizes: int) -> SimpleNamespace:
    return SimpleNamespace(shape=dict(zip(AXES, sizes, strict=True)), size=int(np.prod(sizes)))


def test_start_report_of_one_process():
    mesh = Mesh(np.array(jax.devices()).reshape(-1, 1, 1), AXES)
    devices = jax.device_count()
    text = distributed.start_report(mesh, 2 * devices)
    assert text.startswith(f"1 process(es) with {devices} device(s) each, {devices} in all")
    assert f"mesh data {devices} × fsdp 1 × space 1" in text
    assert f"global batch {2 * devices}, {2 * devices} clip(s) per process" in text


def test_start_report_of_many_processes(monkeypatch):
    devices = pretend(monkeypatch, [0, 0, 0, 0, 1, 1, 1, 1])
    text = distributed.start_report(mesh_of(devices, 2, 4, 1), 16)
    assert "2 process(es) with 4 device(s) each, 8 in all (chip)" in text
    assert "data 2 × fsdp 4 × space 1" in text and "16, 8 clip(s) per process" in text


@pytest.mark.parametrize(
    ("processes", "sizes", "batch", "message"),
    [
        ([0, 0, 1], (3, 1, 1), 3, "process 1 has 1 devices and process 0 has 2"),
        ([0, 0, 2, 2], (4, 1, 1), 4, "process 1 has 0 devices"),
        ([0, 0, 1, 1], (2, 1, 1), 4, "has 2 of 4 devices"),
        ([0, 0, 1, 1], (2, 2, 1), 6, "batch_size=6 is not divisible by 4"),
        ([0, 0, 1, 1], (1, 1, 4), 4, "smaller mesh.space"),
    ],
)
def test_uneven_starts_are_told(monkeypatch, processes, sizes, batch, message):
    devices = pretend(monkeypatch, processes)
    with pytest.raises(UserError, match=message):
        distributed.start_report(mesh_of(devices, *sizes), batch)
