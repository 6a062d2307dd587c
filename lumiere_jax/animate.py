"""Image-to-video: `python -m lumiere_jax.animate --base=DIR --image=x.png --prompt=TEXT …`."""

from absl import flags

from lumiere_jax import errors, making

_IMAGE = flags.DEFINE_string("image", None, "The picture that becomes the first frame.")
_FIT = flags.DEFINE_string("fit", "crop", "crop, or pad: keep all of it and fill what is beside.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames of the video.")
flags.mark_flags_as_required(["image"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    from lumiere_jax import given
    from lumiere_jax.pipeline import LumierePipeline

    def read(pipeline: LumierePipeline) -> tuple:
        return (given.read_picture(_IMAGE.value),)

    def make(
        pipeline: LumierePipeline, prompts: list[str], image: object, **options: object
    ) -> object:
        return pipeline.animate(
            image, prompts, fit=_FIT.value, num_frames=_NUM_FRAMES.value, **options
        )

    making.run("animate", make, read)


if __name__ == "__main__":
    errors.run(main)
