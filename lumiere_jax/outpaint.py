"""Adds what is beside a video: `python -m lumiere_jax.outpaint --video=x.mp4 --prompt=TEXT …`."""

from typing import Any

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

_VIDEO = flags.DEFINE_string("video", None, "The video to which something is added.")
_ZOOM = flags.DEFINE_float("zoom", 1.0, "Size of the video within the new one.")
_PASTE = flags.DEFINE_bool("paste", True, "Put the video's own pixels back.")
_FEATHER = flags.DEFINE_integer("feather", 2, "Pixels of the border that is blended.", 0)
flags.mark_flags_as_required(["video"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    command.run("outpaint", _arguments)


def _arguments(pipeline: Any) -> dict[str, Any]:
    """What the method takes beside prompts and options."""
    from lumiere_jax.inference import inputs

    video = inputs.read_clip(_VIDEO.value, pipeline.fps)
    paste = {"paste": _PASTE.value, "feather": _FEATHER.value}
    return {"video": video, "zoom": _ZOOM.value} | paste


if __name__ == "__main__":
    errors.run(main)
