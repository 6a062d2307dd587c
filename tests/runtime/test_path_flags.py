"""`~` is the home of the user in every flag and every field of a config that holds a path."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import lumiere_jax
from lumiere_jax.checkpoints import checkpoint, hub
from lumiere_jax.data import video_io
from lumiere_jax.data.image_folder import ImageFolder, read_image
from lumiere_jax.data.prepared import Prepared
from lumiere_jax.data.ucf101 import Ucf101
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.runtime import config_file, files
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import PathListParser, PathParser
from lumiere_jax.training.train import make_workdir

PACKAGE = Path(lumiere_jax.__file__).parent
TEXTS = {
    "demo.py": {"prompt"},
    "eval.py": {"preset", "fps", "clip", "aspect", "size", "profile", "resize", "crop"},
    "export.py": {"dtype", "license", "stage"},  # of NAME=WORKDIR, `export` expands the path
    "export_programs.py": {"base", "platforms"},
    "inference/command.py": {"prompt", "formats", "expect_checkpoints"},
    "main.py": {"profile_steps"},
    "plan.py": {"topology", "batches", "distilled_steps"},
    "prepare_data.py": {"beam_args"},
    # Of a URL, `Database` expands the path.
    "serve.py": {"database", "host", "allowed_hosts", "trusted_proxies"},
    "study.py": {"baseline_names", "title", "host", "post_url"},
    "stylize.py": {"alphas"},
}
"""Flags with texts that are no paths, by the file that defines them."""


def defined(kinds):
    """The names of the flags that calls of these functions define, by file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in kinds:
                name = node.args[0].value if isinstance(node.args[0], ast.Constant) else "NAME"
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(name)
    return found


def test_every_flag_with_a_text_that_may_be_a_path_is_one():
    texts = ("flags.DEFINE_string", "flags.DEFINE_list", "flags.DEFINE_multi_string")
    assert defined(texts) == TEXTS
    paths = defined(("define_path", "define_paths"))
    assert paths.keys() >= {
        "demo.py", "eval.py", "export.py", "export_programs.py", "export_weights.py",
        "import_weights.py", "inference/command.py", "main.py", "plan.py", "prepare_data.py",
        "sample.py", "serve.py", "show_data.py", "study.py",
    }  # fmt: skip
    assert "NAME" in paths["inference/command.py"]  # the files of each task


def test_paths_in_flags_lose_their_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert PathParser().parse("~/v.mp4") == "/home/me/v.mp4"
    assert PathListParser().parse("~/a,b,~/c") == ["/home/me/a", "b", "/home/me/c"]
    for same in ("a/~/b", "gs://bucket/~", "a~", "~nobody-has-this-name/x", "X,Y,1,2"):
        assert PathParser().parse(same) == same


def test_paths_of_configs_and_of_python_lose_their_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.py").write_text(
        "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'a': 1})\n"
    )
    assert config_file.load("~/c.py") == ConfigDict({"a": 1})
    (tmp_path / "empty").mkdir()
    settings = {"resolution": 16, "num_frames": 1}
    for message, read in (
        ("no usable image", lambda: ImageFolder("~/empty", **settings)),
        ("no usable video", lambda: VideoFolder("~/empty", fps=8, **settings)),
        ("holds no .avi", lambda: Ucf101("~/empty", fps=8, **settings)),
        (str(tmp_path / "empty"), lambda: Prepared("~/empty", fps=8, **settings)),
        ("is not a bundle", lambda: hub.find("~/empty")),
        (
            f"{tmp_path}/none.csv",
            lambda: VideoFolder("~/empty", captions="~/none.csv", fps=8, **settings),
        ),
    ):
        with pytest.raises(UserError, match=message):
            read()
    (tmp_path / "run" / checkpoint.FOLDER).mkdir(parents=True)
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        checkpoint.load("~/run")
    files.write_text("~/written.txt", "text")
    with files.written_folder("~/folder") as folder:
        (folder / "file").touch()
    assert Path(make_workdir("~/made")) == tmp_path / "made"
    video_io.write_video("~/v.mp4", np.zeros((2, 16, 16, 3), np.float32), 8)
    assert video_io.read_video("~/v.mp4", fps=8).shape == (2, 16, 16, 3)
    video_io.write_image("~/i.png", np.zeros((16, 16, 3), np.float32))
    assert read_image("~/i.png").shape == (16, 16, 3)
    assert {path.name for path in tmp_path.iterdir()} == {
        "c.py", "i.png", "v.mp4", "empty", "folder", "made", "run", "written.txt"
    }  # fmt: skip


def test_a_command_writes_to_the_home_and_says_where(tmp_path):
    command = [sys.executable, "-m", "lumiere_jax.show_data", "--output=~/x", "--count=1"]
    subprocess.run(
        [*command, f"--config={Path.cwd() / 'configs' / 't2i.py'}:tiny"],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, check=True,
    )  # fmt: skip
    assert (tmp_path / "x" / "0000.mp4").is_file() and not (tmp_path / "~").exists()
