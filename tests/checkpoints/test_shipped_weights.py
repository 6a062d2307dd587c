"""The weights that travel with the project, and the script that scores them."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import bundle, checkpoint
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.evaluation import networks
from lumiere_jax.runtime.errors import UserError
from tests.manifests import write_manifest

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights" / "small"
MOST_BYTES = 60e6

sys.path.insert(0, str(ROOT / "benchmarks"))
import shipped_scores  # noqa: E402


@pytest.mark.parametrize("name", bundle.entries(WEIGHTS))
def test_every_shipped_stage_loads_and_is_whole(name):
    config, params, step = checkpoint.load(WEIGHTS / name)
    stage = Stage.from_config(config)
    assert step > 0 and stage.name == re.sub(r"_\d+$", "", name) and params
    arrays = [np.asarray(x) for x in flat(params).values()]
    assert all(np.isfinite(array).all() for array in arrays)


def flat(tree, path=()):
    if not isinstance(tree, dict):
        return {path: tree}
    return {p: leaf for name, part in tree.items() for p, leaf in flat(part, (*path, name)).items()}


def test_they_are_small_enough_to_travel():
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) <= MOST_BYTES


@pytest.mark.parametrize("path", sorted((WEIGHTS / "scores").glob("*.json")), ids=lambda p: p.stem)
def test_the_card_has_the_scores_of_these_weights(path):
    saved = json.loads(path.read_text())
    assert saved["weights"] == shipped_scores.identities(WEIGHTS, tuple(saved["weights"]))
    card = (WEIGHTS / shipped_scores.CARD).read_text()
    assert shipped_scores.table(saved["rows"]) in card
    assert shipped_scores.footer(path.stem, saved) in card


def test_they_were_scored():
    assert (WEIGHTS / "scores" / "shapes.json").is_file()


def test_a_table_goes_to_its_place():
    rows = {"made": {"colour": 0.5, "FVD": 123.4}, "true": {"colour": 1.0, "FVD": 0.2}}
    text = shipped_scores.table(rows)
    assert "| made | 50.0% | 123 |" in text and "| true | 100.0% | 0 |" in text
    card = "before\n<!-- x -->\nold\n<!-- end of x -->\nafter"
    once = shipped_scores.put_into_card(card, "x", text)
    assert once == f"before\n<!-- x -->\n{text}\n<!-- end of x -->\nafter"
    assert shipped_scores.put_into_card(once, "x", text) == once
    with pytest.raises(UserError, match="no place for y"):
        shipped_scores.put_into_card(card, "y", text)


@pytest.fixture(name="weights")
def fixture_weights(cascade, tmp_path):
    export([str(cascade[stage]) for stage in ("stunet", "ssr")], tmp_path / "weights")
    return tmp_path / "weights"


def test_clips_are_made_once_while_the_weights_are_the_same(weights, tmp_path):
    shipped = shipped_scores.Shipped(weights, tmp_path / "clips")
    shipped.pipeline.show_progress = False
    whole = shipped.base("moving_shapes", 3)
    assert np.array_equal(shipped_scores.Shipped(weights, tmp_path / "other").base(
        "moving_shapes", 3), whole)  # fmt: skip
    shipped.pipeline = None  # nothing more can be made
    assert np.array_equal(shipped.base("moving_shapes", 2), whole[:2])
    asked = []

    def make(number):
        asked.append(number)
        return whole[number:]

    assert np.array_equal(shipped._kept("base", "fewer", 2, lambda n: whole[n:2]), whole[:2])
    assert np.array_equal(shipped._kept("base", "fewer", 3, make), whole) and asked == [2]


def test_a_score_is_measured_again_when_the_weights_or_how_they_are_sampled_change(
    weights, tmp_path, monkeypatch
):
    calls = []
    monkeypatch.setitem(shipped_scores.SCORES, "fvd", lambda *given: calls.append(given) or {})

    def measured(folder, count=4):
        return shipped_scores.measured(folder, "fvd", count, 2, lambda: None)

    first = measured(weights)
    assert measured(weights) == first and len(calls) == 1
    measured(weights, 6)
    assert len(calls) == 2
    other = shutil.copytree(weights, tmp_path / "copy")
    manifest = json.loads((other / bundle.MANIFEST).read_text())
    manifest["stages"]["stunet"]["config"]["sampling"]["guidance_scale"] += 1
    write_manifest(other, manifest)
    measured(other, 6)
    assert len(calls) == 3


def test_a_field_that_is_new_and_at_its_default_changes_no_identity(tmp_path):
    manifest = json.loads((WEIGHTS / bundle.MANIFEST).read_text())
    for power in (1.0, 2.0):
        manifest["stages"]["stunet"]["config"]["sampling"]["time_power"] = power
        write_manifest(tmp_path, manifest)
        same = shipped_scores.identities(tmp_path, ["stunet"]) == shipped_scores.identities(
            WEIGHTS, ["stunet"]
        )
        assert same == (power == 1.0)


def test_every_score_of_a_bundle_with_every_stage(cascade, tmp_path, monkeypatch):
    import shipped_stages

    stages = ["t2i", "stunet", "ssr", "stunet_conditional", "style", "stunet_4=stunet", "ssr_4=ssr"]
    given = [
        stage.partition("=")[0] + "=" + str(cascade[stage.partition("=")[2] or stage])
        for stage in stages
    ]
    weights = tmp_path / "weights"
    export(given, weights)
    manifest = json.loads((weights / bundle.MANIFEST).read_text())
    for name in ("stunet_4", "ssr_4"):
        manifest["stages"][name]["config"]["distillation"] = {"steps": [4]}
    write_manifest(weights, manifest)
    monkeypatch.setattr(shipped_stages, "CASES", 2)
    monkeypatch.setattr(shipped_stages, "STYLE_CAPTIONS", 2)
    monkeypatch.setattr(shipped_stages, "ALPHAS", (0.0, 1.0))
    monkeypatch.setattr(networks, "i3d_network", lambda settings: Means())
    shipped = shipped_scores.Shipped(weights, tmp_path / "clips")
    names = [name for name in shipped_scores.SCORES if name not in ("digits", "diversity")]
    rows = {name: shipped_scores.SCORES[name](shipped, 4, 2) for name in names}
    tables = {name: shipped_scores.table(found) for name, found in rows.items()}
    assert "| image-to-video: direction | 2 |" in tables["conditional"]
    for row in rows["fewer_steps"].values():
        assert 0 <= row["all"] <= 1
    assert list(rows["style"]) == ["α = 0", "α = 1"]
    assert (weights / "scores" / "style.png").stat().st_size > 0
    assert all(row["FVD"] > 0 for row in rows["fvd"].values()) and len(rows["fvd"]) == 3


class Means:
    """Stands for I3D: features that are means of colours."""

    batch_size = 3

    def __call__(self, videos):
        return np.stack([np.mean(video, axis=(0, 1, 2)) for video in videos])
