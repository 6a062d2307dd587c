"""The rehearsal's commands: their flags and config fields exist, and sizes alone are changed."""

import os
import subprocess

import pytest

from tests import warm_python
from tests.launch.scripts import REPOSITORY, dry_run

STAGES = ["t2i", "stunet", "t2i_ssr", "ssr", "stunet_conditional"]


@pytest.fixture(name="commands", scope="module")
def fixture_commands(tmp_path_factory) -> list[list[str]]:
    workdir = tmp_path_factory.mktemp("rehearsal")
    return dry_run("rehearsal.sh", f"--workdir={workdir}", LUMIERE_PYTHON="python")


def test_flags_and_fields_exist(commands):
    checked = []
    for command in commands:
        if command[0] == "launch/local_pod.sh":
            command = ["python", "-m", "lumiere_jax.main", *command[command.index("--") + 1 :]]
        if command[:2] != ["python", "-m"]:
            continue
        result = subprocess.run(
            [warm_python.python(), *command[1:]], cwd=REPOSITORY, capture_output=True, text=True,
            env=os.environ | {"ONLY_FLAGS": "1", warm_python.ARGUMENTS_BY: "tests.docs.shrinking"},
            timeout=600,
        )  # fmt: skip
        assert "flags are right" in result.stdout, (command, result.stdout, result.stderr)
        checked.append(command[2].removeprefix("lumiere_jax."))
    assert checked == [
        "prepare_data", "main", "prepare_data", "main", "prepare_data", "main", "prepare_data",
        "main", "main", "eval", "export", "serve",
    ]  # fmt: skip


def test_two_processes_train_every_full_config(commands):
    pods = [command for command in commands if command[0] == "launch/local_pod.sh"]
    assert [pod[4] for pod in pods] == [f"--config=configs/{stage}.py:full" for stage in STAGES]
    assert all(pod[1:4] == ["--processes=2", "--devices=4", "--"] for pod in pods)
    recipe = ("diffusion", "optimizer", "text.name", "model.dtype", "train.frozen_dtype")
    changed = {word.split("=")[0] for pod in pods for word in pod}
    assert not any(word.startswith(f"--config.{field}") for word in changed for field in recipe)
