"""The command line of sampling."""

import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from lumiere_jax import sample
from lumiere_jax.inference import command
from lumiere_jax.runtime.errors import UserError
from tests.inference import running
from tests.inference.running import PROMPT, run, size_and_frames


def test_one_prompt_through_the_whole_cascade(cascade, tmp_path, monkeypatch, without_tensorflow):
    monkeypatch.setattr(running, "python", lambda: sys.executable)  # what imports say is seen
    output = tmp_path / "x.mp4"
    code, stdout, stderr = run(
        "sample", base=cascade["stunet"], ssr=cascade["ssr"], prompt=PROMPT, output=output,
        num_frames=4, sampler="dpmpp_2m", steps=2, guidance_scale=2, seed=7,
    )  # fmt: skip
    assert code == 0, stderr
    assert stdout == f"{output}\n"
    assert "base: 2/2 steps" in stderr and "super-resolution 1: 2/2 steps" in stderr
    assert "INFO" not in stderr and "WARNING" not in stderr and "oneDNN" not in stderr
    assert size_and_frames(output) == (128, 128, 4)  # 64 pixels, enlarged to be seen


def test_file_of_prompts(cascade, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n\n  a small blue square  \n")
    output = tmp_path / "new" / "folder"
    with flagged(
        base=str(cascade["stunet"]),
        ssr=str(cascade["ssr"]),
        prompts_file=str(tmp_path / "prompts.txt"),
        output=str(output),
        formats="mp4,gif,png",
        base_only="true",
    ):
        sample.main(["sample"])
    names = [f"{i:04d}.{suffix}" for i in (0, 1) for suffix in ("mp4", "gif", "png")]
    assert capsys.readouterr().out.split() == [str(output / n) for n in names] + [
        str(output / "contact_sheet.png")
    ]
    for name in names:
        width, _, frames = size_and_frames(output / name)
        assert width >= 128 and frames == (1 if name.endswith("png") else 8)
    assert size_and_frames(output / "contact_sheet.png")[2] == 1


def test_several_samples_of_a_prompt(cascade, tmp_path, capsys):
    with flagged(
        base=str(cascade["stunet"]), prompt=PROMPT, samples="3", formats="gif", seed="4",
        output=str(tmp_path / "folder"), batch_size="2", guide=str(cascade["stunet"]),
    ):  # fmt: skip
        sample.main(["sample"])
    names = ["0000.gif", "0001.gif", "0002.gif", "contact_sheet.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "folder" / name) for name in names]
    assert len({(tmp_path / "folder" / name).read_bytes() for name in names}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--promt=x"], "Unknown command line flag 'promt'. Did you mean: prompt"),
        (["--steps=many"], "--steps=many"),
        ([], "--output is missing"),
        (["--base=x", "--output=x.mp4", "--prompt", PROMPT, "moving"], "unexpected argument"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, message):
    code, stdout, stderr = run("sample", *arguments)
    assert code == 2
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    assert message in stderr
    assert stdout == ""


def test_checkpoint_of_another_stage_is_told_in_one_line(cascade, tmp_path):
    code, _, stderr = run("sample", base=cascade["ssr"], prompt=PROMPT, output=tmp_path / "x.gif")
    assert code == 2
    assert stderr.count("\n") == 1
    assert stderr.startswith("error: the base checkpoint is of stage 'ssr'")


def flagged(**values: str):
    """Flags as if given on the command line."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["sample", "--base=unset", "--output=unset"])
    return flagsaver.as_parsed(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompts_file": "nowhere.txt"}, "--prompts_file=nowhere.txt cannot be read.*UTF-8"),
        ({}, "either --prompt=TEXT or --prompts_file=FILE"),
        ({"prompt": PROMPT, "prompts_file": "x.txt"}, "either --prompt=TEXT or"),
        ({"prompt": PROMPT, "output": "x.avi"}, "x.avi must end with one of .mp4, .gif, .png"),
        ({"prompt": PROMPT, "output": "nowhere/x.mp4"}, "there is no folder nowhere"),
        ({"prompt": PROMPT, "base": "nowhere"}, "no checkpoint in nowhere"),
        ({"prompt": PROMPT, "ssr": "nowhere"}, "no checkpoint in nowhere"),
        (
            {"prompt": PROMPT, "text_folder": "t5"},
            "--text_folder=t5: .*stunet was trained with .*'h",
        ),
        ({"prompt": PROMPT, "num_frames": "7"}, "num_frames=7 must be a multiple of 2"),
        ({"prompt": PROMPT, "sampler": "euler"}, "flag --sampler=euler: must be one of ddim"),
        ({"prompt": PROMPT, "steps": "0"}, "flag --steps=0: must be at least 1"),
        ({"prompt": PROMPT, "seed": "-1"}, "flag --seed=-1: must be at least 0"),
    ],
)
def test_mistakes(cascade, tmp_path, monkeypatch, values, message):
    monkeypatch.chdir(tmp_path)
    defaults = {"base": str(cascade["stunet"]), "output": "x.mp4"}
    with pytest.raises((UserError, flags.Error), match=message), flagged(**defaults | values):
        sample.main(["sample"])
    assert list(tmp_path.iterdir()) == []


def test_prompts_are_lines_that_are_not_empty(tmp_path):
    file = tmp_path / "prompts.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        file.write_text("one\n\n  two words \r\nünï\n", encoding=encoding)
        assert command.read_prompts(None, str(file)) == ["one", "two words", "ünï"]
    assert command.read_prompts("a prompt", None) == ["a prompt"]
    file.write_text("\n  \n")
    with pytest.raises(UserError, match="has no prompt"):
        command.read_prompts(None, str(file))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read.*UTF-8"):
        command.read_prompts(None, str(file))
    with pytest.raises(UserError, match="cannot be read"):
        command.read_prompts(None, str(tmp_path))


@pytest.mark.parametrize(
    ("output", "formats", "message"),
    [
        ("x.mp4", ["mp4"], "the output is a folder"),
        ("videos", ["mp4", "avi"], "formats are some of mp4, gif and png"),
        ("file/videos", ["mp4"], "cannot be used as a folder"),
    ],
)
def test_folder_that_cannot_be_written(tmp_path, output, formats, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        command.output_paths(str(tmp_path / output), formats, 2, is_folder=True)
