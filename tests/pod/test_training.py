"""The ordinary training command as a job of two processes with four devices each."""

import signal
from pathlib import Path

import numpy as np

from tests.pod.local_processes import LocalPod
from tests.tiny_runs import SMALLEST, metric, saved_arrays, training_command

FIELDS = SMALLEST | {
    "train__batch_size": 8,
    "train__num_steps": 12,
    "train__checkpoint_every": 6,
    "train__eval_every": 6,
    "train__sample_every": 12,
    "sampling__num_steps": 2,
    "train__ema_snapshots": 2,
    "mesh__fsdp": 2,
}


def command(workdir: Path, **fields) -> list[str]:
    return training_command("t2i", workdir, **FIELDS | fields)


def run(workdir: Path, logs: Path, processes: int, devices: int, **fields) -> LocalPod:
    with LocalPod(command(workdir, **fields), logs, processes=processes, devices=devices) as pod:
        assert pod.wait(timeout_s=900) == [0] * processes, pod.output(0)
    return pod


def newest(workdir: Path) -> int:
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return max(int(name) for name in names if name.isdigit())


def test_two_processes_are_one_program(tmp_path):
    alone = run(tmp_path / "alone", tmp_path / "alone_logs", 1, 8)
    pod = run(tmp_path / "pod", tmp_path / "pod_logs", 2, 4)
    assert "2 process(es) with 4 device(s) each, 8 in all" in pod.output(0)
    assert "mesh data 4 × fsdp 2 × space 1; global batch 8, 4 clip(s) per process" in pod.output(0)
    assert "1 process(es) with 8 device(s) each" in alone.output(0)
    for quiet in ("step", "loss", "parameters", "restored"):  # the first process speaks for all
        assert quiet not in pod.output(1)
    for name in ("loss", "gradient_norm", "eval_loss"):
        expected, got = metric(tmp_path / "alone", name), metric(tmp_path / "pod", name)
        assert list(got) == list(expected) and len(got) == (2 if name == "eval_loss" else 12)
        np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=2e-3)
    assert all(0 < value < 1 for value in metric(tmp_path / "pod", "goodput").values())
    assert (tmp_path / "pod" / "samples" / "00000012" / "samples.png").stat().st_size > 1000
    snapshots = (tmp_path / "pod" / "ema_snapshots").iterdir()
    assert {path.name for path in snapshots} == {"6", "12"}


def test_sigterm_to_one_process_and_resume_on_another_mesh(tmp_path):
    workdir = tmp_path / "run"
    endless = command(workdir, train__num_steps=100_000, train__eval_every=0, train__sample_every=0)
    with LocalPod(endless, tmp_path / "first", processes=2, devices=4) as pod:
        pod.wait_for("t2i: ")
        pod.send(1, signal.SIGTERM)
        assert pod.wait() == [75, 75]
        assert "Traceback" not in pod.output(0) + pod.output(1)
    step = newest(workdir)
    arrays = saved_arrays(workdir, step)
    assert arrays
    # One process with one device goes on, and makes the finished run longer.
    fields = {"train__sample_every": 0, "train__eval_every": 0, "train__num_steps": step + 2}
    one = run(workdir, tmp_path / "second", 1, 1, mesh__fsdp=1, **fields)
    assert f"restored step {step}" in one.output(0)
    assert list(metric(workdir, "loss"))[-2:] == [step + 1, step + 2]
