"""The commands of the workflows and hooks exist, and the project's metadata agree."""

import re
import shlex
import shutil

import pytest
import yaml

from lumiere_jax import __version__
from tests.docs.blocks import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def read(name: str):
    return yaml.safe_load((REPOSITORY / name).read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_of_workflows_exist(path):
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for job in read(path)["jobs"].values():
        for command in (step["run"] for step in job["steps"] if "run" in step):
            program, *arguments = shlex.split(command)
            if program == "make":
                assert set(arguments) <= set(targets), command
            elif not program.startswith(".venv/"):
                place = shutil.which(program) or shutil.which(REPOSITORY / program)
                assert place, f"{command} cannot be run"


def test_ci_runs_on_every_python_that_is_supported():
    supported = re.findall(r"Python :: (3\.\d+)", (REPOSITORY / "setup.py").read_text())
    job = read(".github/workflows/ci.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == supported
    assert ".ci/run" in [step.get("run") for step in job["steps"]]


def test_hooks_run_what_make_lint_runs():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.M)[1]
    tools = [t for t in re.findall(r"\$\(BIN\)/([\w-]+)", recipe) if t != "python"]
    hooks = [hook["entry"].removeprefix(".venv/bin/").split()[0] for hook in repository["hooks"]]
    assert hooks == tools


def test_versions_agree():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    newest = re.search(r"^## \[(.+?)\] - (.+)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert newest.groups() == (citation["version"], str(citation["date-released"]))
    assert citation["version"] == __version__


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_ask_something(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"]
    assert all(item["attributes"]["label"] for item in form["body"])
