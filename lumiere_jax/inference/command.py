"""What all commands that make videos share: their flags, the files they write, and notes in these.

Each command gives the part that is its own to `run`.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lumiere_jax.inference import provenance
from lumiere_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from lumiere_jax.inference.pipeline import LumierePipeline

_BASE = flags.DEFINE_string("base", None, "Workdir of the base stage's training run.")
_SSR = flags.DEFINE_list("ssr", [], "Workdirs of super-resolution stages, in order.")
_BUNDLE = flags.DEFINE_string(
    "bundle", None, "Bundle to take base and super-resolution from: a folder, or OWNER/NAME."
)
_DISTILLED = flags.DEFINE_bool("distilled", False, "Of a bundle, the stages of few steps.")
_PROMPT = flags.DEFINE_string("prompt", None, "What to show.")
_PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, "A text file with one prompt a line.")
_NEGATIVE_PROMPT = flags.DEFINE_string("negative_prompt", "", "What to be led away from.")
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "x.mp4, x.gif or x.png (contact sheet); a folder with --prompts_file or --samples.",
)
_FORMATS = flags.DEFINE_list("formats", ["mp4", "gif"], "What to write into a folder.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed; video number i of a folder takes seed + i.")
_SAMPLES = flags.DEFINE_integer("samples", 1, "Videos of each prompt.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", None, "Denoising steps of every stage.")
_SAMPLER = flags.DEFINE_string("sampler", None, "ddim, ancestral, dpmpp_2m or ddpm.")
_TIME_POWER = flags.DEFINE_float(
    "time_power", None, "Above 1, more of the base's steps are near clean data; 2 is quadratic."
)
_GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Guidance of the base stage.")
_GUIDANCE_FROM = flags.DEFINE_float(
    "guidance_from", None, "Latest time that has guidance: 1 is noise, 0 the video."
)
_GUIDANCE_TO = flags.DEFINE_float("guidance_to", None, "Earliest time that has guidance.")
_BASE_ONLY = flags.DEFINE_bool("base_only", False, "Leave super-resolution out.")
_STORYBOARD = flags.DEFINE_string(
    "storyboard", None, "A PNG of what the base stage estimated at every step."
)
_STYLE = flags.DEFINE_string("style_checkpoint", None, "Workdir of a run of the stage `style`.")
_ALPHA = flags.DEFINE_float("alpha", 1.0, "Share of the style's image weights.", 0, 1)
_TEXT_FOLDER = flags.DEFINE_string(
    "text_folder", None, "Folder of the T5 encoder, where it is not where it was in training."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Videos made at once.", lower_bound=1)
_EXPECT = flags.DEFINE_list(
    "expect_checkpoints", [], "Fingerprints that the weights must have, as --describe shows them."
)

_SHOWN_PIXELS = ("animate", "cinemagraph", "inpaint", "outpaint", "extend")
SUFFIXES = (".mp4", ".gif", ".png")


@dataclasses.dataclass(frozen=True)
class Request:
    """A video to make, and the files to write it to."""

    prompt: str
    seed: int
    paths: tuple[Path, ...]


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


def output_paths(output: str, formats: list[str], num_videos: int, is_file: bool) -> list[list]:
    """For each video, the files to write; made sure of before anything is computed.

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
            f"--output={output} --formats={','.join(formats)}: with --prompts_file or --samples "
            "the output is a folder, and the formats are some of mp4, gif and png."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be used as a folder ({error}).") from error
    return [[path / f"{i:04d}.{name}" for name in formats] for i in range(num_videos)]


def check_weights_given() -> None:
    """Makes sure that the flags name a base once.

    Raises:
      UserError: if they do not.
    """
    if (_BASE.value is None) == (_BUNDLE.value is None):
        raise UserError("give the weights as either --bundle=BUNDLE, or --base=WORKDIR and --ssr.")
    if _BUNDLE.value is not None and _SSR.value:
        raise UserError("--bundle brings its own super-resolution; leave --ssr out.")


def load_pipeline(is_conditional: bool = False) -> "LumierePipeline":
    """The pipeline that the flags name.

    Args:
      is_conditional: of a bundle, whether to take the base that is shown pixels.

    Raises:
      UserError: if it cannot be loaded.
    """
    from lumiere_jax.inference.pipeline import LumierePipeline

    if _BUNDLE.value is None:
        return LumierePipeline.from_checkpoints(
            _BASE.value, _SSR.value, text_folder=_TEXT_FOLDER.value
        )
    return LumierePipeline.from_pretrained(
        _BUNDLE.value,
        base="stunet_conditional" if is_conditional else None,
        distilled=_DISTILLED.value,
        text_folder=_TEXT_FOLDER.value,
    )


def run(command: str, arguments: Callable[["LumierePipeline"], dict[str, Any]]) -> None:
    """Makes the videos that the flags ask for, and writes them as they are done.

    Args:
      command: a method of `LumierePipeline` and the module of that name, which is noted in the
        files; or "sample", which calls the pipeline itself.
      arguments: the command's own arguments of the method, by the pipeline; reads pictures and
        videos before anything is computed.

    Raises:
      UserError: for flags, files or checkpoints that cannot be used.
    """
    if _OUTPUT.value is None:
        raise UserError("--output is missing; see --help.")
    check_weights_given()
    prompts = read_prompts(_PROMPT.value, _PROMPTS_FILE.value)
    prompts = [prompt for prompt in prompts for _ in range(_SAMPLES.value)]
    in_folder = _PROMPTS_FILE.value is not None or _SAMPLES.value > 1
    paths = output_paths(_OUTPUT.value, _FORMATS.value, len(prompts), in_folder)
    requests = [
        Request(prompt, _SEED.value + i, tuple(files))
        for i, (prompt, files) in enumerate(zip(prompts, paths, strict=True))
    ]

    from lumiere_jax.data.video_io import write_contact_sheet
    from lumiere_jax.inference import storyboard
    from lumiere_jax.runtime import devices
    from lumiere_jax.runtime.preemption import Interruption

    devices.keep_compiled_programs()
    pipeline = load_pipeline(command in _SHOWN_PIXELS)
    if _STYLE.value:
        pipeline = pipeline.with_style(_STYLE.value, _ALPHA.value)
    checkpoints = pipeline.fingerprints()
    if _EXPECT.value and _EXPECT.value != checkpoints:
        raise UserError(
            f"the checkpoints have the fingerprints {', '.join(checkpoints)}, but "
            f"{', '.join(_EXPECT.value)} were asked for; they were trained further, or replaced."
        )
    given = arguments(pipeline)
    method = pipeline if command == "sample" else getattr(pipeline, command)
    board = storyboard.Storyboard(_STORYBOARD.value) if _STORYBOARD.value else None
    with Interruption() as interruption:

        def write(first: int, videos: Any) -> None:
            for request, video in zip(requests[first:], videos, strict=False):
                _write(request, video, pipeline.fps, note(command, request, checkpoints))
            interruption.poll()

        videos = method(
            prompts=prompts,
            **given,
            seeds=[request.seed for request in requests],
            negative_prompt=_NEGATIVE_PROMPT.value,
            num_steps=_STEPS.value,
            sampler=_SAMPLER.value,
            time_power=_TIME_POWER.value,
            guidance_scale=_GUIDANCE_SCALE.value,
            guidance_from=_GUIDANCE_FROM.value,
            guidance_to=_GUIDANCE_TO.value,
            base_only=_BASE_ONLY.value,
            batch_size=_BATCH_SIZE.value,
            on_batch=write,
            on_estimate=board,
        )
    if board:
        print(board.write())
    if in_folder:
        sheet = Path(_OUTPUT.value) / "contact_sheet.png"
        write_contact_sheet(sheet, videos, prompts)
        print(sheet)


def note(command: str, request: Request, checkpoints: list[str], **values: Any) -> str:
    """What is kept in a video, by the flags of this run; see `video_note`.

    Args:
      command: see `run`.
      request: the video.
      checkpoints: fingerprints of the weights, in the order of the stages.
      **values: of flags, in place of those given.
    """
    given = {}
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        module = flags.FLAGS.find_module_defining_flag(name)
        is_ours = module.startswith("lumiere_jax") or module == sys.argv[0]
        if (
            (flag.present or flag.value != flag.default)
            and name not in provenance.NOT_NOTED
            and is_ours
        ):
            given[name] = flag.value
    given |= {"prompt": request.prompt, "seed": request.seed} | values
    return provenance.compose(command, given, checkpoints)


def _write(request: Request, video: Any, fps: float, comment: str) -> None:
    from lumiere_jax.inference.outputs import write_viewable

    for path in request.paths:
        write_viewable(path, video, fps, request.prompt, comment)
        print(path)
