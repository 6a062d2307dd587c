import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
import matching  # noqa: E402
import small_profile  # noqa: E402
from peers import processes, table  # noqa: E402

SHAPE = (2, 4, 16, 16, 3)
SETTING = ["--batch=2", "--frames=4", "--size=16"]
TINY = matching._FAMILY | {"widths": matching.widths_of(matching._STEP)}
SHALLOW = TINY | {"widths": [16, 32], "attention_levels": [False, True]}


@pytest.mark.parametrize("what", ["flops", "parameters"])
def test_the_matched_network_comes_nearest_of_its_family(what):
    target = {"flops": 2_000_000_000, "parameters": 12_000_000}[what]
    found = matching.matched(target, what, SHAPE, 4, 8)

    def number(finest):
        flops, parameters = matching._counted(finest, SHAPE, 4, 8)
        return {"flops": flops, "parameters": parameters}[what]

    finest = found["widths"][0]
    assert found["widths"] == matching.widths_of(finest)
    off = abs(number(finest) - target)
    assert all(abs(number(finest + step) - target) >= off for step in (-16, 16))
    assert off < 0.2 * target


def test_parameters_of_a_match_are_those_of_the_network():
    sizes = jax.eval_shape(
        matching.create(TINY).init,
        jax.random.key(0),
        jnp.zeros(SHAPE),
        jnp.zeros(2),
        jnp.zeros((2, 4, 8)),
    )
    total = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(sizes["params"]))
    assert matching._counted(matching._STEP, SHAPE, 4, 8)[1] == total


def test_training_temporal_weights_alone_takes_fewer_operations():
    whole = matching.flops_of(TINY, SHAPE, 4, 8)
    part = matching.flops_of(TINY, SHAPE, 4, 8, frozen=True)
    assert whole["forward"] == part["forward"] < part["train"] < whole["train"]
    assert 2.5 < whole["train"] / whole["forward"] < 3.1


def test_a_worker_answers_and_its_peak_only_rises():
    with processes.stunet_worker(SETTING, fields=json.dumps(SHALLOW)) as worker:
        assert worker.hello["parameters"] > 100_000
        answers = [worker.ask(name) for name in ("forward", "sample", "train", "train")]
    assert all(answer["seconds"] > 0 for answer in answers)
    peaks = [worker.hello["peak"], *(answer["peak"] for answer in answers)]
    assert peaks == sorted(peaks) and peaks[0] > 2**26


def test_a_worker_that_dies_between_runs_is_an_error_and_no_end():
    with processes.stunet_worker(SETTING, fields=json.dumps(SHALLOW)) as worker:
        worker._process.kill()
        assert worker.ask("forward") == {"error": "its process ended with exit code -9"}
        assert "ended with exit code" in worker.ask("train")["error"]


def test_a_worker_that_ends_says_why():
    with pytest.raises(UserError, match="unexpected keyword argument 'nonsense'"):
        processes.stunet_worker(SETTING, fields='{"nonsense": 1}')


def made_up_result(ratio=2.0):
    """Their seconds are `ratio` times ours; torch.compile fails in training."""
    sizes = {"parameters": 9_840_000, "flops": {"forward": 448e9, "train": 1300e9}}

    def runs(seconds):
        cell = {"first": 30.0, "seconds": [seconds, 2 * seconds, seconds], "peak": 3 * 2**30}
        return {name: dict(cell) for name in table.RUN_NAMES}

    networks = {mode: sizes | {"runs": runs(ratio)} for mode in table.MODES}
    networks["torch.compile"]["runs"]["train"] = {"error": "RuntimeError: no"}
    for what in table.MATCHES:
        for name in (f"STUNet, same {what}", f"STUNet, same {what}, temporal weights alone"):
            own = runs(1.0)
            for run, cell in own.items():
                cell["beside"] = {
                    mode: networks[mode]["runs"][run].get("seconds", []) for mode in table.MODES
                }
            networks[name] = sizes | {"widths": [64, 128, 256], "runs": own}
    return {
        "settings": {"peer": "lumiere-pytorch", "shape": [2, 16, 64, 64, 3], "rounds": 3},
        "machine": "2 CPU cores (made up), jax 0",
        "threads": 2,
        "torch": "2.0",
        "date": "2000-01-01",
        "networks": networks,
    }


def test_page_of_results(tmp_path):
    with pytest.raises(UserError, match="no results in"):
        table.page(tmp_path / "peers")
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "lumiere-pytorch.json").write_text(json.dumps(made_up_result(1.5)))
    profile = {
        "machine": "2 CPU cores (made up), jax 0",
        "date": "2000-01-02",
        "peak": 200e9,
        "runs": {
            "t2i, forward pass": {
                "batch": 8,
                "flops": 5e9,
                "seconds": 0.05,
                "kinds": {"matrix products": 1.0, "norms": 3.0},
            }
        },
    }
    (tmp_path / table.PROFILE).write_text(json.dumps(profile))
    text = table.page(tmp_path / "peers")
    assert "| lumiere-pytorch, torch | 1.50 s, 1.00 s, **1.50×** (1.50 to 1.50) |" in text
    assert "fails: RuntimeError: no" in text
    assert "- lumiere-pytorch, forward pass: 1.50× (target 2×), **not reached**" in text
    assert "- lumiere-pytorch, training step: 1.50× (target 1.4×), reached" in text
    assert "| lumiere-pytorch: torch | 149% (299 GFLOP/s) | 0.7× |" in text
    assert "| t2i, forward pass | 8 | 5.0 | 0.050 s | 100 | 50% |" in text
    assert "| t2i, forward pass | norms 75%, matrix products 25% |" in text


def test_ratios_are_within_a_round():
    result = made_up_result()
    cell = result["networks"]["STUNet, same flops"]["runs"]["forward"]
    cell["beside"]["torch"] = [2.0, 2.0, 3.0]
    found = table.ratios(result, "torch", "STUNet, same flops", "forward")
    assert found == [2.0, 1.0, 3.0]
    assert table.ratios(result, "torch.compile", "STUNet, same flops", "train") == []


def test_operations_are_told_apart_by_what_a_fusion_contains():
    def loss(kernel, weights, images):
        layout = ("NHWC", "HWIO", "NHWC")
        hidden = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=layout
        )
        return jnp.square(jax.nn.silu(hidden) @ weights).sum()

    arguments = (jnp.ones((3, 3, 16, 16)), jnp.ones((16, 16)), jnp.ones((2, 16, 16, 16)))
    program = jax.jit(jax.grad(loss, (0, 1))).lower(*arguments).compile().as_text()
    kinds = set(small_profile.kinds_of_operations(program).values())
    assert {"convolution", "kernel^T", "dot"} <= kinds <= set(small_profile.KINDS)
    plain = jax.jit(jnp.sin).lower(jnp.ones(8)).compile().as_text()
    assert not small_profile.kinds_of_operations(plain)


def test_a_missing_environment_is_said(tmp_path):
    command = [sys.executable, "benchmarks/vs_peers.py", f"--peers_python={tmp_path}/python"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--peers_python" in done.stderr
    assert "as the beginning of" in done.stderr and "Traceback" not in done.stderr
