"""Scores videos: `python -m lumiere_jax.eval --generated=DIR --real=DIR --output=DIR`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from lumiere_jax.cascade.sampling_options import define_sampling_flags
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from lumiere_jax.evaluation.command import Settings
    from lumiere_jax.evaluation.tasks import Task

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the card; a run that was interrupted continues there."
)
_TASK = flags.DEFINE_enum(
    "task", "folders", ["folders", "ucf101_zero_shot", "held_out"], "What to generate first."
)

# --- Videos that exist ---
_GENERATED = flags.DEFINE_list("generated", [], "Folders of generated videos, one per repeat.")
_REAL = flags.DEFINE_string("real", None, "Folder of real videos.")
_REAL_LIST = flags.DEFINE_string(
    "real_list", None, "Text file that lists which of them to use, like trainlist01.txt."
)
_REAL_STATISTICS = flags.DEFINE_string(
    "real_statistics", None, "Saved statistics, in place of --real."
)
_SAVE_STATISTICS = flags.DEFINE_string(
    "save_statistics", None, "Where to save the statistics of --real."
)
_MAX_REAL = flags.DEFINE_integer(
    "max_real", None, "Use at most this many real videos, at random.", lower_bound=2
)
_MAX_GENERATED = flags.DEFINE_integer(
    "max_generated", None, "Use at most this many generated videos, at random.", lower_bound=2
)
_SKIP_UNUSABLE = flags.DEFINE_bool(
    "skip_unusable", False, "Skip files that cannot be used, and list them."
)

# --- Videos to generate ---
_BASE = flags.DEFINE_string("base", None, "Workdir of the base stage.")
_SSR = flags.DEFINE_list("ssr", [], "Workdirs of the super-resolution stages, in order.")
_BASE_ONLY = flags.DEFINE_bool("base_only", False, "Leave super-resolution out.")
_PRESET = flags.DEFINE_string(
    "preset", "lumiere", "Protocol of ucf101_zero_shot: lumiere, make_a_video or svd."
)
_MAX_PER_CLASS = flags.DEFINE_integer(
    "max_per_class", None, "Videos per class of UCF101, for a trial.", lower_bound=1
)
_NUM_VIDEOS = flags.DEFINE_integer("num_videos", 64, "Videos of held_out.", lower_bound=2)
_REPEATS = flags.DEFINE_integer(
    "repeats", None, "Sets of videos, each with its own seed.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the first set.", lower_bound=0)
_SAMPLING = define_sampling_flags()
_SAMPLE_FRAMES = flags.DEFINE_integer("sample_frames", None, "Frames of generated videos.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Videos generated at once.", lower_bound=1)
_VIDEO_FORMAT = flags.DEFINE_enum("video_format", "mkv", ["mkv", "mp4"], "mkv is lossless.")
_TEXT_FOLDER = flags.DEFINE_string(
    "text_folder", None, "Folder of the T5 encoder, if it moved since training."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This is one process of a job on several hosts."
)
_FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the parameters.")
_SPACE = flags.DEFINE_integer("space", 1, "Devices that share one clip.")

# --- Clips ---
_NUM_FRAMES = flags.DEFINE_integer("num_frames", 16, "Frames of a clip.")
_FPS = flags.DEFINE_string("fps", "native", "Frame rate to resample videos to, or native.")
_STRIDE = flags.DEFINE_integer("stride", 1, "Take every n-th frame.")
_CLIP = flags.DEFINE_string("clip", "center", "Where in the video: center, first or random.")
_ASPECT = flags.DEFINE_string(
    "aspect", None, "Central crop, such as 4:3; by default as the task or profile says."
)
_SIZE = flags.DEFINE_string("size", None, "HEIGHTxWIDTH to scale to before anything else.")

# --- Figures ---
_PROFILE = flags.DEFINE_string(
    "profile", "unterthiner", "Whose FVD: unterthiner, magvit, stylegan-v, cd-fvd or tats."
)
_RESIZE = flags.DEFINE_string("resize", None, "In place of the profile's: tf1, torch or torch_aa.")
_CROP = flags.DEFINE_string("crop", None, "In place of the profile's: squash or center.")
_DDOF = flags.DEFINE_integer("ddof", None, "In place of the profile's: 1 (N - 1) or 0 (N).")
_BN_EPSILON = flags.DEFINE_float("bn_epsilon", None, "In place of the profile's: 1e-3 or 1e-5.")
_BOOTSTRAP = flags.DEFINE_integer(
    "bootstrap", 20, "Bootstrap draws for the error of FVD; 0 for none.", lower_bound=0
)
_I3D_WEIGHTS = flags.DEFINE_string(
    "i3d_weights", None, "I3D weights, in place of those of the extra [eval]."
)
_C3D_WEIGHTS = flags.DEFINE_string("c3d_weights", None, "conv3d_deepnetA_ucf.npz, for IS.")
_C3D_MEAN = flags.DEFINE_string("c3d_mean", None, "mean2.npz, for IS.")
_IS_SPLITS = flags.DEFINE_integer("is_splits", 1, "Splits of the Inception Score.", lower_bound=1)
_IS_EPSILON = flags.DEFINE_float("is_epsilon", 0.0, "1e-20 in TGANv2, 1e-7 in TGAN; 0 is exact.")
flags.mark_flags_as_required(["output"])

ASPECT_OF_UCF101 = "4:3"


def main(argv: Sequence[str]) -> None:
    """Scores what the flags describe."""
    from lumiere_jax.runtime import devices, distributed

    devices.split_cpu()
    from lumiere_jax.evaluation.command import evaluate

    settings = read_flags()
    with distributed.joined(_DISTRIBUTED.value):
        devices.keep_compiled_programs()
        evaluate(settings)


def read_flags() -> "Settings":
    """The flags as `evaluation.command.Settings`.

    Raises:
      UserError: if they contradict each other.
    """
    from lumiere_jax.evaluation import profiles
    from lumiere_jax.evaluation.clips import ClipRule
    from lumiere_jax.evaluation.command import Settings

    task = None if _TASK.value == "folders" else _task()
    if (task is None) == (not _GENERATED.value):
        raise UserError(
            "give either --generated=FOLDER, or --task=ucf101_zero_shot or held_out with --base."
        )
    if _TASK.value == "held_out" and (_REAL.value or _REAL_STATISTICS.value):
        raise UserError("--task=held_out has its own real videos; leave --real out.")
    if _REAL.value and _REAL_STATISTICS.value:
        raise UserError("give either --real or --real_statistics.")
    if (_SAVE_STATISTICS.value or _REAL_LIST.value or _MAX_REAL.value) and not _REAL.value:
        raise UserError("--save_statistics, --real_list and --max_real need --real=FOLDER.")
    if (_C3D_WEIGHTS.value is None) != (_C3D_MEAN.value is None):
        raise UserError("--c3d_weights and --c3d_mean go together.")
    c3d = None
    if _C3D_WEIGHTS.value is not None and _C3D_MEAN.value is not None:
        c3d = Path(_C3D_WEIGHTS.value), Path(_C3D_MEAN.value)
    profile = profiles.profile(
        _PROFILE.value,
        resize=_RESIZE.value,
        crop=_CROP.value,
        ddof=_DDOF.value,
        bn_epsilon=_BN_EPSILON.value,
    )
    aspect = _ASPECT.value
    if aspect is None:
        aspect = profile.aspect or (ASPECT_OF_UCF101 if _TASK.value == "ucf101_zero_shot" else "")
    rule = ClipRule(
        num_frames=_NUM_FRAMES.value,
        fps=_number("fps", _FPS.value) if _FPS.value != "native" else None,
        stride=_STRIDE.value,
        position=_CLIP.value,
        seed=_SEED.value,
        aspect=aspect,
        size=None if _SIZE.value is None else _size(_SIZE.value),
    )
    return Settings(
        output=Path(str(_OUTPUT.value)),
        generated=tuple(Path(folder) for folder in _GENERATED.value),
        task=task,
        real=_path(_REAL.value),
        real_list=_path(_REAL_LIST.value),
        real_statistics=_path(_REAL_STATISTICS.value),
        save_statistics=_path(_SAVE_STATISTICS.value),
        max_real=_MAX_REAL.value,
        max_generated=_MAX_GENERATED.value,
        skip_unusable=_SKIP_UNUSABLE.value,
        rule=rule,
        profile_name=_PROFILE.value,
        profile=profile,
        i3d_weights=_path(_I3D_WEIGHTS.value),
        c3d_weights=c3d,
        is_splits=_IS_SPLITS.value,
        is_epsilon=_IS_EPSILON.value,
        bootstrap=_BOOTSTRAP.value,
    )


def _task() -> "Task":
    from lumiere_jax.evaluation import profiles, tasks, ucf101

    if not _BASE.value:
        raise UserError(
            f"--task={_TASK.value} needs --base=WORKDIR, and --ssr for super-resolution."
        )
    generator = tasks.Generator(
        base=Path(_BASE.value),
        ssr=tuple(Path(workdir) for workdir in _SSR.value),
        batch_size=_BATCH_SIZE.value,
        suffix=_VIDEO_FORMAT.value,
        text_folder=_path(_TEXT_FOLDER.value),
        mesh={"data": -1, "fsdp": _FSDP.value, "space": _SPACE.value},
        options={
            **{field: flag.value for field, flag in _SAMPLING.items()},
            "num_frames": _SAMPLE_FRAMES.value,
            "base_only": _BASE_ONLY.value,
        },
    )
    repeats = _REPEATS.value or profiles.profile(_PROFILE.value).repeats
    if _TASK.value == "held_out":
        return tasks.HeldOut(
            generator=generator, num_videos=_NUM_VIDEOS.value, seed=_SEED.value, repeats=repeats
        )
    ucf101.requests(_PRESET.value, _SEED.value + repeats - 1, 1)  # checks the preset
    return tasks.Ucf101ZeroShot(
        generator=generator,
        preset=_PRESET.value,
        seed=_SEED.value,
        repeats=repeats,
        max_per_class=_MAX_PER_CLASS.value,
    )


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--{flag}={text} must be a number, or 'native'.") from None


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise UserError(f"--size={text} must be HEIGHTxWIDTH, as 240x320.")
    return int(parts[0]), int(parts[1])


if __name__ == "__main__":
    errors.run(main)
