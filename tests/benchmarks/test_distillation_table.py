"""The table of benchmarks/distillation.py, from made-up results."""

import json

import numpy as np
import pytest

from benchmarks.distillation_table import NAMES, difference, document


def write(folder, way, steps, right):
    stages = [{"steps": steps, "calls": 2 * steps}, {"steps": steps, "calls": 3 * steps}]
    settings = {"stages": stages, "captions": len(right), "source": folder.name}
    scores = {"base": {"all": [True] * len(right)}, "final": {"all": right}}
    folder.mkdir(exist_ok=True)
    text = json.dumps({"settings": settings, "date": "2030-01-02", "cores": 7} | scores)
    (folder / f"{way}.json").write_text(text)


def test_table(tmp_path):
    for source in ("moving_shapes", "moving_digits"):
        for way in NAMES:
            write(tmp_path / source, way, 20, [True, True, True, False])
    write(tmp_path / "moving_shapes", "student", 4, [True, False, True, False])
    seconds = {way: [8.0, 6.0, 7.0] for way in NAMES} | {"student": [1.0, 3.0, 2.0]}
    timed = {"date": "2030-01-03", "cores": 7, "seconds": seconds}
    (tmp_path / "seconds.json").write_text(json.dumps(timed))
    text = document(tmp_path)
    assert "7 CPU cores" in text and "the median of 3 " in text and "2030-01-03" in text
    shapes, digits = text.split("4 captions of ")[1:]
    assert shapes.startswith("`moving_shapes`, 2030-01-02")
    assert digits.startswith("`moving_digits`")
    table = [line for line in shapes.splitlines() if line.startswith("|")]
    assert len(table) == 7 and len({line.count("|") for line in table}) == 1
    assert table[2] == ("| teacher | 20 + 20 | 40 + 60 | 7 (6 to 8) | 1.00 | 100.0% | 75.0% | - |")
    lost = "25.0 ± 49.0"
    assert table[6] == (
        f"| student | 4 + 4 | 8 + 12 | 2 (1 to 3) | 3.50 | 100.0% | 50.0% | {lost} |"
    )
    assert "| student | 20 + 20 |" in digits


def test_difference_is_of_pairs():
    generator = np.random.default_rng(0)
    before, after = (generator.random((2, 50)) < 0.7).tolist()
    lost, margin = difference(before, after)
    changes = 100 * (np.array(before, float) - np.array(after, float))
    assert lost == pytest.approx(changes.mean())
    assert margin == pytest.approx(1.96 * changes.std(ddof=1) / np.sqrt(50))
