import sys
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.moving_shapes import MovingShapes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "claims"))
import report  # noqa: E402
import style_interpolation as claim  # noqa: E402
import style_pictures as pictures  # noqa: E402

STAMP = {"machine": "2 CPU cores (made up), jax 0", "date": "2000-01-01"}


def clips(count=12, resolution=32, frames=8):
    source = MovingShapes(frames, resolution, split="test", textured_probability=0)
    videos, captions = zip(*(source.example(index) for index in range(count)), strict=True)
    return np.stack(videos), list(captions), [source.scene(index) for index in range(count)]


@pytest.mark.parametrize("style", [None, *pictures.STYLES])
def test_the_path_is_seen_in_any_style(style):
    videos, _, scenes = clips(resolution=64)
    for video, scene in zip(videos, scenes, strict=True):
        frames = video if style is None else pictures.in_style(video, style, 32)
        item = scene.objects[0]
        expected = np.subtract(item.end, item.start)
        np.testing.assert_allclose(claim.movement(frames), expected, atol=0.08)
        assert claim.nearest_direction(claim.movement(frames)) == item.direction


def test_directions():
    assert claim.nearest_direction(np.array([0.0, -0.5])) == "up"
    assert claim.nearest_direction(np.array([0.3, 0.35])) == "lower right"
    assert claim.nearest_direction(np.array([0.1, 0.1])) == "still"


def test_statistics_of_stripes():
    frame = np.zeros((1, 5, 5, 3))
    frame[:, :, 1::2, 0] = 1.0  # red in every second column
    gram = pictures.statistics(frame)[0]
    np.testing.assert_allclose(gram, gram.T)
    assert gram[0, 0] == 1 and gram[0, 1] == 0.5 and gram[0, 2] == 0  # means
    assert gram[4, 4] == 1 and gram[7, 7] == 0  # differences to the right, and below
    assert gram[1, 4] == -0.5  # where it is red, its neighbour is not


def test_distance_falls_with_the_share_of_style():
    videos = pictures.flat(clips(resolution=64)[0])
    styled = pictures.in_style(videos, "duotone", 16)
    plain = videos.reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    blends = [share * styled + (1 - share) * plain for share in (0, 0.5, 1)]
    distances = [pictures.style_distance(blend, styled) for blend in blends]
    assert distances[0] > distances[1] > distances[2] == 0


def test_styles():
    ramp = np.linspace(-1, 1, 16)[None, None, :, None] * np.ones((1, 16, 1, 3))
    duotone = pictures.in_style(ramp, "duotone", 16)
    navy, gold = (np.array(c) / 127.5 - 1 for c in ((0, 0, 128), (255, 215, 0)))
    np.testing.assert_allclose(duotone[0, 0, 0], navy, atol=0.01)
    np.testing.assert_allclose(duotone[0, 0, -1], gold, atol=0.01)
    assert (pictures.in_style(np.zeros((1, 16, 16, 3)), "outline", 16) == 1).all()  # white paper


def test_pictures_are_what_training_reads(tmp_path):
    folder = pictures.write_pictures(tmp_path / "style", "outline", 3)
    before = (folder / "0001.png").stat().st_mtime_ns
    assert pictures.write_pictures(folder, "outline", 3) == folder
    assert (folder / "0001.png").stat().st_mtime_ns == before
    read = pictures.read_pictures(folder, 16)
    assert read.shape == (3, 16, 16, 3) and len(ImageFolder(folder, resolution=16)) == 3
    source = MovingShapes(1, pictures.DRAWN_PIXELS, split="train", textured_probability=0, seed=7)
    drawn = np.stack([source.example(index)[0][0] for index in range(3)])
    np.testing.assert_allclose(read, pictures.in_style(drawn, "outline", 16), atol=0.02)


def test_measure_true_clips():
    videos, captions, _ = clips()
    figures = claim.measure(videos, captions, videos[:, 0])
    assert figures["direction"] == 1 and figures["oracle_direction"] > 0.9
    assert 0.43 < figures["path"] < 0.57
    still = np.repeat(videos[:, :1], 8, axis=1)
    figures = claim.measure(still, captions, still[:, 0])
    assert max(figures["path"], figures["style_distance"]) < 1e-6 and figures["direction"] < 0.5


def cells(fall):
    found = []
    for style in pictures.STYLES:
        for seed in range(3):
            for alpha in claim.ALPHAS:
                figures = {"style_distance": 2 - alpha, "direction": 0.8 - fall[style] * alpha}
                figures |= {"oracle_direction": 0.5, "path": 0.4}
                settings = {"style": style, "alpha": alpha, "seed": seed, "captions": 4}
                settings |= {"steps": [7, 8, 9]}
                found.append(STAMP | {"settings": settings, "figures": figures})
        settings = settings | {"alpha": claim.STYLED_TRUTH, "seed": 0}
        figures = {"style_distance": 0.1, "direction": 1, "oracle_direction": 0.2, "path": 0.5}
        found.append(STAMP | {"settings": settings, "figures": figures})
    return found


def test_verdict():
    assert claim.verdict(cells({"duotone": 0.3, "outline": 0.2})).startswith("Holds here")
    partly = claim.verdict(cells({"duotone": 0.3, "outline": 0.0}))
    assert partly.startswith("Holds partly here") and "duotone: nearer, -30 points" in partly
    assert claim.verdict(cells({"duotone": 0.0, "outline": 0.0})).startswith("Does not hold here")


def test_section_and_picture(tmp_path):
    found = cells({"duotone": 0.3, "outline": 0.2})
    for number, cell in enumerate(found):
        path = tmp_path / "results" / claim.FOLDER / f"{number:02d}.json"
        report.kept(path, cell["settings"], lambda c=cell: c)
    text = claim.section(tmp_path / "results")
    assert "| duotone | 0.5 | 1.500 (1.500 to 1.500) | 65% (65% to 65%) |" in text
    assert "| outline | true clips in the style | 0.100 | 100% | 20% | 0.500 |" in text
    assert "(results/style_interpolation_clips.png)" in text
    claim.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
