"""Inpainting and local editing: `python -m lumiere_jax.inpaint --video=x.mp4 --mask=x.png …`."""

from typing import Any

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

_VIDEO = flags.DEFINE_string("video", None, "The video that is to change.")
_MASK = flags.DEFINE_string(
    "mask", None, "Where: a PNG, a video, a box X,Y,WIDTH,HEIGHT, or FRAME:X,Y,WIDTH,HEIGHT;…."
)
_PASTE = flags.DEFINE_bool("paste", True, "Put the video's own pixels back elsewhere.")
_FEATHER = flags.DEFINE_integer("feather", 2, "Pixels of the border that is blended.", 0)
flags.mark_flags_as_required(["video", "mask"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    command.run("inpaint", _arguments)


def _arguments(pipeline: Any) -> dict[str, Any]:
    """What the method takes beside prompts and options."""
    from lumiere_jax.inference import inputs

    video = inputs.read_clip(_VIDEO.value, pipeline.fps)
    region = inputs.read_region(_MASK.value, pipeline.fps, video.shape[:3])
    paste = {"paste": _PASTE.value, "feather": _FEATHER.value}
    return {"video": video, "region": region} | paste


if __name__ == "__main__":
    errors.run(main)
