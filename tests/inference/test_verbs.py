"""The commands of editing, each from files to a file, and their mistakes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.video_io import read_comment, read_video, write_lossless
from lumiere_jax.inference import provenance
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.runtime.errors import UserError
from tests.inference.running import PROMPT, run, size_and_frames


@pytest.fixture(name="files", scope="module")
def fixture_files(tmp_path_factory):
    """A picture, a video of 10 frames at 8 fps and masks for them, 32 pixels high, 48 wide."""
    folder = tmp_path_factory.mktemp("files")
    y, x = np.mgrid[:32, :48]
    frames = np.stack([np.stack([x + n, 2 * y, x + y], -1) * 3 % 256 for n in range(10)])
    Image.fromarray(frames[0].astype(np.uint8)).save(folder / "picture.png")
    write_lossless(folder / "clip.mkv", frames / 127.5 - 1, 8)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 16:32] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    write_lossless(folder / "long_mask.mkv", np.repeat(mask[None, ..., None], 11, 0) / 127.5 - 1 +
                   np.zeros(3), 8)  # fmt: skip
    write_lossless(folder / "one_frame.mkv", frames[:1] / 127.5 - 1, 8)
    Image.fromarray(mask[:20]).save(folder / "low_mask.png")
    (folder / "text.png").write_text("no picture")
    return folder


VERBS = {
    "animate": ({"image": "picture.png", "fit": "pad"}, [], 8),
    "cinemagraph": ({"image": "picture.png", "mask": "mask.png"}, [], 8),
    "inpaint": ({"video": "clip.mkv", "mask": "0:4,4,8,8;7:12,4,8,8"}, ["--nopaste"], 10),
    "outpaint": ({"video": "clip.mkv", "zoom": 0.8}, [], 10),
    "extend": ({"video": "clip.mkv", "num_frames": 9, "context": 3}, [], 19),
    "video_to_video": ({"video": "clip.mkv", "strength": 0.5}, [], 10),
}


@pytest.mark.parametrize("verb", VERBS)
def test_from_files_to_a_file(cascade, files, tmp_path, verb):
    named, arguments, frames = VERBS[verb]
    named = {k: files / v if k in ("image", "video") else v for k, v in named.items()}
    if named.get("mask") == "mask.png":
        named["mask"] = files / "mask.png"
    output = tmp_path / "made.mp4"
    common = {"base": cascade["stunet_conditional"], "prompt": PROMPT, "output": output}
    code, stdout, stderr = run(verb, *arguments, **common, **named, steps=2, seed=3)
    assert code == 0, stderr
    assert stdout == f"{output}\n"
    has_region = verb in ("cinemagraph", "inpaint", "outpaint")
    assert len(re.findall(r"^region: \d+\.\d% of the frame$", stderr, re.M)) == has_region
    assert size_and_frames(output) == (128, 128, frames)
    note = json.loads(read_comment(output))
    assert note["command"] == verb and note["flags"]["seed"] == 3
    assert {name: note["flags"][name] for name in named} == {
        name: str(value) if isinstance(value, Path) else value for name, value in named.items()
    }


def test_a_video_tells_how_it_was_made_and_is_made_again(cascade, files, tmp_path):
    output, again = tmp_path / "made.mp4", tmp_path / "again.mp4"
    arguments = {
        "base": cascade["stunet_conditional"], "ssr": cascade["ssr"], "steps": 2, "seed": 11,
        "prompt": 'a "large" rød circle, moving', "negative_prompt": "a square",
        "image": files / "picture.png", "mask": files / "mask.png",
        "style_checkpoint": cascade["style"], "alpha": 0.4,
    }  # fmt: skip
    code, _, stderr = run("cinemagraph", **arguments, output=output)
    assert code == 0, stderr
    code, stdout, stderr = run("sample", describe=output)
    assert code == 0, stderr
    told = json.loads(stdout)
    assert told["command"] == "cinemagraph" and len(told["checkpoints"]) == 2
    assert told["program"].startswith("lumiere_jax ")
    flags = {**arguments, "ssr": [str(cascade["ssr"])]}
    assert told["flags"] == {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()}
    code, stdout, stderr = run("sample", reproduce=output, output=again)
    assert code == 0, stderr
    assert stdout == f"{again}\n"
    np.testing.assert_array_equal(read_video(again, fps=8), read_video(output, fps=8))


def test_notes_of_strangers_are_not_obeyed(tmp_path):
    given = {"prompt": PROMPT, "output": "/elsewhere.mp4", "--x": 1, "seed": 3}
    found = {"command": "sample", "flags": given, "checkpoints": ["a"]}
    command = provenance.reproducing_command(found, "here.mp4")
    assert command[3:] == [f"--prompt={PROMPT}", "--seed=3", "--expect_checkpoints=a",
                           "--output=here.mp4"]  # fmt: skip
    with pytest.raises(UserError, match="'export' made it"):
        provenance.reproducing_command(found | {"command": "export"}, "here.mp4")
    video = np.zeros((2, 16, 16, 3), np.float32)
    for number, note in enumerate(['["command", "flags", "checkpoints"]', "{", "3"]):
        write_viewable(tmp_path / f"{number}.mp4", video, 8, PROMPT, note)
        with pytest.raises(UserError, match="has no note of how it was made"):
            provenance.read(tmp_path / f"{number}.mp4")


def test_a_sweep_of_styles_and_a_storyboard(cascade, tmp_path):
    common = {"base": cascade["stunet"], "prompt": PROMPT, "steps": 3}
    code, stdout, stderr = run(
        "stylize", **common, style_checkpoint=cascade["style"], alphas="0,1", output=tmp_path / "s"
    )
    assert code == 0, stderr
    names = ["alpha_0.00.mp4", "alpha_1.00.mp4", "contact_sheet.png"]
    assert [Path(line).name for line in stdout.split()] == names
    assert json.loads(read_comment(tmp_path / "s" / names[1]))["flags"]["alpha"] == 1.0
    plain, board = tmp_path / "plain.mp4", tmp_path / "board.png"
    code, stdout, stderr = run("sample", **common, output=plain, storyboard=board)
    assert code == 0, stderr
    assert stdout == f"{plain}\n{board}\n"
    np.testing.assert_array_equal(
        read_video(plain, fps=8), read_video(tmp_path / "s" / names[0], fps=8)
    )
    width, height, _ = size_and_frames(board)
    assert height > 3 * 64 and width > 4 * 64  # a row for each step


MISTAKES = [
    ("inpaint", {"video": "clip.mkv", "mask": "low_mask.png"}, "is 48×20 pixels and the picture"),
    ("inpaint", {"video": "clip.mkv", "mask": "long_mask.mkv"}, "11 frames at 8 fps and the vid"),
    ("inpaint", {"video": "clip.mkv", "mask": "0,0,48,32"}, "covers all of the frame"),
    ("inpaint", {"video": "one_frame.mkv", "mask": "mask.png"}, "the video has 1 frames"),
    ("animate", {"image": "text.png"}, "text.png cannot be read"),
    ("extend", {"video": "clip.mkv", "num_frames": 4, "context": 8}, "context=8"),
]


@pytest.mark.parametrize(("verb", "named", "message"), MISTAKES)
def test_mistake_is_told_in_one_line(cascade, files, tmp_path, verb, named, message):
    paths = {"image", "video", "mask"}
    named = {k: files / v if k in paths and "." in str(v) else v for k, v in named.items()}
    output = tmp_path / "made.mp4"
    prompt = f"{PROMPT} on a plain black background"  # one that the model knows
    common = {"base": cascade["stunet_conditional"], "prompt": prompt, "output": output}
    code, stdout, stderr = run(verb, **common, **named)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    assert message in stderr
    assert not output.exists()
