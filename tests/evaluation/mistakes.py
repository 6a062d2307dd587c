"""Runs the eval binary in this process with one list of arguments after the other.

Reads the lists as JSON from stdin and writes what each was told, or null, as JSON to stdout. A
process of its own, since the flags of two binaries do not go together, but one for all lists, since
every start takes seconds.
"""

import contextlib
import json
import sys

from absl import flags
from absl.testing import flagsaver

from lumiere_jax import eval as binary
from lumiere_jax.evaluation import command
from lumiere_jax.runtime.errors import UserError


def told(arguments: list[str]) -> str | None:
    with flagsaver.flagsaver(), contextlib.redirect_stdout(sys.stderr):
        try:
            flags.FLAGS(["eval", *arguments])
            command.evaluate(binary.read_flags())
        except UserError as error:
            return str(error)
    return None


def workdir(base: str) -> str:
    """What `--base` is read as."""
    with flagsaver.flagsaver():
        flags.FLAGS(["eval", "--output=x", "--task=held_out", f"--base={base}"])
        return str(binary.read_flags().task.generator.base)


if __name__ == "__main__":
    assert workdir("gs://bucket/run/") == "gs://bucket/run" and workdir("runs/a/") == "runs/a"
    print(json.dumps([told(arguments) for arguments in json.load(sys.stdin)]))
    assert "tensorflow" not in sys.modules  # which takes seconds to import, and is of no use here
