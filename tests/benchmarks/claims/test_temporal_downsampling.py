import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import frame_costs  # noqa: E402
import report  # noqa: E402
import temporal_downsampling as claim  # noqa: E402

GIB = 2**30
STAMP = {"machine": "2 CPU cores (made up), jax 0", "date": "2000-01-01"}


def cell(variant, frames, resampling, needed, fits=True, **more):
    settings = {"variant": variant, "mode": "train", "frames": frames, "resampling": resampling}
    settings |= {"batch": 16, "clips_a_chip": 1, "topology": "v5p:2x2x4"}
    found = {"settings": settings, "fits": fits, "needed": needed, "arguments": GIB}
    found |= {"trainable": 3_000_000, "frozen": 1_000_000 + resampling * 500_000}
    found |= {"flops": 2e12 * frames, "hbm": 95 * GIB, "step_seconds": 0.5 * frames}
    return STAMP | found | more


def cells(share):
    """80 frames with down-sampling take `share` of the memory of 16 without."""
    return [
        cell("full", 16, False, 20 * GIB),
        cell("full", 16, True, 8 * GIB),
        cell("full", 80, False, 120 * GIB, fits=False, step_seconds=None),
        cell("full", 80, True, share * 20 * GIB),
    ]


def test_memory_ratio_and_verdict():
    assert claim.memory_ratio(cells(1.25), "full", "train") == 1.25
    assert claim.memory_ratio(cells(1.25)[1:], "full", "train") is None
    assert claim.verdict(cells(1.25)).startswith("Holds here")
    assert claim.verdict(cells(2)).startswith("Does not hold here")
    assert "training step: 2.00×" in claim.verdict(cells(2))
    assert claim.verdict(cells(1)[:3]).startswith("Not decided")
    small = [cell("small", 16, False, GIB), cell("small", 80, True, 5 * GIB)]
    assert claim.verdict(cells(1.25) + small).startswith("Holds partly here")


def test_rows_have_ratios_and_what_does_not_fit():
    rows = claim.make_rows(cells(1.25), "full", "train")
    assert rows[0] == ["16", "without", "4.00M", "32", "20 GiB: 1 + 19", "-", "8 s"]
    assert rows[1] == ["16", "with", "4.50M", "32", "8 GiB: 1 + 7", "-", "8 s"]
    ratio = "0.40× (all but arguments: 0.37×)"
    assert rows[2] == ["16", "with / without", "1.12×", "1.00×", ratio, "-", "1.00×"]
    assert rows[3][4:] == ["**does not fit**: 120 GiB of 95 GiB", "-", "-"]
    assert rows[5][4:] == ["0.21× (all but arguments: 0.20×)", "-", "-"]
    killed = {"settings": rows and cells(1)[0]["settings"], "fits": False, "reason": "no memory"}
    assert claim.make_rows([STAMP | killed], "full", "train") == [
        ["16", "without", "-", "-", "**does not fit**: ?", "-", "-"]
    ]


def test_section_and_picture(tmp_path):
    found = cells(1.25)
    for one in found:
        path = tmp_path / "results" / claim.FOLDER / f"{claim.name_of(one['settings'])}.json"
        report.kept(path, one["settings"], lambda c=one: c)
    text = claim.section(tmp_path / "results")
    assert "compiled for v5p, 1 clip per chip of v5p:2x2x4" in text
    assert "(results/temporal_downsampling.png)" in text and "1.25×" in text
    claim.draw(report.read_kept(tmp_path / "results" / claim.FOLDER), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_names_differ():
    settings = [one["settings"] for one in cells(1)]
    names = {claim.name_of(s) for s in settings}
    assert len(names) == 4 and "full_train_016_without" in names


def test_step_times(monkeypatch):
    monkeypatch.setattr(frame_costs, "LEAST_SECONDS", 0.0)
    calls = []
    assert len(frame_costs.step_times(lambda: calls.append(1))) == frame_costs.LEAST_STEPS
    assert len(calls) == frame_costs.LEAST_STEPS + 1


@pytest.fixture
def smallest(monkeypatch):
    """The smallest network in place of a config's."""
    original = frame_costs.network_config

    def config(*args):
        config = original(*args)
        config.data.resolution = 8
        config.model.update({"widths": (8, 8), "attention_levels": (False, False)})
        config.model.update({"embedding_features": 16, "text_features": 8, "groups": 4})
        config.model.head_dim = 8
        config.model.pooling_heads = 1
        config.optimizer.name = "adamw"  # compiles in half of the time
        return config

    monkeypatch.setattr(frame_costs, "network_config", config)
    monkeypatch.setattr(frame_costs, "LEAST_SECONDS", 0.0)


@pytest.mark.parametrize("mode", ["train", "forward"])
def test_down_sampling_costs_less(smallest, mode):
    settings = {"variant": "tiny", "mode": mode, "frames": 8, "batch": 1}
    with_it, without = (
        frame_costs.measure_here(settings | {"resampling": kind}) for kind in (True, False)
    )
    assert json.loads(json.dumps(with_it)) == with_it
    assert with_it["flops"] < without["flops"]
    assert with_it["trainable"] > without["trainable"]  # the modules that resample
    assert with_it["frozen"] == without["frozen"]
    assert with_it["temporaries"] < without["temporaries"]
    assert with_it["step_seconds"] > 0 and with_it["steps"] >= frame_costs.LEAST_STEPS
