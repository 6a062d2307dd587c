"""Notes that videos carry: all that is needed to make them again, as JSON in the file's comment."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lumiere_jax import __version__
from lumiere_jax.errors import UserError


def compose(command: str, flags: Mapping[str, Any], checkpoints: Sequence[str]) -> str:
    """The note of a video.

    Args:
      command: module of this package that makes such videos.
      flags: its flags, those at their defaults left out.
      checkpoints: fingerprints of the weights, in the order of the stages.
    """
    note = {
        "program": f"lumiere_jax {__version__}",
        "command": command,
        "flags": dict(flags),
        "checkpoints": list(checkpoints),
    }
    return json.dumps(note, ensure_ascii=False)


def read(path: str) -> dict[str, Any]:
    """What `compose` put into a video.

    Raises:
      UserError: if the file cannot be read, or has no such note.
    """
    from lumiere_jax.data.video_io import read_comment

    try:
        found = json.loads(read_comment(path))
        if {"command", "flags", "checkpoints"} <= set(found):
            return found
    except (ValueError, TypeError):
        pass
    raise UserError(
        f"{path} has no note of how it was made; lumiere_jax writes one into .mp4 files."
    )


def reproducing_command(note: Mapping[str, Any], output: str) -> list[str]:
    """The command that makes a video again.

    Args:
      note: from `read`.
      output: file to write.
    """
    command = [sys.executable, "-m", f"lumiere_jax.{note['command']}", f"--output={output}"]
    command.append(f"--expect_checkpoints={','.join(note['checkpoints'])}")
    for name, value in note["flags"].items():
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no{name}")
        elif value is not None:
            value = ",".join(map(str, value)) if isinstance(value, list) else value
            command.append(f"--{name}={value}")
    return command
