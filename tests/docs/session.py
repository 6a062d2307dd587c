"""Runs the blocks of a page in order, as one shell session in a folder that stands for a clone."""

import dataclasses
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import warm_python
from tests.docs.blocks import REPOSITORY, SHELL, Block, blocks

SHARED = (
    "configs", "lumiere_jax", "docs", "LICENSE", "setup.py", "requirements.txt",
    "requirements-test.txt",
)  # fmt: skip
MARK = "::block of line"
LAUNCH = """#!/usr/bin/env bash
# The script under --dry_run, then the flags of the program that stand after `--`.
set -euo pipefail
before=() program=main
while (($#)) && [[ $1 != -- ]]; do
  [[ $1 != --program=* ]] || program=${{1#*=}}
  before+=("$1"); shift
done
{script} "${{before[@]}}" --dry_run "$@"
if (($#)); then ONLY_FLAGS=1 python -m "lumiere_jax.$program" "${{@:2}}"; fi
"""


@dataclasses.dataclass(frozen=True)
class Page:
    """How the blocks of a page are run.

    Attributes:
      before: commands that make what the page takes to be there.
      replaced: what stands on the page, by pattern, and what is run in its place.
      after: commands that look at what the page has made.
      elsewhere: first words of lines in listings of folders that are not made here.
      needs: programs without which the page is left out.
    """

    before: str = ""
    replaced: Mapping[str, str] = dataclasses.field(default_factory=dict)
    after: str = ""
    elsewhere: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Session:
    """A folder like a clone, with `python`, `make` and cloud programs that stand for the real ones.

    Attributes:
      folder: where pages run, each in a folder of its own.
      environment: of their shells.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, path: str, page: Page, cascade: Mapping[str, Path]) -> None:
        """Runs the blocks of a page of the repository."""
        for program in page.needs:
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        self.run_text(path, (REPOSITORY / path).read_text(), page, cascade)

    def run_text(self, path: str, text: str, page: Page, cascade: Mapping[str, Path]) -> None:
        """Runs the blocks of a text; a command that fails, or is not accounted for, is an error."""
        found, place = blocks(text), self.folder / re.sub(r"\W", "_", path)
        made = {stage for stage in cascade if re.search(rf"--workdir=runs/{stage}\b", text)}
        _make_clone(place, {s: workdir for s, workdir in cascade.items() if s not in made}, cascade)
        script = _script(found, page)
        (place / "page.sh").write_text(script)
        begin = time.monotonic()
        process = subprocess.run(
            ["bash", "page.sh"], cwd=place, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
        )  # fmt: skip
        (place / "page.log").write_text(process.stdout)
        where = process.stdout.rpartition(MARK)[2].split("\n", 1)[0].strip()
        message = f"{path}:{where} ended with {process.returncode}:\n{process.stdout[-6000:]}"
        assert process.returncode == 0, message
        print(process.stdout, f"{path}: {time.monotonic() - begin:.1f} s")
        for block in found:
            if block.language == "text":
                _check_listing(path, block, place, page.elsewhere)


def make_session(folder: Path) -> Session:
    """A session in a new folder."""
    bin_ = folder / "bin"
    bin_.mkdir(parents=True)
    for name in ("python", "python3"):
        (bin_ / name).symlink_to(warm_python.python())
    for path in (REPOSITORY / "tests" / "docs" / "stand_ins").iterdir():
        _write_program(bin_ / path.name, path.read_text())
    environment = os.environ | {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "REPOSITORY": str(REPOSITORY),
        warm_python.ARGUMENTS_BY: "tests.docs.shrinking",
    }
    return Session(folder, environment)


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _make_clone(place: Path, runs: Mapping[str, Path], demo: Mapping[str, Path]) -> None:
    """What a page finds: a clone in which there are runs, with smaller weights than ours."""
    place.mkdir()
    for name in SHARED:
        (place / name).symlink_to(REPOSITORY / name)
    for folder in ("launch", "benchmarks"):
        (place / folder).mkdir()
        for path in (REPOSITORY / folder).iterdir():
            (place / folder / path.name).symlink_to(path)
    (place / "benchmarks" / "results").unlink()
    for script in ("local_pod.sh", "queued_resource.sh", "rehearsal.sh", "tpu_vm.sh"):
        (place / "launch" / script).unlink()
        text = LAUNCH.format(script=REPOSITORY / "launch" / script)
        _write_program(place / "launch" / script, text)
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "bin" / "activate").touch()
    for folder, stages in (("runs", runs), ("demo-train/runs", demo)):
        (place / folder).mkdir(parents=True)
        for stage, workdir in stages.items():
            (place / folder / stage).symlink_to(workdir)
    (place / "weights").mkdir()
    if (bundle := place.parent / "small").exists():
        shutil.copytree(bundle, place / "weights" / "small")


def _script(found: list[Block], page: Page) -> str:
    """The page as a script of bash; lines that are put in its place are those of the table."""
    unused = set(page.replaced)
    parts = ["set -eo pipefail", f"echo '{MARK} 0 (before)'", page.before]
    for block in found:
        text = block.text
        for old, new in page.replaced.items():
            if re.search(old, text):
                unused.discard(old)
                text = re.sub(old, new, text)
        parts += [f"echo '{MARK} {block.line}'"]
        if block.language in SHELL:
            parts += [text]
        elif block.language == "python":
            parts += [f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK"]
        elif block.language == "csv":
            parts += [f"cat >captions.csv <<'END_OF_BLOCK'\n{text}END_OF_BLOCK"]
            parts += ["python -m tests.docs.read_captions captions.csv"]
        else:
            kinds = "sh, python, csv, text for listings of files, output for what was printed"
            assert block.language in ("text", "output"), (
                f"line {block.line}: {block.language!r} is none of {kinds}"
            )
    assert not unused, f"nothing on the page is like {sorted(unused)}"
    return "\n".join([*parts, f"echo '{MARK} 0 (after)'", page.after, ""])


def _check_listing(path: str, block: Block, place: Path, elsewhere: tuple[str, ...]) -> None:
    """Every line of a listing begins with a file that is there."""
    for line in block.text.splitlines():
        name = line.split()[0]
        there = any(place.glob(name)) or any(REPOSITORY.glob(name))
        assert there or name in elsewhere, f"{path}: {name} is not there, and not known elsewhere"
