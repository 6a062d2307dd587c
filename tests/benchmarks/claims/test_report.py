import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lumiere_jax.runtime.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import report  # noqa: E402
import write_readme  # noqa: E402

STAMP = {"machine": "2 CPU cores (made up), jax 0", "date": "2000-01-01"}


def test_a_cell_is_computed_once(tmp_path):
    path, calls = tmp_path / "deep" / "cell.json", []

    def compute():
        calls.append(1)
        return {"value": 3.5}

    first = report.kept(path, {"steps": (7, 8)}, compute)
    assert report.kept(path, {"steps": (7, 8)}, compute) == first == json.loads(path.read_text())
    assert first["value"] == 3.5 and len(calls) == 1 and first["machine"] and first["date"]
    assert report.read_kept(path.parent) == [first]
    assert [entry.name for entry in path.parent.iterdir()] == ["cell.json"]
    with pytest.raises(UserError, match=r"'steps': \[7, 8\].*asks for.*'steps': 9.*--output"):
        report.kept(path, {"steps": 9}, compute)


def test_a_cell_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        report.kept(tmp_path / "cell.json", {}, lambda: {"value": 1 / 0})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no results in"):
        report.read_kept(tmp_path)


def test_matching_and_spread():
    cells = [{"settings": {"a": a, "b": b}} for a in (1, 2) for b in (3, 4)]
    assert report.matching(cells, a=2, b=3) == [cells[2]]
    assert report.matching(cells, c=2) == []
    assert report.spread([0.5]) == "0.500"
    assert report.spread([3, 1, 2.5], ".1f") == "2.5 (1.0 to 3.0)"


def test_a_section_has_all_its_parts():
    text = report.section(
        title="it works",
        paper="The paper says so.",
        command="python x.py",
        cells=[STAMP, STAMP | {"date": "2000-01-03"}],
        body=["Text.", report.table(["a"], [["1"]])],
        pictures=["results/a_b.png"],
        verdict="Holds here.",
    )
    assert text == (
        "## Claim: it works\n\nThe paper says so.\n\n    python x.py\n\nMeasured 2000-01-01 to "
        "2000-01-03 on 2 CPU cores (made up), jax 0.\n\nText.\n\n| a |\n| --- |\n| 1 |\n\n"
        "![a b](results/a_b.png)\n\n**Holds here.**\n"
    )


def test_the_document_has_what_was_measured(tmp_path, monkeypatch):
    output = tmp_path / "results"
    for name in ("second_claim", "first_claim"):
        made_up = SimpleNamespace(section=lambda folder, n=name: f"## {n} in {folder.name}\n")
        monkeypatch.setitem(sys.modules, name, made_up)
        (output / name).mkdir(parents=True)
        (output / name / "cell.json").write_text("{}")
    (output / "empty_claim").mkdir()
    names = ("first_claim", "empty_claim", "second_claim", "unknown_claim")
    text = write_readme.document(output, names)
    assert text == (
        f"{write_readme.INTRODUCTION}\n## first_claim in results\n\n## second_claim in results\n\n"
        "Not measured yet: `empty_claim`, `unknown_claim`.\n"
    )
    with pytest.raises(UserError, match="holds no results"):
        write_readme.document(output, ["empty_claim"])


def test_every_claim_of_the_document_is_a_script_of_its_name():
    folder = Path(write_readme.__file__).parent
    there = [name for name in write_readme.CLAIMS if (folder / f"{name}.py").is_file()]
    assert {"temporal_downsampling", "window_overlap", "style_interpolation", "frozen_images"} <= {
        *there
    }
    for name in there:
        text = (folder / f"{name}.py").read_text()
        assert f'FOLDER = "{name}"' in text and "\ndef section(output: Path) -> str:" in text
