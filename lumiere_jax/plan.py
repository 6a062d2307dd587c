"""Plans a run on a TPU slice, without one, by the TPU's own compiler.

    python -m lumiere_jax.plan --config=configs/stunet.py:full --topology=v5p:4x4x4

A check-up of the job follows, as that of `lumiere_jax.main --dry_run`, but for what needs its data.
Any config flag of training may follow, as in `--config.train.batch_size=64`. Compiling a network
of full size takes tens of minutes on two CPU cores; the result is kept in `--cache`. `--where`
tells where the time goes: kinds of work (convolutions, their gradients, norms, copies, …) and
modules, with work, bytes and what each costs of MFU.
`--mode=features --topology=v5e:2x2 --batches=4,16`, without a config, plans what the eval binary
computes of every video, the features of I3D; `--mode=text --topology=v5e:4x4 --batches=1,4` the
text encoder of the full configs, T5 XXL, with its parameters split over all chips.
`--topology=h100:8` bounds a step on GPUs, for which there is no compiler without one.

    python -m lumiere_jax.plan --mode=cascade --config=configs/stunet.py:full \
        --ssr=configs/ssr.py:full --topology=v6e:2x4

plans all of that for a prompt: how long it takes to its refined clip, by many steps, by those of
the configs and by those of distilled stages, and whether all stages fit in memory together. Sizes
of meshes are chosen for `--prompts` at once. The plans of the stages are kept one by one.
"""

import sys
from typing import Any, cast

from absl import flags
from ml_collections import config_flags

from lumiere_jax.planning import gpus, topology
from lumiere_jax.runtime import config_file, devices, errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import define_path

_CONFIG = config_file.define_flag("File of configs/, with a variant after a colon.")
_SSR = config_file.define_flag(
    "--mode=cascade: config file of what refines the clips, with a variant.", name="ssr"
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    f"A slice, such as {topology.EXAMPLES}; {topology.HERE}, the devices of this machine; "
    f"or GPUs, as in h100:8 ({', '.join(gpus.GPUS)}), for a bound without any compiler.",
    required=True,
)
_NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "Slices, joined by the data-centre network.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "sample", "training_samples", "features", "text", "cascade"],
    "Training or denoising step, one of the samples during training, I3D, T5 XXL, or from a prompt "
    "to a refined clip.",
)
_NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", None, "Frames of a sampled clip, 80 for the stage ssr if not given; 16 for I3D."
)
_CLIPS = flags.DEFINE_integer("clips", 30_000_000, "Clips whose time and chip-hours are stated.")
_SEARCH = flags.DEFINE_bool("search", False, "Try remat policies and batch sizes, and rank them.")
_BATCHES = flags.DEFINE_list(
    "batches", ["1", "2", "4", "8"], "Clips on each device, for --search or I3D; prompts for T5."
)
_PROMPTS = flags.DEFINE_integer(
    "prompts", 1, "--mode=cascade: prompts at once, or more if the weights ask for it.",
    lower_bound=1,
)  # fmt: skip
_DISTILLED_STEPS = flags.DEFINE_list(
    "distilled_steps", ["4", "2"], "--mode=cascade: steps of distilled stages, base and refinement."
)
_WHERE = flags.DEFINE_bool(
    "where", False, "Tell where the time of a step goes, by kind of work and by module."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON, one line for each plan, instead of text.")
_OUTPUT = define_path("output", None, "File that gets a line of JSON for every plan.")
_SAVE = define_path(
    "save", None, "Folder for the compiled training step; `lumiere_jax.main --programs` loads it."
)
_CACHE = define_path("cache", ".cache/plan", "Folder of earlier plans; empty for none.")

_NETWORKS = {"features": "I3D", "text": "T5 v1.1 XXL"}


def main(argv: list[str]) -> None:
    """Plans what the flags ask for."""
    if (_MODE.value in _NETWORKS) != (_CONFIG.value is None):
        raise UserError(
            "give --config=FILE to plan a stage, or --mode=features or text and no config."
        )
    if _TOPOLOGY.value != topology.HERE:
        topology.prepare_environment()
    elif _CONFIG.value is not None and -1 in _CONFIG.value.mesh.values():
        devices.split_cpu(_CONFIG.value.train.batch_size)  # as training does
    from lumiere_jax.planning import command

    command.run(
        command.Options(
            config=_CONFIG.value,
            name=_NETWORKS.get(_MODE.value) or _name("config", sys.argv),
            ssr=_SSR.value,
            ssr_name=_name("ssr", sys.argv) if _SSR.value else "",
            topology=_TOPOLOGY.value,
            num_slices=_NUM_SLICES.value,
            mode=cast("Any", _MODE.value),
            num_frames=_NUM_FRAMES.value,
            clips=_CLIPS.value,
            prompts=_PROMPTS.value,
            distilled_steps=tuple(_DISTILLED_STEPS.value),
            batches=_BATCHES.value if _SEARCH.value or _MODE.value in _NETWORKS else None,
            where=_WHERE.value,
            as_json=_JSON.value,
            output=_OUTPUT.value,
            cache=_CACHE.value,
            save=_SAVE.value,
        )
    )


def _name(flag: str, arguments: list[str]) -> str:
    """The config of a flag and its changed fields, as they stand on the command line."""
    file, start = config_flags.get_config_filename(flags.FLAGS[flag]), f"--{flag}."
    changes = [a.removeprefix(start) for a in arguments if a.startswith(start)]
    return " ".join([file, *changes])


if __name__ == "__main__":
    errors.run(main)
