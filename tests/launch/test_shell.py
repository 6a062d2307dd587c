"""What holds for every shell script of launch/, and the image."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.scripts import LAUNCH, REPOSITORY, SCRIPTS, assert_user_error, run_script


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    found = str(shellcheck) if shellcheck.exists() else shutil.which("shellcheck")
    assert found, "shellcheck is missing: install requirements-test.txt"
    scripts = sorted(LAUNCH.rglob("*.sh"))
    assert {script.name for script in scripts} == {*SCRIPTS, "common.sh"}
    result = subprocess.run(
        [found, "--norc", "--external-sources", "--check-sourced", *scripts],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_strict(script):
    path = LAUNCH / script
    assert path.stat().st_mode & 0o111 == 0o111
    assert path.read_text().startswith("#!/usr/bin/env bash\nset -euo pipefail\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(script):
    result = run_script(script, "--help")
    assert result.returncode == 0 and result.stderr == ""
    parsed = re.search(r'^parse "([^"]*)"\s*\\?\s*"([^"]*)"', (LAUNCH / script).read_text(), re.M)
    for flag in f"{parsed[1]} {parsed[2]} help".split():
        assert re.search(rf"^  --{flag}[ =]", result.stdout, re.M), flag


PLACE = ("--name=a", "--zone=z", "--project=p")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("tpu_vm.sh", [], "create, setup, run, tail, stop, delete"),
        ("tpu_vm.sh", ["start"], "not 'start'"),
        ("tpu_vm.sh", ["run", *PLACE], "arguments of lumiere_jax.main are missing"),
        ("tpu_vm.sh", ["run", *PLACE, "--"], "arguments of lumiere_jax.main are missing"),
        ("tpu_vm.sh", ["run", *PLACE, "config"], "unexpected argument 'config'"),
        ("tpu_vm.sh", ["create", *PLACE], "--type is missing"),
        ("tpu_vm.sh", ["create", *PLACE, "--type=h100"], "--type=h100"),
        ("tpu_vm.sh", ["create", "--name=a", "--zone=z"], "--project is missing"),
        ("tpu_vm.sh", ["create", "--name=A_b"], "--name=A_b"),
        ("tpu_vm.sh", ["create", "--zon=z"], "unknown flag --zon"),
        ("tpu_vm.sh", ["create", "--spot=yes"], "--spot takes no value"),
        ("tpu_vm.sh", ["create", "--name", "--zone=z"], "--name needs a value"),
        ("tpu_vm.sh", ["create", "--name"], "--name needs a value"),
        ("tpu_vm.sh", ["tail", *PLACE, "--lines=all"], "--lines=all: give a whole number"),
        ("tpu_vm.sh", ["stop", *PLACE, "--", "--x"], "'stop' takes nothing after --"),
        ("queued_resource.sh", ["waits"], "not 'waits'"),
        ("queued_resource.sh", ["create", *PLACE, "--type=v5p-8", "--slices=0"], "--slices=0"),
        ("queued_resource.sh", ["wait", *PLACE, "--interval=0"], "--interval=0"),
        ("queued_resource.sh", ["delete", "--zone=z"], "--name is missing"),
        ("rehearsal.sh", [], "--workdir is missing"),
        ("rehearsal.sh", ["--workdir=w", "--steps=1"], "--steps=1"),
        ("rehearsal.sh", ["--workdir=w", "--clips=none"], "--clips=none: there is no such folder"),
        ("rehearsal.sh", ["--workdir=w", "--text_folder=none"], "there is no config.json in it"),
        ("worker.sh", ["start"], "arguments of lumiere_jax.main are missing"),
        ("worker.sh", ["tail", "--lines=-3"], "--lines=-3"),
        ("local_pod.sh", [], "arguments of lumiere_jax.main are missing"),
        ("local_pod.sh", ["--program=sample", "--", "--x"], "--program=sample: give main, which"),
        ("tpu_vm.sh", ["run", *PLACE, "--program=eval"], "arguments of lumiere_jax.eval are miss"),
        ("local_pod.sh", ["--processes=0", "--", "--x"], "--processes=0"),
        ("local_pod.sh", ["--devices=1.5", "--", "--x"], "--devices=1.5"),
        ("local_pod.sh", ["--port=70000", "--", "--x"], "--port=70000"),
        ("local_pod.sh", ["--timeout=soon", "--", "--x"], "--timeout=soon"),
        ("local_pod.sh", ["--process=2", "--", "--x"], "unknown flag --process"),
    ],
)
def test_a_mistake_is_told_in_one_line(script, arguments, message):
    assert_user_error(run_script(script, *arguments), message)


def test_image_installs_the_tpu_extra_and_copies_what_exists():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    assert "FROM python:3.11-slim" in lines
    assert "ARG EXTRAS=tpu" in lines
    assert any("requirements.txt" in line and '".[$EXTRAS]"' in line for line in lines)
    assert re.search(r'"tpu": \["jax\[tpu\]', (REPOSITORY / "setup.py").read_text())
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"lumiere_jax", "configs", "requirements.txt"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, source
