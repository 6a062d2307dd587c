"""The training loop of every stage, linear from top to bottom."""

import contextlib
import json
import time
from pathlib import Path

import jax
from etils import epath

from lumiere_jax import text
from lumiere_jax.cascade.config import ConfigDict, DistillationConfig
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.checkpoints import checkpoint, loss_plot
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.data import sources
from lumiere_jax.models.parameters import count, merge
from lumiere_jax.runtime import distributed
from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import Preempted, UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.preemption import Interruption
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.progress import announced
from lumiere_jax.runtime.sharding import create_mesh, global_batch
from lumiere_jax.runtime.watchdog import Watchdog, peer_errors
from lumiere_jax.training import samples
from lumiere_jax.training.cadence import Cadence
from lumiere_jax.training.held_out import Evaluation
from lumiere_jax.training.initialization import initial_state, state_shapes
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.reporting import ProfilerWindow, Reporter
from lumiere_jax.training.step import compile_step

COMPILING = "compiling the training step, this can take minutes"


def train(
    config: ConfigDict,
    workdir: str | Path,
    profile_steps: tuple[int, int] | None = None,
    programs: Programs | None = None,
) -> TrainState:
    """Trains one stage; the same call again resumes it, bit for bit on the CPU.

    Every process of a multi-host job makes this call with the same arguments.

    Args:
      config: see `default_config`.
      workdir: folder for checkpoints, metrics, samples and the plot of the loss; one that all
        processes share.
      profile_steps: first and last step of a profile, written to `WORKDIR/profile`.
      programs: where compiled ones are found and kept, as those of a run that is resumed.

    Returns:
      The final state.

    Raises:
      UserError: for a config, data source or checkpoint that cannot be used.
      NonFiniteError: if the loss or a gradient is not finite.
      Preempted: after SIGTERM to any process, when the checkpoint of the step is complete.
    """
    # ---- set-up ---------------------------------------------------------------------------
    begin = time.monotonic()
    text.pin_weights(config.text)
    stage = Stage.from_config(config)
    check_one_round(stage.config.distillation)
    settings, data, num_steps = stage.config.train, stage.config.data, stage.config.train.num_steps
    folder = make_workdir(workdir)
    mesh = create_mesh(stage.config.mesh)
    say(distributed.start_report(mesh, settings.batch_size))
    source = sources.create_source(data, "train")
    sources.say_report(source, folder)
    if not data.allow_small:
        sources.check_size(source, settings.batch_size)
    config = note_fingerprint(config, source)
    say(f"stage {stage.name}: {len(source)} clips, global batch {settings.batch_size}")

    # ---- network, parameters and optimizer ------------------------------------------------
    optimizer = create_optimizer(stage.config.optimizer, num_steps)
    shapes = state_shapes(stage, optimizer, mesh)
    say(f"parameters: {count(shapes.trainable):,} trained, {count(shapes.frozen):,} frozen")

    # ---- resume, or start afresh ----------------------------------------------------------
    checkpoints = checkpoint.Checkpointer(
        folder, keep_last=settings.keep_last, keep_best=settings.keep_best
    )
    if checkpoints.latest_step() is None:
        say(f"starting fresh because {folder} holds no complete checkpoint")
        state = initial_state(stage, optimizer, mesh)
    else:
        state = checkpoints.restore(shapes, config)
        say(f"restored step {int(state.step)} from {folder}/{checkpoint.FOLDER}")
    first_step = int(state.step)
    write_config(config, folder)

    # ---- input: every process reads its own part of each batch ----------------------------
    batches = data_pipeline.train_batches(
        source,
        text.host_part(stage.text_encoder),
        batch_size=settings.batch_size,
        seed=stage.config.seed,
        start_step=first_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        allow_small=data.allow_small,
        num_threads=data.num_threads,
        flip=data.flip,
        crop=stage.crop,
        draw_mask=stage.draw_mask,
    )
    batches = text.device_part(batches, stage.text_encoder)
    shows_clips = settings.sample_every and samples.needs_held_out(stage)
    reads_held_out = settings.eval_every or shows_clips
    held_out = sources.create_source(data, "test") if reads_held_out else None
    programs = Programs() if programs is None else programs
    evaluate = None
    if settings.eval_every and held_out:
        evaluate = Evaluation(stage, mesh, held_out, programs)
    shown = samples.choose(stage, held_out, programs) if settings.sample_every else None

    # ---- the step, compiled as a whole ----------------------------------------------------
    if first_step < num_steps:
        batch = global_batch(next(batches), mesh)
        with contextlib.ExitStack() as stack:
            announcement = announced(COMPILING, quiet=not distributed.is_primary())
            step_function = compile_step(
                stage, optimizer, mesh, state, batch, programs,
                on_compile=lambda: stack.enter_context(announcement),
            )  # fmt: skip
            distributed.wait_for_all("compiled")

    # ---- loop -----------------------------------------------------------------------------
    reporter = Reporter(stage, shapes.trainable, folder, first_step, begin)
    profiler = ProfilerWindow(folder, profile_steps)
    cadence = Cadence(settings)
    hang_timeout = settings.hang_timeout if jax.process_count() > 1 else 0
    try:
        with (
            Interruption() as interruption,
            Watchdog(hang_timeout, "training") as watchdog,
            peer_errors(),
        ):
            for step in range(first_step + 1, num_steps + 1):
                profiler.before(step)
                state, metrics = step_function(state, batch)
                if step < num_steps:
                    batch = global_batch(next(batches), mesh)  # while the devices work
                reporter.add(step, metrics)
                eval_loss = None
                evaluates, saves, shows = due = cadence.at(step)
                if any(due):
                    reporter.flush()  # all of them wait for the step
                try:
                    with reporter.goodput.lost():
                        if evaluate and evaluates:
                            found = evaluate(state, interruption.poll)
                            eval_loss = found["eval_loss"]
                            reporter.write(step, **found)
                        if saves:
                            checkpoints.save(state, config, eval_loss)
                        if shown and shows:
                            params = merge(state.ema, state.frozen)
                            samples.write_training_samples(shown, stage, params, step, folder, mesh)
                    interruption.poll()
                except Preempted:
                    reporter.flush()  # nothing that is not finite is saved
                    checkpoints.save(state, config)
                    checkpoints.wait()  # watched: another process may hang
                    raise
                profiler.after(step, state)
                watchdog.beat(f"step {step}")
            checkpoints.wait()
    finally:
        profiler.close()
        reporter.close()
        checkpoints.close()

    # ---- end ------------------------------------------------------------------------------
    if distributed.is_primary():
        loss_plot.write(folder, stage.name)
    say(f"stage {stage.name}: done at step {int(state.step)}, in {folder}")
    return state


def check_one_round(config: DistillationConfig | None) -> None:
    """Raises a `UserError` where several rounds of a distillation would be trained as one."""
    if config and len(config.steps) != 1:
        raise UserError(
            f"distillation.steps={config.steps} are several rounds, each a run of its own; use "
            "`lumiere_jax.main`, or `lumiere_jax.training.distill.distil`."
        )


def make_workdir(place: str | Path) -> epath.Path:
    """Makes the folder of a run, local or in a bucket; a `UserError` if it cannot be used."""
    path = epath.Path(place).expanduser()
    probe = path / f".probe-{jax.process_index()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # a bucket's file system has errors of its own
        raise UserError(
            f"--workdir={path} cannot be used ({error}); choose a folder that can be written to."
        ) from error
    return path


def note_fingerprint(config: ConfigDict, source: sources.Source) -> ConfigDict:
    """A copy of a run's config with the fingerprint of its source, which must be one for all."""
    name = source.fingerprint
    if not distributed.is_same_everywhere(name):
        raise UserError(
            "the processes of this run read different data, each from its own disk; give every "
            "host the same files."
        )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.fingerprint = name
    return config


def write_config(config: ConfigDict, workdir: epath.Path) -> None:
    """Writes the resolved config to `WORKDIR/config.json`, for people to read."""
    if not distributed.is_primary():
        return
    write_text(workdir / "config.json", json.dumps(config.to_dict(), indent=2, default=list) + "\n")
