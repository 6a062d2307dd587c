"""Makes videos from prompts: `python -m lumiere_jax.sample --base=DIR --prompt=TEXT …`.

Also tells how a video was made (`--describe=x.mp4`), and makes it again (`--reproduce=x.mp4`).
"""

import json
import subprocess

from absl import flags

from lumiere_jax.inference import command, provenance
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", None, "Frames of the video; more than were trained are made in windows."
)
_OVERLAP = flags.DEFINE_integer(
    "overlap", None, "Frames that windows share; half a window if not given."
)
_DESCRIBE = flags.DEFINE_string("describe", None, "An .mp4: print how it was made, and no more.")
_REPRODUCE = flags.DEFINE_string("reproduce", None, "An .mp4: make it again, at --output.")


def main(argv: list[str]) -> None:
    """Samples, describes or reproduces, as the flags ask."""
    del argv
    if _DESCRIBE.value:
        found = provenance.read(_DESCRIBE.value)
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if _REPRODUCE.value:
        output = flags.FLAGS.output
        if not output:
            raise UserError("--reproduce needs --output=FILE for the video that is made again.")
        again = provenance.reproducing_command(provenance.read(_REPRODUCE.value), output)
        raise SystemExit(subprocess.run(again).returncode)

    own = {"num_frames": _NUM_FRAMES.value, "overlap": _OVERLAP.value}
    command.run("sample", lambda _: own)


if __name__ == "__main__":
    errors.run(main)
