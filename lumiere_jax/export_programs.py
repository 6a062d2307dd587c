"""StableHLO of a bundle: `python -m lumiere_jax.export_programs --bundle=BUNDLE --output=FOLDER`.

Writes the denoising step and the whole sampler of every stage as programs that need no lumiere_jax,
for CPU, TPU and CUDA at once and any batch (docs/bundles.md). The weights stay in the bundle.
"""

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.path_flags import define_path

_BUNDLE = define_path("bundle", None, "The bundle: a folder, or OWNER/NAME.", required=True)
_BASE = flags.DEFINE_string("base", None, "Name or kind of its base, if not `stunet`.")
_DISTILLED = flags.DEFINE_bool("distilled", False, "Take the stages of few steps.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames of a video.", lower_bound=1)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "tpu", "cuda"], "Where the programs can run.")
_TEXT_FOLDER = define_path(
    "text_folder", None, "Folder of the T5 encoder, where it is not where it was in training."
)
_OUTPUT = define_path("output", None, "Folder for the programs.", required=True)


def main(argv: list[str]) -> None:
    """Writes the programs."""
    from lumiere_jax.checkpoints import bundle, hub, selection
    from lumiere_jax.inference.pipeline import LumierePipeline
    from lumiere_jax.inference.stablehlo import export_programs

    folder = hub.find(_BUNDLE.value)
    base, others = selection.choose(folder, _BASE.value, distilled=_DISTILLED.value)
    pipeline = LumierePipeline.from_checkpoints(
        base, others, show_progress=False, text_folder=_TEXT_FOLDER.value
    )
    for path in export_programs(
        pipeline,
        _OUTPUT.value,
        num_frames=_NUM_FRAMES.value,
        dtype=bundle.dtype(folder),
        platforms=_PLATFORMS.value,
        stages=[place.name for place in (base, *others)],
    ):
        print(path)


if __name__ == "__main__":
    errors.run(main)
