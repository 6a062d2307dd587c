"""Distillation of a trained stage into one that samples in a few steps, round by round.

Each round is an ordinary run of the same stage, with a teacher: the first learns from a checkpoint
that was given, every other from the student before. The last one is in the workdir itself, the
others in `WORKDIR/round_STEPS`. All can be interrupted, resumed and sampled like any run. The
method "parallel" has one round.
"""

import itertools
import json
import os
from pathlib import Path

from etils import epath

from lumiere_jax.cascade.config import (
    ConfigDict,
    DistillationConfig,
    StageConfig,
    with_defaults,
)
from lumiere_jax.cascade.stage import create_schedule
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.diffusion.distillation import visited_log_snrs
from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.training.train import train

TEACHERS = ("stunet", "stunet_conditional", "ssr")
"""Stages that can be distilled."""


def check_teacher(config: ConfigDict, workdir: str | Path) -> None:
    """Raises a `UserError` if the teacher that a checkpoint holds cannot be distilled."""
    _check_stage(config.stage, workdir)
    if "distillation" in config and config.distillation.method == "parallel":
        raise UserError(
            f"{workdir} is a student that predicts several steps in one call, which can be no "
            "teacher; distil its own teacher."
        )


def _check_stage(stage: str, workdir: str | Path) -> None:
    if stage not in TEACHERS:
        raise UserError(
            f"{workdir} is a checkpoint of stage {stage!r}; the teacher of a distillation is of "
            f"one of the stages {', '.join(TEACHERS)}."
        )


def rounds(config: ConfigDict, workdir: str | Path) -> list[tuple[ConfigDict, epath.Path]]:
    """The config and the workdir of each run that a distillation consists of, in their order.

    A student is sampled by DDIM in as many steps as it has learned, without guidance, and its
    config says so. `init_from` is the teacher, and the workdir of the last student. Without a
    teacher, or with numbers of steps that do not fit one another, it is a `UserError`.
    """
    config = _with_outputs(config)
    settings, last = _checked(config), epath.Path(workdir).expanduser()
    teacher, scale, found = config.init_from, settings.guidance_scale, []
    all_steps = [settings.start_steps, *settings.steps]
    for number, (before, after) in enumerate(itertools.pairwise(all_steps), 1):
        place = last if number == len(settings.steps) else last / f"round_{after}"
        one = config.copy_and_resolve_references()
        one.init_from = str(teacher)
        one.seed += number  # other clips and noise in every round
        one.distillation.update({"start_steps": before, "guidance_scale": scale})
        one.distillation.steps = (after,)
        one.sampling.update({"sampler": "ddim", "num_steps": after, "guidance_scale": 1.0})
        found.append((one, place))
        teacher, scale = place, 1.0
    return found


def distil(
    config: ConfigDict,
    workdir: str | Path,
    profile_steps: tuple[int, int] | None = None,
    programs: Programs | None = None,
) -> TrainState:
    """Trains all rounds; the same call again goes on where it was, bit for bit on the CPU.

    See `rounds` for config and workdir, and `train` for the programs, and for the profile, which is
    of the last round, as is the final state.
    """
    todo = rounds(config, workdir)
    _refuse_other_run(config.init_from, *todo[-1])
    for number, (one, place) in enumerate(todo, 1):
        settings = one.distillation
        say(
            f"\n== round {number}/{len(todo)}: {settings.start_steps} steps of {one.init_from} "
            f"become {settings.steps[0]} =="
        )
        profiled = profile_steps if number == len(todo) else None
        state = train(one, place, profiled, programs)
    return state


def _with_outputs(config: ConfigDict) -> ConfigDict:
    """The config, whose network has as many outputs as the method takes."""
    settings = config.distillation
    if settings.method != "parallel":
        return config
    if len(settings.steps) != 1:
        raise UserError(
            f"distillation.steps={tuple(settings.steps)}: the method 'parallel' has one round; "
            "give the student's steps alone, as in --config.distillation.steps='(4,)'."
        )
    config = config.copy_and_resolve_references()
    with config.model.unlocked():
        config.model.out_channels = 3 * DistillationConfig.parse(settings).steps_at_once
    return config


def _checked(config: ConfigDict) -> DistillationConfig:
    _check_stage(config.stage, config.init_from)
    if not config.init_from:
        raise UserError(
            "a distillation needs a teacher: --config=configs/distill.py:from=WORKDIR, or "
            "--config.init_from=WORKDIR."
        )
    typed = StageConfig.parse(config)
    settings = typed.distillation
    assert settings is not None  # or it would be an ordinary run
    if not settings.guidance_scale >= 0:
        raise UserError(f"distillation.guidance_scale={settings.guidance_scale} must be 0 or more.")
    if not settings.steps:
        raise UserError("distillation.steps is empty; give the student's steps of every round.")
    all_steps = [settings.start_steps, *settings.steps]
    for number, (before, after) in enumerate(itertools.pairwise(all_steps)):
        # The first round may be of guidance alone.
        if after < 1 or before % after or (before == after and number):
            raise UserError(
                f"distillation.start_steps={settings.start_steps} and steps={settings.steps}: "
                f"{before} is no multiple of {after}; each number must divide the one before it, "
                "such as 32 and (16, 8, 4)."
            )
        visited_log_snrs(create_schedule(typed), before, after)
    return settings


def _refuse_other_run(teacher: str, config: ConfigDict, workdir: epath.Path) -> None:
    """Finds out before the first round, not after it, that another run is in the way."""
    if os.path.realpath(workdir) == os.path.realpath(teacher):
        raise UserError(f"--workdir={workdir} is the teacher's; choose another --workdir.")
    place = workdir / "config.json"
    if not place.exists():
        return
    saved = with_defaults(json.loads(place.read_text()))
    wanted = json.loads(json.dumps(config.to_dict(), default=list))
    if saved.get("distillation") != wanted["distillation"] or saved["stage"] != config.stage:
        raise UserError(
            f"--workdir={workdir} holds a run of stage {saved['stage']!r} that is not this "
            "distillation; choose another --workdir."
        )
