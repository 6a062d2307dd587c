import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.runtime.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import initialization  # noqa: E402
import key_frame_models as models  # noqa: E402
import key_frames  # noqa: E402
import training_runs as runs  # noqa: E402

STAMP = {"machine": "2 CPU cores (made up), jax 0", "date": "2000-01-01"}


def write_all(folder, results):
    """Results as the scripts keep them."""
    folder.mkdir(parents=True)
    for number, result in enumerate(results):
        (folder / f"{number}.json").write_text(json.dumps(result))


def initialization_results():
    """Three seeds; He starts high, and ends lower for one of them."""
    scores = dict.fromkeys(("colour", "shape", "direction", "background", "all"), 0.5)
    results = []
    for seed in range(3):
        for kind, start in (("nearest", 1.0), ("he", 4.0)):
            end = 0.1 + 0.01 * seed if kind == "nearest" else 0.11
            held_out = [[0, start + seed], [5, 0.5 * start], [10, end]]
            settings = {"initialization": kind, "seed": seed, "steps": 10, "captions": 4}
            result = {
                "settings": settings,
                "losses": [[step, start / step] for step in range(1, 11)],
                "held_out": held_out,
                "scores": {
                    name: scores | {"colour": 0.1 * seed}
                    for name in ("before training", "after it", "true clips", "chance")
                },
            }
            results.append(STAMP | result)
    return results


def test_section_about_initialization(tmp_path):
    results = initialization_results()
    write_all(tmp_path / "results" / initialization.FOLDER, results)
    text = initialization.section(tmp_path / "results")
    assert "](results/initialization_loss.png)" in text
    assert "| nearest neighbour | 2.0000 (1.0000 to 3.0000) |" in text
    assert "0.1100 (0.1000 to 0.1200) |\n" in text and "| He | 5.0000 (4.0000 to 6.0000) |" in text
    assert "| He, after it | 10% (0% to 20%) | 50% (50% to 50%) |" in text
    assert "in 3 of 3 pairs of runs before training, in 3 of 3 in the middle, and in 1 of 3" in text
    assert "3 random starts" in text and initialization.COMMAND in text
    initialization.draw_losses(results, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 5000


def test_running_median():
    losses = np.array([[1.0, 9.0, 2.0, 3.0, 100.0]])
    np.testing.assert_array_equal(initialization.smoothed(losses, 3), [[1, 2, 3, 3, 100]])


def key_frame_results():
    results = []
    for seed in range(3):
        for method in key_frames.METHODS:
            if seed and method not in key_frames.COMPARED:
                continue
            value = {"truth": 0.01, "all_frames": 0.1, "cascade": 0.12 - 0.015 * seed}
            value = value.get(method, 0.3)
            settings = {"method": method, "seed": seed, "captions": 4, "steps": [3, 4, 5]}
            result = {
                "settings": settings,
                "figures": dict.fromkeys(key_frames.FIGURES, value),
                "neighbours": [value] * 15,
                "turns": [value / 10] * 14,
                "budget": "as much each.",
            }
            results.append(STAMP | result)
    return results


def test_section_about_key_frames(tmp_path):
    results = key_frame_results()
    write_all(tmp_path / "results" / key_frames.FOLDER, results)
    text = key_frames.section(tmp_path / "results")
    assert "](results/key_frames_slices.png)" in text
    head = "|  | true clips | all frames at once | key frames + temporal super-resolution | "
    assert head in text
    label = key_frames.FIGURES["path_error"][0]
    cells = "| 0.010 | 0.100 (0.100 to 0.100) | 0.105 (0.090 to 0.120) | 0.300 | 2 of 3 |"
    assert f"| {label} {cells}" in text
    # Less is better for errors, more for shares, and near to 1 for the ratio.
    counts = {key: key_frames.wins(results, key) for key in ("bend", "shape_kept", "seams")}
    assert counts == {"bend": "2 of 3", "shape_kept": "1 of 3", "seams": "1 of 3"}
    assert "as much each." in text
    key_frames.draw_figures(results, tmp_path / "figures.png")
    assert (tmp_path / "figures.png").stat().st_size > 5000


def test_figures_and_slices_of_true_clips(tmp_path):
    videos, captions = runs.held_out(models.all_frames_config(0, 1), 12)
    found = key_frames.measure_clips(videos, captions)
    figures = found["figures"]
    assert set(figures) == set(key_frames.FIGURES)
    assert len(found["neighbours"]) == 15 and len(found["turns"]) == 14
    assert figures["direction"] == figures["colour"] == figures["seen"] == 1
    assert figures["path_error"] < 0.01 and figures["bend"] < 0.01
    assert figures["shape_kept"] > 0.85 and figures["colour_kept"] > 0.95
    assert 0.9 < figures["seams"] < 1.1
    backwards = key_frames.measure_clips(videos[:, ::-1], captions)["figures"]
    assert backwards["path_error"] > 0.15 > figures["bend"]
    key_frames.draw_slices({"truth": videos}, captions, tmp_path / "slices.png")
    assert (tmp_path / "slices.png").stat().st_size > 5000


def test_key_frames_and_segments_are_parts_of_a_clip():
    whole, captions = runs.held_out(models.all_frames_config(0, 1), 3)
    keys, same_captions = runs.held_out(models.key_frames_config(0, 1), 3)
    assert captions == same_captions
    np.testing.assert_allclose(keys, whole[:, list(models.KEY_FRAMES)], atol=1e-5)
    known, mask = models.known_ends(keys)
    assert known.shape == (9, 6, 16, 16, 3) and mask.shape == (9, 6, 16, 16, 1)
    segments = np.stack([whole[:, first : first + 6] for first in (0, 5, 10)], axis=1)
    np.testing.assert_allclose(known, segments.reshape(known.shape) * mask, atol=1e-5)
    drawn = runs.Stage.from_config(models.between_config(0, 1)).draw_mask((6, 16, 16), 5)
    np.testing.assert_array_equal(drawn, mask[0])
    rest = np.where(mask, 7.0, segments.reshape(known.shape))  # what is known is not taken
    np.testing.assert_allclose(models.joined(keys, rest), whole, atol=1e-5)


def test_the_cascade_samples_key_frames_first_and_then_each_segment():
    calls = []

    def keys(captions, seeds, batch_size):
        return np.arange(len(captions) * 4.0).reshape(-1, 4, 1, 1, 1) * np.ones((2, 2, 3))

    def between(captions, seeds, known, batch_size):
        calls.append((captions, seeds, known))
        return np.full((len(captions), 6, 2, 2, 3), -1.0)

    video = models.sample_cascade(keys, between, ["a", "b"], [3, 4])
    assert calls[0][:2] == (["a"] * 3 + ["b"] * 3, [9, 10, 11, 12, 13, 14])
    np.testing.assert_array_equal(video[1, :, 0, 0, 0][[0, 5, 10, 15]], [4, 5, 6, 7])
    assert (np.delete(video[1], [0, 5, 10, 15], axis=0) == -1).all()


def test_both_ways_have_equal_cost():
    found = models.budget(900, 0.5)
    found.check()
    assert abs(found.parameter_ratio - 1) < 0.05 and abs(found.compute_ratio - 1) < 0.05
    totals = [steps * flops for steps, flops in zip(found.steps, found.flops, strict=True)]
    assert totals[1] == pytest.approx(totals[2], rel=0.01)
    assert "994,547 frozen" in str(found)
    unequal = models.Budget((9, 3, 3), found.parameters, found.frozen, found.flops)
    with pytest.raises(UserError, match="compute ratio"):
        unequal.check()
