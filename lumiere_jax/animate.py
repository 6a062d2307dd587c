"""Image-to-video: `python -m lumiere_jax.animate --base=DIR --image=x.png --prompt=TEXT …`."""

from typing import Any

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

_IMAGE = flags.DEFINE_string("image", None, "The picture that becomes the first frame.")
_FIT = flags.DEFINE_string("fit", "crop", "crop, or pad: keep all of it and fill what is beside.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames of the video.")
flags.mark_flags_as_required(["image"])


def main(argv: list[str]) -> None:
    """Makes what the flags ask for."""
    del argv
    command.run("animate", _arguments)


def _arguments(pipeline: Any) -> dict[str, Any]:
    """What the method takes beside prompts and options."""
    del pipeline
    from lumiere_jax.inference import inputs

    image = inputs.read_picture(_IMAGE.value)
    return {"image": image, "fit": _FIT.value, "num_frames": _NUM_FRAMES.value}


if __name__ == "__main__":
    errors.run(main)
