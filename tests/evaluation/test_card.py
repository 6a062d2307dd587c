import json

import pytest

from lumiere_jax.evaluation import card, published
from lumiere_jax.evaluation.profiles import PROFILES, profile
from lumiere_jax.evaluation.scoring import Score
from lumiere_jax.runtime.errors import UserError

PROTOCOL = {
    "task": "ucf101_zero_shot",
    "prompts": "class_names",
    "generated": [{"folder": "videos/0", "videos": 13_320, "left_out": {}}],
    "real": None,
}


def example() -> dict:
    scores = [
        Score(name="FVD", values=(300.0, 310.0), errors=(2.0, 3.0)),
        Score(name="KVD", values=(-5.0, 2.0), errors=(10.0, 1.0), errors_by="jackknife"),
        Score(name="IS-I3D-K400", values=(7.5,), note="not to be compared"),
    ]
    return {
        "scores": card.scores_section(scores),
        "protocol": PROTOCOL,
        "warnings": ["few videos"],
        "published": card.published_section(PROTOCOL),
        "run": card.run_section(75, "2026-11-22 10:00:00+00:00"),
    }


def test_card_is_written_as_json_and_as_a_table(tmp_path):
    table = card.write(tmp_path, example())
    assert (tmp_path / "card.txt").read_text() == table
    assert json.loads((tmp_path / "card.json").read_text()) == example()
    words = " ".join(table.split())
    for text in (
        "FVD 305.0000 ± 7.0711 (deviation of the sets: 300.0000, 310.0000)",
        "standard error by bootstrap 2.00, 3.00",
        "standard error by jackknife 10.00, 1.00); 95% from -24.60 to 14.60, 0.04 to 3.96",
        "IS-I3D-K400 7.5000; not to be compared",
        "WARNING few videos",
        "Lumiere FVD 332.49, IS 37.54",
        "SVD FVD 242.02, IS not given",
        "took 1 min 15 s",
    ):
        assert text in words
    assert max(len(line) for line in table.splitlines()) <= 96


def test_published_rows_say_what_differs():
    rows = {row.name: published.differences(row, PROTOCOL) for row in published.ROWS}
    assert rows["SVD"] == [
        "every class as often as in UCF101; 16 frames at 25 fps; StyleGAN-V's I3D"
    ]
    assert "10,000 videos, here 13,320" in rows["PYoCo"]
    assert "prompts 'pyoco', here 'class_names'" in rows["PYoCo"]
    assert rows["MagicVideo"] == ["its number of videos is not known", "its prompts are not known"]


def test_profiles():
    assert profile("unterthiner") == PROFILES["unterthiner"]
    changed = profile("stylegan-v", ddof=1, resize=None)
    assert (changed.ddof, changed.resize, changed.aspect) == (1, "torch", "1:1")
    for name, changes, message in (
        ("videogpt", {}, "--profile=videogpt is unknown"),
        ("tats", {"resize": "cubic"}, "--resize=cubic"),
        ("tats", {"crop": "left"}, "--crop=left"),
        ("tats", {"ddof": 2}, "--ddof=2"),
        ("tats", {"bn_epsilon": 0.0}, "--bn_epsilon=0.0"),
    ):
        with pytest.raises(UserError, match=message):
            profile(name, **changes)
