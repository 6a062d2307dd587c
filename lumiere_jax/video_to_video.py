"""Video-to-video by SDEdit: `python -m lumiere_jax.video_to_video --video=x.mp4 --prompt=TEXT`."""

from typing import Any

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

_VIDEO = flags.DEFINE_string("video", None, "The video to start from.")
_STRENGTH = flags.DEFINE_float("strength", 0.6, "Noise: 0 keeps the video, 1 forgets it.", 0, 1)
flags.mark_flags_as_required(["video"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    command.run("video_to_video", _arguments)


def _arguments(pipeline: Any) -> dict[str, Any]:
    """What the method takes beside prompts and options."""
    from lumiere_jax.inference import inputs

    video = inputs.read_clip(_VIDEO.value, pipeline.fps)
    return {"video": video, "strength": _STRENGTH.value}


if __name__ == "__main__":
    errors.run(main)
