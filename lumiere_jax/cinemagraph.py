"""Moves one region of a picture: `python -m lumiere_jax.cinemagraph --image=x.png --mask=m.png`."""

from typing import Any

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

_IMAGE = flags.DEFINE_string("image", None, "The picture.")
_MASK = flags.DEFINE_string("mask", None, "What is to move: a PNG, or a box X,Y,WIDTH,HEIGHT.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames of the video.")
_PASTE = flags.DEFINE_bool("paste", True, "Put the picture's own pixels back elsewhere.")
_FEATHER = flags.DEFINE_integer("feather", 2, "Pixels of the border that is blended.", 0)
flags.mark_flags_as_required(["image", "mask"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    command.run("cinemagraph", _arguments)


def _arguments(pipeline: Any) -> dict[str, Any]:
    """What the method takes beside prompts and options."""
    from lumiere_jax.inference import inputs

    image = inputs.read_picture(_IMAGE.value)
    region = inputs.read_region(_MASK.value, pipeline.fps, (1, *image.shape[:2]))[0]
    paste = {"paste": _PASTE.value, "feather": _FEATHER.value}
    return {"image": image, "region": region, "num_frames": _NUM_FRAMES.value} | paste


if __name__ == "__main__":
    errors.run(main)
