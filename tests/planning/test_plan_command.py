"""The plan's command line, with the TPU's own compiler."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.warm_python import REPOSITORY, python

TINY, SLICE = "--config=configs/t2i.py:tiny", "--topology=v5e:2x2"
NARROW = (
    "--config.model.widths=(8,)", "--config.model.embedding_features=8",
    "--config.model.head_dim=8", "--config.model.groups=4",
    "--config.model.attention_levels=(False,)", "--config.model.text_features=16",
    "--config.optimizer.name=adafactor",
)  # fmt: skip
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU's compiler is not installed: pip install -e '.[tpu]'",
)


def run(*arguments, program=None):
    """Runs the binary with the compiler's ordinary settings, not those of the tests."""
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return subprocess.run(
        [program or python(), "-m", "lumiere_jax.plan", *arguments],
        cwd=REPOSITORY, env=kept, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@needs_compiler
def test_training_step_of_four_chips_that_are_not_there(tmp_path):
    arguments = (
        TINY, SLICE, "--clips=1000", "--where",
        f"--cache={tmp_path}/cache", f"--output={tmp_path}/plans.jsonl",
        f"--save={tmp_path}/programs", "--config.train.batch_size=4",
        "--config.mesh.data=2", "--config.mesh.fsdp=2", *NARROW,
    )  # fmt: skip
    result = run(*arguments, program=sys.executable)
    assert result.returncode == 0, result.stderr
    assert "compiling for v5e:2x2, this can take minutes" in result.stderr
    assert "MFU" in result.stdout and "it fits" in result.stdout
    rows = result.stdout[result.stdout.index("check-up: ") :]
    assert "clips a second" in rows and "are needed" in rows and "chip-hours" in rows
    plan = json.loads((tmp_path / "plans.jsonl").read_text())
    assert plan["chips"] == 4 and plan["mesh"] == {"data": 2, "fsdp": 2, "space": 1}
    assert plan["config"].startswith("configs/t2i.py:tiny train.batch_size=4 mesh.data=2")
    assert plan["fits"] and plan["hbm"] == 16 * 2**30 and 0 < plan["needed"] < plan["hbm"]
    assert 0 < plan["model_flops"] and 0 < plan["compiled_flops"]
    assert plan["unknown_loops"] == []
    assert plan["collectives"].keys() <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert plan["seconds"] == plan["cycles"] / 1.5e9 > 0 and 0 < plan["utilization"] < 1
    assert plan["chip_hours"] == pytest.approx(4 * 1000 / plan["clips_a_second"] / 3600)
    reduced = [plan["collectives"].get(kind) for kind in ("all-reduce", "reduce-scatter")]
    # Gradients of all trained parameters meet, at least once, in float32 or bfloat16.
    assert sum(t["bytes"] for t in reduced if t) >= 2 * plan["trainable"] / 2

    kinds, modules = plan["where"]["kinds"], plan["where"]["modules"]
    for rows in (kinds, modules):
        assert sum(row["seconds"] for row in rows) == pytest.approx(plan["seconds"])
        assert sum(row["flops"] for row in rows) == plan["compiled_flops"]
    work = {(row["name"], row["part"]): row["flops"] for row in kinds}
    of_kernels = work["gradients of kernels", "backward"]
    # Everything is trained, so each kernel's gradient takes what its convolution took; but those of
    # dense layers that see one row, as for the noise level, are no sums of products.
    forward = work["convolutions and products", "forward"]
    assert 0.99 * forward < of_kernels <= forward
    assert 0 < work["gradients of inputs", "backward"] < of_kernels
    assert any(row["name"].endswith("/conv_0") for row in modules)
    assert "gradients of kernels" in result.stdout and "MFU lost" in result.stdout
    waited = sum(traffic["waited"] for traffic in plan["collectives"].values())
    assert plan["seconds_with_collectives"] == pytest.approx(plan["seconds"] + waited)
    assert 0 < plan["utilization_with_collectives"] < plan["utilization"]

    (path,) = (tmp_path / "programs").iterdir()
    head, _, program = path.read_bytes().partition(b"\n")
    key = json.loads(head)["key"]
    assert key["devices"].startswith("4 × TPU v5 lite") and not key["host"]
    assert f"libtpu {importlib.metadata.version('libtpu')}" in key["libraries"]
    assert plan["program"] < len(program) == json.loads(head)["bytes"]
    assert f"the training step for {key['devices']}" in result.stderr and str(path) in result.stderr

    again = run(*(a for a in arguments if not a.startswith("--save")), "--json")
    assert again.returncode == 0 and "compiling" not in again.stderr
    assert json.loads(again.stdout) == plan


@needs_compiler
@pytest.mark.parametrize(
    ("topology", "batch_size", "message"),
    [("3x3", 4, "no topology v5e:3x3"), ("2x2", 6, "train.batch_size=6 is not divisible by 4")],
)
def test_what_cannot_be_compiled(topology, batch_size, message):
    flags = (f"--topology=v5e:{topology}", f"--config.train.batch_size={batch_size}", *NARROW)
    result = run(TINY, *flags, program=sys.executable)
    assert result.returncode == 2 and message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TINY, "--topology=v9:2x2"), "--topology=v9:2x2 is not a chip"),
        ((TINY, SLICE, "--search", "--mode=sample"), "--search tries ways to train"),
        ((TINY, SLICE, "--search", "--batches=x"), "--batches=x must be numbers"),
        ((TINY, SLICE, "--save=x", "--mode=sample"), "--save keeps one training step"),
        ((TINY, "--topology=h100:8", "--where"), "nothing is compiled for GPUs"),
        ((TINY, SLICE, "--output=nowhere/x"), "there is no folder nowhere"),
        ((TINY,), "topology"),
        ((SLICE,), "give --config=FILE to plan a stage, or"),
        ((SLICE, TINY, "--mode=features"), "give --config=FILE to plan a stage, or"),
        ((SLICE, TINY, "--mode=cascade"), "--mode=cascade needs --config of the base and --ssr"),
        ((SLICE, TINY, "--mode=text"), "give --config=FILE to plan a stage, or"),
    ],
)
def test_mistakes(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2 and message in result.stderr
    assert "Traceback" not in result.stderr
