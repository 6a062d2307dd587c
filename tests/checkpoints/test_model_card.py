"""The model card that export writes."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lumiere_jax.checkpoints import bundle
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.evaluation import card
from lumiere_jax.planning import report
from lumiere_jax.runtime.errors import UserError

PLANS = Path(__file__).parents[2] / "benchmarks" / "results" / "plans.jsonl"
CARD = {
    "scores": {"FVD": {"mean": 123.4567, "values": [123.4567]}},
    "protocol": {"num_videos": 96},
    "run": {"date": "2030-01-02", "seconds": 61, "devices": "7 cpu", "packages": {"jax": "9"},
            "lumiere_jax": "1", "python": "3"},
    "warnings": ["too few videos"],
}  # fmt: skip


@pytest.fixture(name="evaluation")
def fixture_evaluation(tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "card.json").write_text(json.dumps(CARD))
    return tmp_path / "eval"


@pytest.fixture(name="runs")
def fixture_runs(cascade, tmp_path):
    copies = [shutil.copytree(cascade[name], tmp_path / name) for name in ("t2i", "stunet")]
    Image.new("RGB", (4, 4)).save(copies[0] / "loss.png")
    (copies[1] / "loss.png").unlink(missing_ok=True)
    return [str(copy) for copy in copies]


def test_what_it_says(runs, evaluation, tmp_path):
    out = tmp_path / "my_model"
    export(
        runs, out, license="Apache-2.0", evaluation=card.read(evaluation), plans=report.read(PLANS)
    )
    text = (out / "README.md").read_text()
    assert text.startswith(
        "---\nlicense: apache-2.0\nlibrary_name: lumiere_jax\npipeline_tag: text"
    )
    entry = bundle.entries(out)["stunet"]
    assert f"| `stunet` | stunet | {entry['parameters']:,} | {entry['step']:,} |" in text
    assert 'from_pretrained("my_model")' in text
    assert "FVD" in text and "123.4567" in text and "too few videos" in text
    assert text.count("memory per chip") == len(PLANS.read_text().splitlines())
    assert "(losses/t2i.png)" in text and "losses/stunet.png" not in text
    with Image.open(out / "losses" / "t2i.png") as picture:
        assert picture.size == (4, 4)
    for table in ("| stage | kind |", "| stage | network |", "| stage | sampler |"):
        lines = text[text.index(table) :].partition("\n\n")[0].splitlines()
        assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1, table


@pytest.mark.parametrize(
    ("license", "name"), [("", "unknown"), ("Ask the makers first.", "other"), ("MIT", "mit")]
)
def test_licenses(runs, tmp_path, license, name):
    export(runs, tmp_path / "x", license=license)
    text = (tmp_path / "x" / "README.md").read_text()
    assert f"\nlicense: {name}\n" in text
    assert f"License: {license or 'none is stated; ask those who made these weights'}." in text
    assert "None was given when these weights were exported." in text


def test_a_name_with_a_quote(runs, tmp_path):
    export(runs, tmp_path / 'my "own"\nmodel')
    text = (tmp_path / 'my "own"\nmodel' / "README.md").read_text()
    assert '\n# my "own" model: model card\n' in text
    call = next(line for line in text.splitlines() if "from_pretrained" in line)
    assert ast.literal_eval(call.partition("from_pretrained")[2]) == 'my "own" model'


def test_super_resolution_alone_is_no_task_of_a_hub(cascade, tmp_path):
    export([str(cascade["ssr"])], tmp_path / "x")
    text = (tmp_path / "x" / "README.md").read_text()
    assert "pipeline_tag" not in text and "from_pretrained" not in text


def test_a_card_of_ours_is_written_anew_and_another_stays(runs, evaluation, tmp_path):
    out = tmp_path / "x"
    export(runs, out)
    export(runs, out, evaluation=card.read(evaluation), plans=report.read(PLANS))
    assert "123.4567" in (out / "README.md").read_text()
    told = export(runs, out)
    assert told.endswith("no longer in the card: the evaluation and the plan; give it again")
    assert "no longer" not in export(runs, out)
    (out / "README.md").write_text("mine")
    export(runs, out)
    assert (out / "README.md").read_text() == "mine"


def test_cards_and_plans_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").write_text("")
    with pytest.raises(UserError, match=r"empty holds no plans \(it is empty\)"):
        report.read(tmp_path / "empty")
    with pytest.raises(UserError, match="is no protocol card"):
        card.read("e" * 300)
    for name, text in (("a", "{"), ("b", "[1]"), ("c", '{"scores": {}}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} is no protocol card .*lumiere_jax.eval"):
            card.read(tmp_path / name)
        with pytest.raises(UserError, match=f"{name} holds no plans .*lumiere_jax.plan"):
            report.read(tmp_path / name)
    with pytest.raises(UserError, match=r"nothing/card.json is no|nothing is no"):
        card.read(tmp_path / "nothing")
