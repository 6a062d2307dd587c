"""Scores videos: `python -m lumiere_jax.eval --generated=DIR --real=DIR --output=DIR`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath

from lumiere_jax.cascade.sampling_options import define_sampling_flags
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import define_path, define_paths

if TYPE_CHECKING:
    from lumiere_jax.evaluation.clips import ClipRule
    from lumiere_jax.evaluation.command import Settings
    from lumiere_jax.evaluation.profiles import Profile
    from lumiere_jax.evaluation.tasks import Task

TASKS = ["folders", "ucf101_zero_shot", "held_out"]
ASPECT_OF_UCF101 = "4:3"

define_path("output", None, "Folder of the card; an interrupted run continues there.")
flags.DEFINE_enum("task", "folders", TASKS, "What to generate first.")

# --- Videos that exist ---
define_paths("generated", [], "Folders of generated videos, one per repeat.")
define_path("real", None, "Folder of real videos.")
define_path("real_list", None, "Text file: which of them to use, like trainlist01.txt.")
define_path("real_statistics", None, "Saved statistics, in place of --real.")
define_path("save_statistics", None, "Where to save the statistics of --real.")
flags.DEFINE_integer("max_real", None, "Use at most this many real videos, at random.", 2)
flags.DEFINE_integer("max_generated", None, "Use at most this many generated ones, at random.", 2)
flags.DEFINE_bool("skip_unusable", False, "Skip files that cannot be used, and list them.")

# --- Videos to generate ---
define_path("base", None, "Workdir of the base stage.")
define_paths("ssr", [], "Workdirs of the super-resolution stages, in order.")
define_path("guide", None, "Workdir of a weaker base of the same kind, for autoguidance.")
flags.DEFINE_bool("base_only", False, "Leave super-resolution out.")
flags.DEFINE_string("preset", "lumiere", "ucf101_zero_shot: lumiere, make_a_video or svd.")
flags.DEFINE_integer("max_per_class", None, "Videos per class of UCF101, for a trial.", 1)
flags.DEFINE_integer("num_videos", 64, "held_out: number of videos.", 2)
define_path("data_folder", None, "held_out: folder of the clips, if not that of the training.")
flags.DEFINE_integer("repeats", None, "Sets of videos, each with its own seed.", 1)
flags.DEFINE_integer("seed", 0, "Seed of the first set.", 0)
_SAMPLING = define_sampling_flags()
flags.DEFINE_integer("sample_frames", None, "Frames of generated videos.")
flags.DEFINE_integer("batch_size", None, "Videos per batch. Default: 8, or what fills devices.", 1)
flags.DEFINE_enum("video_format", "mkv", ["mkv", "mp4"], "mkv is lossless.")
define_path("text_folder", None, "Folder of the T5 encoder, if it moved since training.")
flags.DEFINE_bool("distributed", False, "This is one process of a job on several hosts.")
flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the parameters.")
flags.DEFINE_integer("space", 1, "Devices that share one clip.")

# --- Clips ---
flags.DEFINE_integer("num_frames", 16, "Frames of a clip.")
flags.DEFINE_string("fps", "native", "Frame rate to resample videos to, or native.")
flags.DEFINE_integer("stride", 1, "Take every n-th frame.")
flags.DEFINE_string("clip", "center", "Where in the video: center, first or random.")
flags.DEFINE_string("aspect", None, "Central crop, such as 4:3; default: the task's or profile's.")
flags.DEFINE_string("size", None, "HEIGHTxWIDTH to scale to before anything else.")

# --- Figures ---
flags.DEFINE_string(
    "profile", "unterthiner", "Whose FVD: unterthiner, magvit, stylegan-v, cd-fvd or tats."
)
flags.DEFINE_string("resize", None, "In place of the profile's: tf1, torch or torch_aa.")
flags.DEFINE_string("crop", None, "In place of the profile's: squash or center.")
flags.DEFINE_integer("ddof", None, "In place of the profile's: 1 (N - 1) or 0 (N).")
flags.DEFINE_float("bn_epsilon", None, "In place of the profile's: 1e-3 or 1e-5.")
flags.DEFINE_integer("bootstrap", 20, "Bootstrap draws for the error of FVD; 0 for none.", 0)
define_path("i3d_weights", None, "In place of those of the extra [eval].")
define_path("c3d_weights", None, "conv3d_deepnetA_ucf.npz, for IS.")
define_path("c3d_mean", None, "mean2.npz, for IS.")
flags.DEFINE_integer("is_splits", 1, "Splits of the Inception Score.", 1)
flags.DEFINE_float("is_epsilon", 0.0, "1e-20 in TGANv2, 1e-7 in TGAN; 0 is exact.")
flags.mark_flags_as_required(["output"])


def main(argv: Sequence[str]) -> None:
    """Scores what the flags describe."""
    from lumiere_jax.runtime import devices, distributed

    devices.split_cpu()
    from lumiere_jax.evaluation.command import evaluate

    settings = read_flags()
    with distributed.joined(flags.FLAGS.distributed):
        devices.keep_compiled_programs()
        evaluate(settings)


def read_flags() -> "Settings":
    """The flags as settings."""
    from lumiere_jax.evaluation import profiles
    from lumiere_jax.evaluation.command import Settings

    values = flags.FLAGS
    task = None if values.task == "folders" else _task()
    _check_sources()
    changes = {name: values[name].value for name in ("resize", "crop", "ddof", "bn_epsilon")}
    profile = profiles.profile(values.profile, **changes)
    same = ("max_real", "max_generated", "skip_unusable", "is_splits", "is_epsilon", "bootstrap")
    paths = ("real", "real_list", "real_statistics", "save_statistics", "i3d_weights")
    given: dict[str, Any] = {name: values[name].value for name in same}
    given |= {name: _path(values[name].value) for name in paths}
    return Settings(
        output=_local(values.output),
        generated=tuple(map(_local, values.generated)),
        task=task,
        rule=_rule(profile),
        profile_name=values.profile,
        profile=profile,
        c3d_weights=(
            (_local(values.c3d_weights), _local(values.c3d_mean)) if values.c3d_mean else None
        ),
        **given,
    )


def _check_sources() -> None:
    """Checks that flags about where videos come from do not contradict each other."""
    values = flags.FLAGS
    if (values.task == "folders") == (not values.generated):
        raise UserError(
            "give either --generated=FOLDER, or --task=ucf101_zero_shot or held_out with --base."
        )
    if values.task == "held_out" and (values.real or values.real_statistics):
        raise UserError("--task=held_out has its own real videos; leave --real out.")
    if values.data_folder and values.task != "held_out":
        raise UserError("--data_folder belongs to --task=held_out; --real is a folder of videos.")
    if values.real and values.real_statistics:
        raise UserError("give either --real or --real_statistics.")
    if (values.save_statistics or values.real_list or values.max_real) and not values.real:
        raise UserError("--save_statistics, --real_list and --max_real need --real=FOLDER.")
    if (values.c3d_weights is None) != (values.c3d_mean is None):
        raise UserError("--c3d_weights and --c3d_mean go together.")


def _rule(profile: "Profile") -> "ClipRule":
    from lumiere_jax.evaluation.clips import ClipRule

    values = flags.FLAGS
    aspect = values.aspect
    if aspect is None:
        aspect = profile.aspect or (ASPECT_OF_UCF101 if values.task == "ucf101_zero_shot" else "")
    return ClipRule(
        num_frames=values.num_frames,
        fps=_fps(values.fps),
        stride=values.stride,
        position=values.clip,
        seed=values.seed,
        aspect=aspect,
        size=None if values.size is None else _size(values.size),
    )


def _task() -> "Task":
    from lumiere_jax.evaluation import profiles, tasks, ucf101

    values = flags.FLAGS
    if not values.base:
        raise UserError(f"--task={values.task} needs --base=WORKDIR, and --ssr if there is one.")
    generator = tasks.Generator(
        base=epath.Path(values.base),
        ssr=tuple(epath.Path(workdir) for workdir in values.ssr),
        guide=epath.Path(values.guide) if values.guide else None,
        batch_size=values.batch_size,
        suffix=values.video_format,
        text_folder=_path(values.text_folder),
        mesh={"data": -1, "fsdp": values.fsdp, "space": values.space},
        options={
            **{field: flag.value for field, flag in _SAMPLING.items()},
            "num_frames": values.sample_frames,
            "base_only": values.base_only,
        },
    )
    repeats = values.repeats or profiles.profile(values.profile).repeats
    shared: dict[str, Any] = {"generator": generator, "seed": values.seed, "repeats": repeats}
    if values.task == "held_out":
        folder = epath.Path(values.data_folder) if values.data_folder else None
        return tasks.HeldOut(num_videos=values.num_videos, data_folder=folder, **shared)
    ucf101.requests(values.preset, values.seed + repeats - 1, 1)  # checks the preset
    return tasks.Ucf101ZeroShot(preset=values.preset, max_per_class=values.max_per_class, **shared)


def _path(value: str | None) -> Path | None:
    return None if value is None else _local(value)


def _local(value: str) -> Path:
    """A path of this machine, which videos and figures need."""
    if "://" in value:
        raise UserError(
            f"{value} is in a bucket; mount that on every host, as with gcsfuse, and give the "
            "folder. Workdirs and --data_folder may stay there."
        )
    return Path(value)


def _fps(text: str) -> float | None:
    try:
        return None if text == "native" else float(text)
    except ValueError:
        raise UserError(f"--fps={text} must be a number, or 'native'.") from None


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise UserError(f"--size={text} must be HEIGHTxWIDTH, as 240x320.")
    return int(parts[0]), int(parts[1])


if __name__ == "__main__":
    errors.run(main)
