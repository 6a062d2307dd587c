"""Packs trained stages to ship: `python -m lumiere_jax.export --stage=WORKDIR … --output=BUNDLE`.

    python -m lumiere_jax.export --stage=runs/t2i --stage=runs/stunet --stage=runs/ssr \\
        --output=my_model
    python -m lumiere_jax.sample --bundle=my_model --output=video.mp4 …

A bundle holds the averaged weights (EMA) and configs, and nothing of the training's state. Its
README.md is a model card; `--evaluation` and `--plan` add what was measured and planned.
"""

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.path_flags import define_path

_STAGE = flags.DEFINE_multi_string(
    "stage",
    None,
    "WORKDIR of a stage, or WORKDIR/checkpoints/STEP, or NAME=… where its name is not the stage's.",
    required=True,
)
_OUTPUT = define_path("output", None, "Folder of the bundle.", required=True)
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "Of the weights: bfloat16, float32 or int8.")
_EMA_WIDTH = flags.DEFINE_float(
    "ema_width", None, "Average weights like this, as a share of all steps; see docs/train.md."
)
_LICENSE = flags.DEFINE_string(
    "license", "", "Of the weights: an SPDX identifier, as in Apache-2.0, or a sentence."
)
flags.DEFINE_alias("licence", "license")
_EVALUATION = define_path("evaluation", None, "--output of lumiere_jax.eval, for the card.")
_PLAN = define_path("plan", None, "--output of lumiere_jax.plan, for the card.")


def main(argv: list[str]) -> None:
    """Writes the bundle that the flags describe."""
    from lumiere_jax.checkpoints.exporting import export
    from lumiere_jax.evaluation import card
    from lumiere_jax.planning import report

    print(
        export(
            _STAGE.value,
            _OUTPUT.value,
            _DTYPE.value,
            ema_width=_EMA_WIDTH.value,
            license=_LICENSE.value,
            evaluation=card.read(_EVALUATION.value) if _EVALUATION.value else "",
            plans=report.read(_PLAN.value) if _PLAN.value else (),
        )
    )


if __name__ == "__main__":
    errors.run(main)
