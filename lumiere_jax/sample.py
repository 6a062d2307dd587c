"""Makes videos from prompts: `python -m lumiere_jax.sample --base=DIR --prompt=TEXT …`.

Also tells how a video was made (`--describe=x.mp4`), and makes it again (`--reproduce=x.mp4`).
"""

import json
import subprocess
from collections.abc import Sequence

from absl import flags

from lumiere_jax.inference import command, provenance
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import define_path

command.define_flags("text_to_video")
_DESCRIBE = define_path("describe", None, "An .mp4: print how it was made, and stop.")
_REPRODUCE = define_path("reproduce", None, "An .mp4: make it again, at --output.")


def main(argv: Sequence[str]) -> None:
    """Samples, describes or reproduces, as the flags ask."""
    if _DESCRIBE.value:
        found = provenance.read(_DESCRIBE.value)
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif _REPRODUCE.value:
        output = flags.FLAGS.output
        if not output:
            raise UserError("--reproduce needs --output=FILE for the new video.")
        reproduce = provenance.reproducing_command(provenance.read(_REPRODUCE.value), output)
        raise SystemExit(subprocess.run(reproduce).returncode)
    else:
        command.run("text_to_video")


if __name__ == "__main__":
    errors.run(main)
