"""Adds what is beside a video: `python -m lumiere_jax.outpaint --video=x.mp4 --prompt=TEXT …`."""

from absl import flags

from lumiere_jax import errors, making

_VIDEO = flags.DEFINE_string("video", None, "The video to which something is added.")
_ZOOM = flags.DEFINE_float("zoom", 1.0, "Size of the video within the new one.")
_PASTE = flags.DEFINE_bool("paste", True, "Put the video's own pixels back.")
_FEATHER = flags.DEFINE_integer("feather", 2, "Pixels of the border that is blended.", 0)
flags.mark_flags_as_required(["video"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    from lumiere_jax import given
    from lumiere_jax.pipeline import LumierePipeline

    def read(pipeline: LumierePipeline) -> tuple:
        return (given.read_clip(_VIDEO.value, pipeline.fps),)

    def make(
        pipeline: LumierePipeline, prompts: list[str], video: object, **options: object
    ) -> object:
        paste = {"paste": _PASTE.value, "feather": _FEATHER.value}
        return pipeline.outpaint(video, prompts, zoom=_ZOOM.value, **paste, **options)

    making.run("outpaint", make, read)


if __name__ == "__main__":
    errors.run(main)
