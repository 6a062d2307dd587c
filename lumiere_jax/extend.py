"""Goes on with a video: `python -m lumiere_jax.extend --video=x.mp4 --num_frames=N …`."""

from absl import flags

from lumiere_jax import errors, making

_VIDEO = flags.DEFINE_string("video", None, "The video to go on with.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames to add.")
_CONTEXT = flags.DEFINE_integer("context", None, "Frames of the video that the model is shown.")
_PASTE = flags.DEFINE_bool("paste", True, "Take the video's own frames into the result.")
flags.mark_flags_as_required(["video", "num_frames"])


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
        how = {"num_frames": _NUM_FRAMES.value, "context": _CONTEXT.value, "paste": _PASTE.value}
        return pipeline.extend(video, prompts, **how, **options)

    making.run("extend", make, read)


if __name__ == "__main__":
    errors.run(main)
