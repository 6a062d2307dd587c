import sys
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.data.moving_shapes import MovingShapes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import frozen_images as claim  # noqa: E402
import report  # noqa: E402

STAMP = {"machine": "2 CPU cores (made up), jax 0", "date": "2000-01-01"}


def test_true_frames_are_right_and_exchanged_captions_wrong():
    source = MovingShapes(num_frames=3, resolution=32, split="test", textured_probability=0)
    videos, captions = zip(*(source.example(index) for index in range(6)), strict=True)
    scores = claim.frame_scores(np.stack(videos), captions)
    assert scores["colour"] == scores["background"] == 1 and scores["shape"] > 0.8
    grey = claim.frame_scores(np.zeros((6, 1, 16, 16, 3)), captions)
    assert grey["colour"] == grey["all"] == 0
    one_bad = np.stack(videos).copy()
    one_bad[:, 0] = 0.0  # the first of three frames shows nothing
    assert claim.frame_scores(one_bad, captions)["colour"] == pytest.approx(2 / 3)


def test_one_differing_bit_is_found():
    image = {"conv_in": {"kernel": np.ones((3, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    temporal = {"temporal_down_0_resample": {"kernel": np.full(3, 5.0, np.float32)}}
    inflated = {"conv_in": {k: v.copy() for k, v in image["conv_in"].items()}, **temporal}
    assert claim.image_part(inflated).keys() == {"conv_in"}
    assert claim.differing_bits(image, inflated) == ([], 2)
    inflated["conv_in"]["bias"][1] = -0.0  # equal as a number
    assert claim.differing_bits(image, inflated) == (["conv_in/bias"], 2)
    inflated["conv_in"]["kernel"] = inflated["conv_in"]["kernel"].astype(np.float64)
    assert len(claim.differing_bits(image, inflated)[0]) == 2
    assert claim.differing_bits(image, {"other": image["conv_in"], **temporal}) == (
        ["conv_in/bias", "conv_in/kernel", "other/bias", "other/kernel"],
        4,
    )


def cells(frozen, differing=()):
    shares = {"images": 0.9, "frozen": frozen, "all": 0.7, "images_after_all": 0.4}
    found = []
    for seed in range(3):
        for model, share in shares.items():
            scores = dict.fromkeys((*claim.ATTRIBUTES, "all"), share + 0.01 * seed)
            settings = {"model": model, "seed": seed, "captions": 4, "steps": [7, 9]}
            cell = {"settings": settings, "scores": scores}
            if model == "frozen":
                cell |= {"differing": list(differing), "image_parameters": 50}
            found.append(STAMP | cell)
    return found


def test_verdict():
    text = claim.verdict(cells(0.87))
    assert text.startswith("Holds here") and "-3.0 points" in text and "in 3 of 3 runs" in text
    assert "it is -20.0 points, and -50.0 for" in text
    assert claim.verdict(cells(0.8)).startswith("Does not hold here")
    assert claim.verdict(cells(0.9, ["conv_in/bias"])).startswith("Does not hold here")


def test_section_and_picture(tmp_path):
    for number, cell in enumerate(cells(0.87)):
        path = tmp_path / "results" / claim.FOLDER / f"{number:02d}.json"
        report.kept(path, cell["settings"], lambda c=cell: c)
    text = claim.section(tmp_path / "results")
    assert "| frames, image weights frozen | 88% (87% to 89%) |" in text and "| 0 of 50 |" in text
    assert "Runs of 7 steps of images and 9 steps of videos from 3 random starts" in text
    claim.draw(report.read_kept(tmp_path / "results" / claim.FOLDER), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
