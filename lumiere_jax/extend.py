"""Goes on with a video: `python -m lumiere_jax.extend --video=x.mp4 --num_frames=N …`."""

from typing import Any

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

_VIDEO = flags.DEFINE_string("video", None, "The video to go on with.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames to add.")
_CONTEXT = flags.DEFINE_integer("context", None, "Frames of the video that the model is shown.")
_PASTE = flags.DEFINE_bool("paste", True, "Take the video's own frames into the result.")
flags.mark_flags_as_required(["video", "num_frames"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    command.run("extend", _arguments)


def _arguments(pipeline: Any) -> dict[str, Any]:
    """What the method takes beside prompts and options."""
    from lumiere_jax.inference import inputs

    how = {"num_frames": _NUM_FRAMES.value, "context": _CONTEXT.value, "paste": _PASTE.value}
    return {"video": inputs.read_clip(_VIDEO.value, pipeline.fps)} | how


if __name__ == "__main__":
    errors.run(main)
