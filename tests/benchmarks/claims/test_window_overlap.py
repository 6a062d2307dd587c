import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import report  # noqa: E402
import window_overlap as claim  # noqa: E402

STAMP = {"machine": "2 CPU cores (made up), jax 0", "date": "2000-01-01"}


def test_borders_are_where_the_set_of_windows_changes():
    assert np.flatnonzero(claim.borders(12, 4, 0)).tolist() == [3, 7]
    # 0-3, 3-6, 6-9, 8-11: a frame in two windows has a border before and after it.
    assert np.flatnonzero(claim.borders(12, 4, 1)).tolist() == [2, 3, 5, 6, 7, 9]
    assert np.flatnonzero(claim.borders(14, 8, 2)).tolist() == [5, 7]
    assert not claim.borders(12, 12, 0).any()


def test_grid_leaves_out_what_makes_no_difference():
    settings = claim.grid(8, [4, 8, 16], [0, 2, 4])
    assert settings == [
        claim.Windows(8, 0, "uniform"),
        claim.Windows(4, 0, "uniform"),
        claim.Windows(4, 2, "uniform"),
        claim.Windows(4, 2, "linear"),
    ]
    assert settings[2].starts(8) == (0, 2, 4)


def test_spike_is_the_ratio_of_means():
    at = np.array([False, True, False, False])
    found = claim.spike(np.array([[1.0, 3, 1, 1], [2, 8, 2, 2]]), at)
    assert found["border"] == 5.5 and found["elsewhere"] == 1.5
    assert found["ratio"] == pytest.approx(11 / 3)
    assert found["low"] == pytest.approx(3) and found["high"] == pytest.approx(4)
    assert math.isnan(claim.spike(np.ones((2, 4)), np.zeros(4, bool))["ratio"])
    assert math.isnan(claim.spike(np.ones((2, 4)), np.ones(4, bool))["ratio"])


def cells(without, overlapping):
    """Two kinds of clips of 8 frames; differences at borders are so many times those elsewhere."""
    found = []
    for kind in claim.INPUTS:
        for cut in claim.grid(8, [4], [0, 2]):
            excess = without if (cut.window, cut.overlap) == (4, 0) else overlapping
            differences = np.ones((3, 7))
            differences[:, 3] = 1.0 if cut.window == 8 else excess[kind]
            settings = {"input": kind, "window": cut.window, "overlap": cut.overlap}
            settings |= {"weights": cut.weights, "frames": 8, "clips": 3, "steps": 5}
            settings |= {"low": 16, "high": 64}
            windows = len(cut.starts(8))
            cell = {"settings": settings | {"trained_window": 4}, "windows": windows}
            cell |= {"network_calls": 5 * windows, "seconds_a_clip": 0.25 * windows}
            found.append(STAMP | cell | {"differences": differences.tolist()})
    return found


def write(folder, found):
    for number, cell in enumerate(found):
        report.kept(folder / f"{number:02d}.json", cell["settings"], lambda c=cell: c)


@pytest.mark.parametrize(
    ("without", "overlapping", "word"),
    [
        ({"true": 3, "made": 2}, {"true": 1.1, "made": 1.2}, "Holds here"),
        ({"true": 3, "made": 2}, {"true": 2.8, "made": 1.2}, "Holds partly here"),
        ({"true": 1.05, "made": 1}, {"true": 1, "made": 1}, "Does not hold here"),
    ],
)
def test_verdict(without, overlapping, word):
    assert claim.verdict(cells(without, overlapping)).startswith(word)


def test_an_overlap_that_moves_the_spike_does_not_remove_it():
    found = cells({"true": 3, "made": 3}, {"true": 1, "made": 1})
    for cell in report.matching(found, overlap=2):
        differences = np.array(cell["differences"])
        differences[:, claim.borders(8, 4, 2)] = 3.0  # where its own windows begin and end
        differences[:, 3] = 1.0
        cell["differences"] = differences.tolist()
    assert claim.judge(found, "true", 4) == (True, False)


def test_section_and_picture(tmp_path):
    found = cells({"true": 3, "made": 2}, {"true": 1.1, "made": 1.2})
    write(tmp_path / "results" / claim.FOLDER, found)
    text = claim.section(tmp_path / "results")
    spike = "3.00 (3.00 to 3.00)"
    assert f"| true clips | 4 | 0 | - | 1.00e+00 | {spike} | {spike} | 2 | 10 | 0.50 s |" in text
    assert (
        "| true clips | 4 | all frames at once | - | 1.00e+00 | - | 1.00 (1.00 to 1.00) |" in text
    )
    assert "| clips made by the base | 4 | 2 | linear |" in text
    assert text.count("\n| ") == 2 + 2 * 4  # head, rule and rows
    assert "in 2 of 2 settings" in text and "(results/window_overlap.png)" in text
    claim.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
