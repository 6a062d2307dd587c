"""Packs trained stages to ship: `python -m lumiere_jax.export --stage=WORKDIR … --output=BUNDLE`.

    python -m lumiere_jax.export --stage=runs/t2i --stage=runs/stunet --stage=runs/ssr \\
        --output=my_model
    python -m lumiere_jax.sample --base=my_model/stunet --ssr=my_model/ssr --output=video.mp4 …

A bundle holds the averaged weights (EMA) and configs, and nothing of the training's state.
"""

from absl import flags

from lumiere_jax import errors

_STAGE = flags.DEFINE_multi_string(
    "stage", None, "WORKDIR of a stage, or NAME=WORKDIR where its name is not to be the stage's."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the bundle.")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "Of the weights: bfloat16 or float32.")
flags.mark_flags_as_required(["stage", "output"])


def main(argv: list[str]) -> None:
    """Writes the bundle that the flags describe."""
    del argv
    from lumiere_jax.exporting import export

    print(export(_STAGE.value, _OUTPUT.value, _DTYPE.value))


if __name__ == "__main__":
    errors.run(main)
