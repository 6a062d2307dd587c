"""Trains one stage: `python -m lumiere_jax.main --config=configs/stunet.py:tiny --workdir=DIR`."""

from absl import flags
from ml_collections import config_flags

from lumiere_jax import errors

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of configs/, with a variant after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for checkpoints, metrics and samples; the same one resumes."
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Trains the stage that the flags describe."""
    del argv
    from lumiere_jax.train import train

    train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    errors.run(main)
