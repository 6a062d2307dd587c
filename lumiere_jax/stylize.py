"""A prompt in a style, by several shares of it: `python -m lumiere_jax.stylize --alphas=0,0.5,1 …`.

Writes one video for each share, and `contact_sheet.png` with all of them.
"""

from pathlib import Path

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_ALPHAS = flags.DEFINE_list("alphas", ["0", "0.5", "0.6", "0.7", "0.8", "0.9", "1"], "Shares.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames of the videos.")
flags.mark_flags_as_required(["style_checkpoint", "output"])


def read_alphas(values: list[str]) -> list[float]:
    """The shares of the style that a flag names.

    Raises:
      UserError: for one that is no number of [0, 1].
    """
    try:
        alphas = [float(value) for value in values]
    except ValueError:
        alphas = [-1.0]
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise UserError(f"--alphas={','.join(values)} must be numbers between 0 and 1.")
    return alphas


def main(argv: list[str]) -> None:
    """Makes the videos and the sheet."""
    del argv
    alphas = read_alphas(_ALPHAS.value)
    values = flags.FLAGS
    if values.prompt is None:
        raise UserError("--prompt is missing: a sweep shows one prompt.")
    command.check_weights_given()
    names = [f"alpha_{alpha:.2f}.mp4" for alpha in alphas]
    command.output_paths(values.output, ["mp4"], len(alphas), True)

    import numpy as np

    from lumiere_jax.data.video_io import write_contact_sheet
    from lumiere_jax.inference.outputs import write_viewable
    from lumiere_jax.runtime import devices
    from lumiere_jax.runtime.preemption import Interruption

    devices.keep_compiled_programs()
    pipeline = command.load_pipeline()
    videos = []
    with Interruption() as interruption:
        for alpha, name in zip(alphas, names, strict=True):
            styled = pipeline.with_style(values.style_checkpoint, alpha)
            (video,) = styled(
                [values.prompt],
                seeds=[values.seed],
                num_frames=_NUM_FRAMES.value,
                num_steps=values.steps,
                sampler=values.sampler,
                guidance_scale=values.guidance_scale,
                base_only=values.base_only,
            )
            path = Path(values.output) / name
            request = command.Request(values.prompt, values.seed, (path,))
            comment = command.note("sample", request, styled.fingerprints(), alpha=alpha)
            write_viewable(path, video, pipeline.fps, values.prompt, comment)
            print(path)
            videos.append(video)
            interruption.poll()
    sheet = Path(values.output) / "contact_sheet.png"
    captions = [f"alpha {alpha:g}: {values.prompt}" for alpha in alphas]
    write_contact_sheet(sheet, np.stack(videos), captions)
    print(sheet)


if __name__ == "__main__":
    errors.run(main)
