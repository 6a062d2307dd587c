"""Runs the scripts of launch/ as a person would, and reads their dry runs as a shell would."""

import os
import shlex
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LAUNCH = REPOSITORY / "launch"
SCRIPTS = ("local_pod.sh", "queued_resource.sh", "rehearsal.sh", "tpu_vm.sh", "worker.sh")


def run_script(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [LAUNCH / script, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def dry_run(script: str, *arguments: str, **environment: str) -> list[list[str]]:
    """The commands that the script would run, each as its words."""
    result = run_script(script, *_with_dry_run(arguments), **environment)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def _with_dry_run(arguments: tuple[str, ...]) -> list[str]:
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:place], "--dry_run", *arguments[place:]]


def assert_user_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    """Exit code 2, and one line on stderr that has these parts."""
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr
