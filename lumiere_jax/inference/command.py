"""The commands that make videos: their flags, the files they write, and the notes in these."""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lumiere_jax.cascade.sampling_options import define_sampling_flags
from lumiere_jax.data.text_file import NotText, read_text
from lumiere_jax.inference import provenance
from lumiere_jax.inference.tasks import FILES, TASKS, Task, VideoOptions
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.options import declared, define_flag
from lumiere_jax.runtime.path_flags import define_path, define_paths

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from lumiere_jax.inference.pipeline import LumierePipeline

_BASE = define_path("base", None, "Workdir of the base stage's run, or a checkpoint in it.")
_SSR = define_paths("ssr", [], "Workdirs of the super-resolution stages, in order.")
_BUNDLE = define_path(
    "bundle", None, "Bundle with all stages, in place of --base and --ssr: a folder or OWNER/NAME."
)
_GUIDE = define_path(
    "guide", None, "Workdir or bundle's stage of a weaker base of the same kind, for autoguidance."
)
_DISTILLED = flags.DEFINE_bool("distilled", False, "Use the bundle's distilled stages.")
_PROMPT = flags.DEFINE_string("prompt", None, "What the video should show.")
_PROMPTS_FILE = define_path("prompts_file", None, "Text file with one prompt per line.")
_OUTPUT = define_path(
    "output",
    None,
    "File to write: .mp4, .gif or .png (a contact sheet); a folder with --prompts_file or "
    "--samples.",
)
_FORMATS = flags.DEFINE_list("formats", ["mp4", "gif"], "Formats of the files in a folder.")
_SEED = define_flag(
    declared(VideoOptions)["seed"], default=0, help="Seed of the first video; each next adds 1."
)
_SAMPLES = flags.DEFINE_integer("samples", 1, "Videos per prompt.", lower_bound=1)
_STORYBOARD = define_path(
    "storyboard", None, "PNG to write: what the base stage estimated at each step."
)
_STYLE = define_path("style_checkpoint", None, "Workdir of a training run of a style.")
_TEXT_FOLDER = define_path(
    "text_folder", None, "Folder of the T5 encoder, if it moved since training."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Videos per batch.", lower_bound=1)
_EXPECT = flags.DEFINE_list(
    "expect_checkpoints", [], "Fingerprints that the weights must have, as --describe prints them."
)
_NEGATIVE_PROMPT, _BASE_ONLY, _ALPHA = (
    define_flag(declared(VideoOptions)[name]) for name in ("negative_prompt", "base_only", "alpha")
)
_SAMPLING = define_sampling_flags()
flags.disclaim_key_flags()  # what follows defines flags of the command that calls it

SUFFIXES = (".mp4", ".gif", ".png")


@dataclasses.dataclass(frozen=True)
class Request:
    """A video to make, and the files to write it to."""

    prompt: str
    seed: int
    paths: tuple[Path, ...]


def of(task: str) -> Callable[[Sequence[str]], None]:
    """The `main` of a command that does a task, with its flags."""
    define_flags(task)
    return lambda argv: run(task)


def define_flags(task: str) -> None:
    """Defines the flags of a task for the calling module, and lists the shared ones in its help."""
    flags.adopt_module_key_flags(sys.modules[__name__])
    for name in TASKS[task].files:
        define_path(name, None, FILES[name], required=True)
    for option in TASKS[task].declared():
        if option.name in TASKS[task].required:
            flags.mark_flag_as_required(define_flag(option))
        elif option.name not in ("style", "alpha"):
            define_flag(option)


def run(task: str) -> None:
    """Makes the videos that the flags ask for, and writes each batch as soon as it is done."""
    requests = _requests()

    from lumiere_jax.data.video_io import write_contact_sheet
    from lumiere_jax.inference import vocabulary
    from lumiere_jax.inference.storyboard import Storyboard
    from lumiere_jax.runtime.preemption import Interruption

    pipeline = load_pipeline(TASKS[task].base)
    for prompt in dict.fromkeys(request.prompt for request in requests):
        if doubt := vocabulary.doubt(pipeline.base[0].config, prompt):
            print(f"warning: {doubt}", file=sys.stderr, flush=True)
    if _STYLE.value:
        pipeline = pipeline.with_style(_STYLE.value, _ALPHA.value)
    checkpoints = _expected(pipeline.fingerprints())
    method = pipeline if TASKS[task].from_text else getattr(pipeline, task)
    board = Storyboard(_STORYBOARD.value) if _STORYBOARD.value else None
    with Interruption() as interruption:

        def write(first: int, videos: "Float[np.ndarray, 'batch time height width 3']") -> None:
            for request, video in zip(requests[first:], videos, strict=False):
                write_request(request, video, pipeline.fps, task, checkpoints)
            interruption.poll()

        videos = method(
            prompts=[request.prompt for request in requests],
            seeds=[request.seed for request in requests],
            **_task_arguments(TASKS[task], pipeline),
            **shared_arguments(),
            batch_size=_BATCH_SIZE.value,
            on_batch=write,
            on_estimate=board,
        )
    if board:
        print(board.write())
    if _writes_folder():
        sheet = Path(str(_OUTPUT.value)) / "contact_sheet.png"
        write_contact_sheet(sheet, videos, [request.prompt for request in requests])
        print(sheet)


def load_pipeline(base: str) -> "LumierePipeline":
    """The pipeline that the flags name; of a bundle, the one with this kind of base."""
    from lumiere_jax.inference.pipeline import LumierePipeline
    from lumiere_jax.runtime import devices
    from lumiere_jax.runtime.programs import Programs

    devices.keep_compiled_programs()
    shared: dict[str, Any] = {
        "guide": _GUIDE.value,
        "text_folder": _TEXT_FOLDER.value,
        "programs": Programs(CacheFolder.of_user()),
    }
    if _BUNDLE.value is not None:
        return LumierePipeline.from_pretrained(
            _BUNDLE.value,
            base=None if base == "stunet" else base,  # a bundle may have only another kind
            distilled=_DISTILLED.value,
            **shared,
        )
    return LumierePipeline.from_checkpoints(str(_BASE.value), _SSR.value, **shared)


def shared_arguments() -> dict[str, Any]:
    """The arguments of the pipeline that flags of every command set."""
    return {
        "negative_prompt": _NEGATIVE_PROMPT.value,
        "base_only": _BASE_ONLY.value,
        **{field: flag.value for field, flag in _SAMPLING.items()},
    }


def write_request(
    request: Request,
    video: "Float[np.ndarray, 'time height width 3']",
    fps: float,
    task: str,
    checkpoints: Sequence[str],
    **values: Any,
) -> None:
    """Writes the files of a video, with a note of how it was made, and prints their paths.

    The note has the fingerprints of the weights, and the flags with some `values` replaced.
    """
    from lumiere_jax.inference.outputs import write_viewable

    values = {"prompt": request.prompt, "seed": request.seed} | values
    note = provenance.compose(TASKS[task].command, _given_flags() | values, checkpoints)
    for path in request.paths:
        write_viewable(path, video, fps, request.prompt, note)
        print(path)


def check_weights_given() -> None:
    """Checks that the flags name a base, and only one."""
    if (_BASE.value is None) == (_BUNDLE.value is None):
        raise UserError("give the weights as either --bundle=BUNDLE, or --base=WORKDIR and --ssr.")
    if _BUNDLE.value is not None and _SSR.value:
        raise UserError("--bundle has its own super-resolution; leave --ssr out.")


def read_prompts(prompt: str | None, prompts_file: str | None) -> list[str]:
    """The prompt, or those of a file."""
    if prompt is not None and prompts_file is None:
        return [prompt]
    if prompts_file is None or prompt is not None:
        raise UserError("give either --prompt=TEXT or --prompts_file=FILE.")
    try:
        text = read_text(Path(prompts_file), most=2**24)
    except NotText as error:
        raise UserError(
            f"--prompts_file={prompts_file} cannot be read ({error}); give a UTF-8 text file with "
            "one prompt per line."
        ) from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UserError(f"--prompts_file={prompts_file} has no prompt; write one per line.")
    return prompts


def output_paths(
    output: str, formats: Sequence[str], num_videos: int, is_folder: bool
) -> list[tuple[Path, ...]]:
    """The files to write for each video; they are checked before anything is computed."""
    path = Path(output)
    if not is_folder:
        if path.suffix not in SUFFIXES:
            raise UserError(f"--output={output} must end with one of {', '.join(SUFFIXES)}.")
        if not path.parent.is_dir():
            raise UserError(f"--output={output}: there is no folder {path.parent}; create it.")
        return [(path,)]
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
    return [tuple(path / f"{i:04d}.{name}" for name in formats) for i in range(num_videos)]


def _requests() -> list[Request]:
    """The videos that the flags ask for."""
    if _OUTPUT.value is None:
        raise UserError("--output is missing; see --help.")
    check_weights_given()
    prompts = read_prompts(_PROMPT.value, _PROMPTS_FILE.value)
    prompts = [prompt for prompt in prompts for _ in range(_SAMPLES.value)]
    paths = output_paths(_OUTPUT.value, _FORMATS.value, len(prompts), _writes_folder())
    return list(map(Request, prompts, itertools.count(_SEED.value), paths))


def _expected(checkpoints: list[str]) -> list[str]:
    """The fingerprints of the checkpoints, if they are those of the flag."""
    if _EXPECT.value and _EXPECT.value != checkpoints:
        raise UserError(
            f"the checkpoints have the fingerprints {', '.join(checkpoints)}, but "
            f"{', '.join(_EXPECT.value)} were expected: the weights were trained further, or "
            "replaced."
        )
    return checkpoints


def _writes_folder() -> bool:
    return _PROMPTS_FILE.value is not None or _SAMPLES.value > 1


def _task_arguments(task: Task, pipeline: "LumierePipeline") -> dict[str, Any]:
    """The task's own arguments of the method; its files are read now."""
    from lumiere_jax.inference import inputs

    paths = {name: str(flags.FLAGS[name].value) for name in task.files}
    tell = functools.partial(print, file=sys.stderr, flush=True)
    own = {name: flags.FLAGS[name].value for name in task.options}
    return own | inputs.read(paths, pipeline.fps, pipeline.side, tell)


def _given_flags() -> dict[str, Any]:
    """The flags of this package that are not at their defaults, for the note in a video."""
    given = {}
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        module = str(flags.FLAGS.find_module_defining_flag(name))
        is_ours = module.startswith("lumiere_jax") or module == sys.argv[0]
        is_set = flag.present or flag.value != flag.default
        if is_ours and is_set and name not in provenance.NOT_NOTED:
            given[name] = flag.value
    return given
