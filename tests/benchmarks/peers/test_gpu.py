"""The benchmark for a GPU, on a CPU: its steps are real ones, its table is of what was measured."""

import sys
from pathlib import Path

import jax
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.planning import flops
from tests.tiny_runs import SMALLEST, tiny_config

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import gpu  # noqa: E402


def test_steps_of_a_config_and_the_table():
    config = tiny_config("t2i", **SMALLEST)
    steps = gpu.steps_of(config, rounds=2)
    needed = flops.training_flops(Stage.from_config(config), config.train.batch_size).total
    assert steps["training step"]["flops"] == needed
    # A step of one clip, without gradients, takes two calls of the network for guidance.
    assert 0 < steps["denoising step"]["flops"] < needed
    for cell in steps.values():
        assert len(cell["seconds"]) == 2 and 0 < min(cell["seconds"]) < cell["first"]

    peak, peak_from = gpu.peak_of(jax.devices()[0])
    assert 1e8 < peak < 1e14 and "measured" in peak_from
    cell = {"first": 9.0, "seconds": [0.1, 0.2, 0.3]}
    numbers = {"forward": 1e12, "train": 3e12}
    runs = {"forward": cell, "train": {"error": "RuntimeError: no"}}
    result = {
        "device": "cpu", "machine": "made up", "date": "2000-01-01", "config": "t2i", "peak": 1e13,
        "peak_from": peak_from, "steps": steps, "shape": [8, 16, 64, 64, 3],
        "networks": {"torch": {"flops": numbers, "runs": runs}},
    }  # fmt: skip
    text = gpu.text(result)
    assert "| forward pass | torch | 0.2 | 40 | 1 | 50.0% | 9.0 |" in text
    assert "| training step | torch | fails: RuntimeError: no |" in text
    assert "sampling" not in text and "| denoising step | " in text


@pytest.mark.parametrize("kind", ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA H200"])
def test_the_peak_of_a_gpu_is_that_of_its_data_sheet(kind):
    class Device:
        device_kind, platform = kind, "gpu"

    peak, peak_from = gpu.peak_of(Device)
    assert peak == (312e12 if "A100" in kind else 989e12) and peak_from.startswith("data sheet")
