"""What `benchmarks/ucf101_model.py` tells of a model, on made-up clips and logits."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import clip_figures as figures  # noqa: E402


def made_set(per_class: int, rng: np.random.Generator, apart: float = 5.0) -> figures.Set:
    """Noise of three classes, whose logits have means that differ."""
    names = np.repeat(["A", "B", "C"], per_class)
    logits = rng.normal(size=(len(names), 400)) + apart * np.eye(3)[:, np.arange(400) % 3].repeat(
        per_class, 0
    )
    clips = rng.integers(0, 256, (len(names), 3, 4, 4, 3), np.uint8)
    return figures.Set(clips, names, logits)


def test_nearest_is_scipys():
    first, second = (np.random.default_rng(n).normal(size=(9, 400)) for n in (0, 1))
    found, far = figures.nearest(first, second)
    distances = cdist(first, second)
    np.testing.assert_array_equal(found, distances.argmin(1))
    np.testing.assert_allclose(far, distances.min(1), rtol=1e-9)


def test_motion_and_sharpness_by_hand():
    still = np.zeros((1, 4, 2, 4, 3), np.uint8)
    moving = still.copy()
    moving[:, 1::2] = 30  # every other frame is brighter
    striped = still.copy()
    striped[..., 1::2, :] = 20
    np.testing.assert_allclose(figures.motion(np.concatenate([still, moving])), [0, 30])
    np.testing.assert_allclose(figures.sharpness(np.concatenate([moving, striped])), [0, 20])


def test_a_class_that_is_told_and_one_that_is_not():
    rng = np.random.default_rng(0)
    train, test = made_set(40, rng), made_set(10, rng)
    told = figures.classifier(train)
    assert figures.accuracy(told, test) == 1
    others = figures.Set(test.clips, np.roll(test.classes, 10), test.logits)
    assert figures.accuracy(told, others) == 0
    # Classes count alike, however many clips they have.
    some = figures.subset(test, np.r_[0:10, 10, 20])
    wrong = figures.Set(some.clips, np.array(["A"] * 10 + ["C", "C"]), some.logits)
    assert figures.accuracy(told, wrong) == pytest.approx((1 + 1 / 2) / 2)


def test_table_and_pictures(tmp_path):
    rng = np.random.default_rng(0)
    train, test, bad = made_set(40, rng), made_set(10, rng), made_set(10, rng, apart=0)
    told = figures.classifier(train)
    text = figures.table(told, train, test, {"generated": bad})
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert "| 30 | - | 100% |" in rows["| held-out clips"]
    fvd = [
        float(rows[name].split(" | ")[2]) for name in ("| generated", "| training clips, as many")
    ]
    assert fvd[0] > fvd[1] + 10
    assert "| A | 10 | 0 | 0 |" in figures.confusion(told, test)
    figures.show_samples(tmp_path / "samples.png", test, frames=2)
    figures.show_nearest(tmp_path / "nearest.png", bad, train, frames=2)
    for name in ("samples", "nearest"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
