"""Trains one stage: `python -m lumiere_jax.main --config=configs/stunet.py:tiny --workdir=DIR`.

With `configs/distill.py` it distils a trained one, in several rounds.
"""

from absl import flags

from lumiere_jax.runtime import config_file, errors
from lumiere_jax.runtime.path_flags import define_path

_CONFIG = config_file.define_flag("File of configs/, with a variant after a colon.")
_WORKDIR = define_path(
    "workdir",
    None,
    "Folder for checkpoints, metrics and samples; the same one resumes.",
    required=True,
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One process of a job of many hosts, as its environment describes it."
)
_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", "", "FIRST:LAST, the steps of a profile in WORKDIR/profile."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Print config, mesh, parameters, plan and a check-up of this job, and train nothing.",
)
_PROGRAMS = define_path(
    "programs",
    None,
    "Folder of compiled steps, made by `lumiere_jax.plan --save` or an earlier run. Name none that "
    "you do not trust: what is in it is run.",
)
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Trains the stage that the flags describe."""
    from lumiere_jax.runtime import devices, distributed
    from lumiere_jax.runtime.cache_folder import CacheFolder
    from lumiere_jax.runtime.made_ahead import MadeAhead
    from lumiere_jax.runtime.programs import Programs
    from lumiere_jax.training.reporting import parse_profile_steps

    profile_steps, config = parse_profile_steps(_PROFILE_STEPS.value), _CONFIG.value
    if not _DRY_RUN.value and not _DISTRIBUTED.value and -1 in config.mesh.values():
        devices.split_cpu(config.train.batch_size)
    with distributed.joined(_DISTRIBUTED.value):
        devices.keep_compiled_programs()
        if _DRY_RUN.value:
            from lumiere_jax.planning import dry_run

            if "distillation" in config:  # the first round costs most
                from lumiere_jax.training import distill

                config, _ = distill.rounds(config, _WORKDIR.value)[0]
            dry_run.print_job(config)
            return
        made_ahead = MadeAhead(_PROGRAMS.value) if _PROGRAMS.value else None
        programs = Programs(CacheFolder.of_user(), made_ahead=made_ahead)
        if "distillation" in config:
            from lumiere_jax.training.distill import distil

            distil(config, _WORKDIR.value, profile_steps, programs)
        else:
            from lumiere_jax.training.train import train

            train(config, _WORKDIR.value, profile_steps, programs)


if __name__ == "__main__":
    errors.run(main)
