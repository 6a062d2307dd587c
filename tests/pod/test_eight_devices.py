"""Sharded computation equals unsharded computation, on 8 virtual devices."""

import json
import os
import subprocess
import sys

from tests.conftest import REPOSITORY

ROUNDING = 2e-4  # of the largest value; sums over devices have another order


def compare(what: str) -> dict:
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-m", "tests.pod.eight_devices", what],
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_a_training_step_is_the_same_on_every_mesh():
    result = compare("training")
    assert result["split"] > 10  # FSDP splits the optimiser's state
    assert result["loss"] < 1e-5
    assert result["gradient_norm"] < ROUNDING and result["parameters"] < ROUNDING


def test_sampling_is_the_same_on_every_mesh():
    result = compare("sampling")
    assert result["height"] < ROUNDING and result["windows"] < ROUNDING
