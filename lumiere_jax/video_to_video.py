"""Video-to-video by SDEdit: `python -m lumiere_jax.video_to_video --video=x.mp4 --prompt=TEXT`."""

from absl import flags

from lumiere_jax import errors, making

_VIDEO = flags.DEFINE_string("video", None, "The video to start from.")
_STRENGTH = flags.DEFINE_float("strength", 0.6, "Noise: 0 keeps the video, 1 forgets it.", 0, 1)
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
        return pipeline.video_to_video(video, prompts, strength=_STRENGTH.value, **options)

    making.run("video_to_video", make, read)


if __name__ == "__main__":
    errors.run(main)
