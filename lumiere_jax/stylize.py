"""A prompt in a style, by several shares of it: `python -m lumiere_jax.stylize --alphas=0,0.5,1 …`.

Writes one video for each share, and `contact_sheet.png` with all of them.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

command.define_flags("stylize")
_ALPHAS = flags.DEFINE_list(
    "alphas", ["0", "0.5", "0.6", "0.7", "0.8", "0.9", "1"], "Shares of the style's weights."
)
flags.mark_flags_as_required(["style_checkpoint", "output"])


def read_alphas(values: Sequence[str]) -> list[float]:
    """The shares of the style that a flag names."""
    try:
        alphas = [float(value) for value in values]
    except ValueError:
        alphas = [-1.0]
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise UserError(f"--alphas={','.join(values)} must be numbers between 0 and 1.")
    return alphas


def main(argv: Sequence[str]) -> None:
    """Makes the videos and the sheet."""
    alphas, values = read_alphas(_ALPHAS.value), flags.FLAGS
    if values.prompt is None:
        raise UserError("--prompt is missing: a sweep shows one prompt.")
    command.check_weights_given()
    command.output_paths(values.output, ["mp4"], len(alphas), is_folder=True)

    import numpy as np

    from lumiere_jax.data.video_io import write_contact_sheet
    from lumiere_jax.runtime.preemption import Interruption

    pipeline = command.load_pipeline("stunet")
    videos = []
    with Interruption() as interruption:
        for alpha in alphas:
            styled = pipeline.with_style(values.style_checkpoint, alpha)
            (video,) = styled(
                [values.prompt],
                seeds=[values.seed],
                num_frames=values.num_frames,
                **command.shared_arguments(),
            )
            path = Path(values.output) / f"alpha_{alpha:.2f}.mp4"
            request = command.Request(values.prompt, values.seed, (path,))
            checkpoints = styled.fingerprints()
            command.write_request(request, video, styled.fps, "stylize", checkpoints, alpha=alpha)
            videos.append(video)
            interruption.poll()
    sheet = Path(values.output) / "contact_sheet.png"
    captions = [f"alpha {alpha:g}: {values.prompt}" for alpha in alphas]
    write_contact_sheet(sheet, np.stack(videos), captions)
    print(sheet)


if __name__ == "__main__":
    errors.run(main)
