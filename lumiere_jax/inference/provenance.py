"""Notes in videos: all that is needed to make them again, as JSON in the comment of the file."""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lumiere_jax import __version__
from lumiere_jax.inference.tasks import TASKS
from lumiere_jax.runtime.errors import UserError

NOT_NOTED = (
    "prompts_file", "output", "formats", "samples", "storyboard", "expect_checkpoints", "alphas",
)  # fmt: skip
"""Flags about files, or about more than one video."""


def compose(command: str, flags: Mapping[str, Any], checkpoints: Sequence[str]) -> str:
    """The note of a video: the command, its flags that are set, and fingerprints of the weights."""
    note = {"program": f"lumiere_jax {__version__}", "command": command, "flags": dict(flags)}
    return json.dumps(note | {"checkpoints": list(checkpoints)}, ensure_ascii=False)


def read(path: str) -> dict[str, Any]:
    """What `compose` put into a video; `UserError` if it has no such note."""
    from lumiere_jax.data.video_io import read_comment

    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(read_comment(path))
        kinds = {"command": str, "flags": dict, "checkpoints": list}
        if isinstance(found, dict) and all(
            isinstance(found.get(name), kind) for name, kind in kinds.items()
        ):
            return found
    raise UserError(
        f"{path} has no note of how it was made; lumiere_jax writes one into .mp4 files."
    )


def reproducing_command(note: Mapping[str, Any], output: str) -> list[str]:
    """The command that makes a video again.

    A note may come from a stranger: it can neither name another output, nor another command, which
    is a `UserError`.
    """
    if note["command"] not in {task.command for task in TASKS.values()}:
        raise UserError(
            f"the note says that {note['command']!r} made it, which does not make videos, so the "
            "note was altered; make the video from its prompt."
        )
    command = [sys.executable, "-m", f"lumiere_jax.{note['command']}"]
    for name, value in note["flags"].items():
        if name in NOT_NOTED or not name.isidentifier():
            continue
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no{name}")
        elif value is not None:
            value = ",".join(map(str, value)) if isinstance(value, list) else value
            command.append(f"--{name}={value}")
    command.append(f"--expect_checkpoints={','.join(map(str, note['checkpoints']))}")
    return [*command, f"--output={output}"]
