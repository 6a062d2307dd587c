"""Makes videos from prompts: `python -m lumiere_jax.sample --base=DIR --prompt=TEXT …`."""

from pathlib import Path

from absl import flags

from lumiere_jax import errors
from lumiere_jax.errors import UserError

_BASE = flags.DEFINE_string("base", None, "Workdir of the base stage's training run.")
_SSR = flags.DEFINE_list("ssr", [], "Workdirs of super-resolution stages, in order.")
_PROMPT = flags.DEFINE_string("prompt", None, "What to show.")
_PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, "A text file with one prompt a line.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "x.mp4, x.gif or x.png (contact sheet); a folder with --prompts_file."
)
_FORMATS = flags.DEFINE_list("formats", ["mp4", "gif"], "What to write into a folder.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed; prompt number i of a file takes seed + i.")
_STEPS = flags.DEFINE_integer("steps", None, "Denoising steps of every stage.")
_SAMPLER = flags.DEFINE_string("sampler", None, "ddim, ancestral, dpmpp_2m or ddpm.")
_GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Guidance of the base stage.")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", None, "Frames of the video.")
_BASE_ONLY = flags.DEFINE_bool("base_only", False, "Leave super-resolution out.")
_TEXT_FOLDER = flags.DEFINE_string(
    "text_folder", None, "Folder of the T5 encoder, where it is not where it was in training."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Videos made at once.", lower_bound=1)
flags.mark_flags_as_required(["base", "output"])

SUFFIXES = (".mp4", ".gif", ".png")


def read_prompts(prompt: str | None, prompts_file: str | None) -> list[str]:
    """The prompts that the flags name.

    Raises:
      UserError: for none, both, or a file that is missing, empty or not UTF-8 text.
    """
    if (prompt is None) == (prompts_file is None):
        raise UserError("give either --prompt=TEXT or --prompts_file=FILE.")
    if prompt is not None:
        return [prompt]
    try:
        text = Path(prompts_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--prompts_file={prompts_file} cannot be read ({error}); give a UTF-8 text file with "
            "one prompt a line."
        ) from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UserError(f"--prompts_file={prompts_file} has no prompt; write one a line.")
    return prompts


def output_paths(output: str, formats: list[str], num_prompts: int, is_file: bool) -> list[list]:
    """For each prompt, the files to write; made sure of before anything is computed.

    Raises:
      UserError: for a suffix that is unknown, or a folder that does not exist.
    """
    path = Path(output)
    if not is_file:
        if path.suffix not in SUFFIXES:
            raise UserError(f"--output={output} must end with one of {', '.join(SUFFIXES)}.")
        if not path.parent.is_dir():
            raise UserError(f"--output={output}: there is no folder {path.parent}; create it.")
        return [[path]]
    unknown = [name for name in formats if f".{name}" not in SUFFIXES]
    if unknown or path.suffix in SUFFIXES:
        raise UserError(
            f"--output={output} --formats={','.join(formats)}: with --prompts_file the output is "
            "a folder, and the formats are some of mp4, gif and png."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be used as a folder ({error}).") from error
    return [[path / f"{i:04d}.{name}" for name in formats] for i in range(num_prompts)]


def main(argv: list[str]) -> None:
    """Samples what the flags ask for."""
    del argv
    prompts = read_prompts(_PROMPT.value, _PROMPTS_FILE.value)
    is_file = _PROMPTS_FILE.value is not None
    paths = output_paths(_OUTPUT.value, _FORMATS.value, len(prompts), is_file)

    import numpy as np

    from lumiere_jax import compilation_cache
    from lumiere_jax.data.video_io import write_contact_sheet
    from lumiere_jax.interrupt import Interruption
    from lumiere_jax.pipeline import LumierePipeline
    from lumiere_jax.samples import write_viewable

    compilation_cache.use()
    pipeline = LumierePipeline.from_checkpoints(
        _BASE.value, _SSR.value, text_folder=_TEXT_FOLDER.value
    )
    with Interruption() as interruption:

        def write(first: int, videos: np.ndarray) -> None:
            for number, video in enumerate(videos, first):
                for path in paths[number]:
                    write_viewable(path, video, pipeline.fps, prompts[number])
                    print(path)
            interruption.poll()

        videos = pipeline(
            prompts,
            seeds=[_SEED.value + i for i in range(len(prompts))],
            num_steps=_STEPS.value,
            sampler=_SAMPLER.value,
            guidance_scale=_GUIDANCE_SCALE.value,
            num_frames=_NUM_FRAMES.value,
            base_only=_BASE_ONLY.value,
            batch_size=_BATCH_SIZE.value,
            on_batch=write,
        )
    if is_file:
        sheet = Path(_OUTPUT.value) / "contact_sheet.png"
        write_contact_sheet(sheet, videos, prompts)
        print(sheet)


if __name__ == "__main__":
    errors.run(main)
