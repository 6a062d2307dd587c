"""The demo: videos and a page from a bundle, and what it says of prompts it cannot show."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.demos import page
from lumiere_jax.demos.shipped import PROMPTS, show
from lumiere_jax.runtime.errors import UserError
from tests.inference.running import run
from tests.manifests import write_manifest

SHAPE, OTHER = PROMPTS[0], PROMPTS[1]
SHIPPED = Path(__file__).parents[2] / "weights" / "small"


@pytest.fixture(name="weights", scope="module")
def fixture_weights(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "weights"
    export([str(cascade[stage]) for stage in ("stunet", "ssr")], folder)
    return folder


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a corgi on a beach", '"corgi".*They know small, large'),
        ("digit eleven", "digit eleven.*They know small, large"),
        (
            "a red circle moving left and a blue square moving up on a black background",
            "a single shape in a video",
        ),
    ],
)
def test_a_prompt_that_means_nothing_to_the_weights(tmp_path, prompt, message):
    with pytest.raises(UserError, match=message):
        show(tmp_path / "demo", SHIPPED, [SHAPE, prompt])
    assert not (tmp_path / "demo").exists()


def test_videos_and_page(weights, tmp_path, capsys):
    page = show(tmp_path, weights, [SHAPE, OTHER], seed=4)
    assert str(page.resolve()) in capsys.readouterr().out
    text = page.read_text()
    for i, prompt in enumerate((SHAPE, OTHER)):
        assert probe_video(tmp_path / "videos" / f"{i:02d}.mp4").num_frames(8) == 8
        assert Image.open(tmp_path / "videos" / f"{i:02d}.gif").n_frames == 8
        assert prompt in text and f'src="videos/{i:02d}.mp4"' in text
    assert json.loads((tmp_path / "prompts.json").read_text()) == [SHAPE, OTHER]
    assert Image.open(tmp_path / "contact_sheet.png").width > 0


def test_another_seed_is_another_video(weights, tmp_path):
    first, second, again = (
        (show(tmp_path / str(i), weights, [SHAPE], seed).parent / "videos/00.gif").read_bytes()
        for i, seed in enumerate((0, 1, 0))
    )
    assert first == again != second


def test_prompts_are_escaped(tmp_path):
    path = page.write_shown(tmp_path, ["<script>"], (8, 16, 16), 8.0, "<b>")
    assert "<script>" not in path.read_text() and "<b>" not in path.read_text()


def test_no_weights(weights, tmp_path):
    with pytest.raises(UserError, match="manifest.json cannot be read"):
        show(tmp_path / "demo", tmp_path / "nothing", [SHAPE])
    copy = shutil.copytree(weights, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["stages"]["ssr"]
    write_manifest(copy, manifest)
    with pytest.raises(UserError, match="has no stage 'ssr'"):
        show(tmp_path / "demo", copy, [SHAPE])


def test_binary(tmp_path):
    code, _, errors = run("demo", prompt="a corgi", output=tmp_path / "demo")
    assert code == 2 and "They know" in errors and "Traceback" not in errors
    code, _, errors = run("demo", "--train", prompt=SHAPE, output=tmp_path / "demo")
    assert code == 2 and "--prompt does not go with --train" in errors
