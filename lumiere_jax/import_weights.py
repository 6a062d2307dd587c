"""Open weights to start from: `python -m lumiere_jax.import_weights --source=DIR --stage=t2i …`.

Turns a local directory of DeepFloyd IF (in the layout of diffusers, with safetensors) into the
checkpoint of a stage "t2i" (from its stage I) or "t2i_ssr" (from its stage II), which can be
sampled from and inflated. docs/open_weights.md goes on from there.
"""

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.path_flags import define_path

_SOURCE = define_path("source", None, "Directory with unet/ and scheduler/.", required=True)
_STAGE = flags.DEFINE_enum(
    "stage", None, ["t2i", "ssr"], "t2i for stage I, ssr for stage II.", required=True
)
_WORKDIR = define_path("workdir", None, "Folder to make, for --config.init_from.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the parameters.")


def main(argv: list[str]) -> None:
    """Imports what the flags name."""
    from lumiere_jax.open_weights.importing import import_weights

    config = import_weights(_SOURCE.value, _STAGE.value, _WORKDIR.value, _DTYPE.value)
    print(f"{_WORKDIR.value}: a checkpoint of stage {config.stage}")


if __name__ == "__main__":
    errors.run(main)
