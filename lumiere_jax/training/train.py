"""The training loop of every stage, linear from top to bottom."""

import contextlib
import dataclasses
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from lumiere_jax import text
from lumiere_jax.cascade.config import ConfigDict, DistillationConfig
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.checkpoints import checkpoint, loss_plot
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.data import sources
from lumiere_jax.models.parameters import count, merge
from lumiere_jax.runtime import distributed, metric_writer
from lumiere_jax.runtime.distributed import say, seconds_of_primary
from lumiere_jax.runtime.errors import Preempted, UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.preemption import Interrupted, Interruption
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.progress import announced
from lumiere_jax.runtime.sharding import create_mesh, global_batch
from lumiere_jax.runtime.watchdog import Watchdog, peer_errors
from lumiere_jax.training import samples
from lumiere_jax.training.cadence import Cadence, Due, minutes_since
from lumiere_jax.training.held_out import Evaluation
from lumiere_jax.training.initialization import initial_state, state_shapes
from lumiere_jax.training.optimizer import create_optimizer
from lumiere_jax.training.reporting import ProfilerWindow, Reporter
from lumiere_jax.training.step import compile_step, null_text

COMPILING = "compiling the training step, this can take minutes"
COMPILING_MORE = "compiling what is due between steps, this can take minutes"


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
      UserError: for a config, data source or checkpoint that cannot be used, or a workdir that
        another run uses.
      NonFiniteError: if the loss or a gradient is not finite.
      Preempted: after SIGTERM to any process, when the checkpoint of the step is complete.
      Interrupted: likewise after Ctrl-C; a second one does not wait for the checkpoint.
    """
    begin = time.monotonic()
    text.pin_weights(config.text)
    stage = Stage.from_config(config)
    check_one_round(stage.config.distillation)
    warmup, num_steps = stage.config.optimizer.warmup_steps, stage.config.train.num_steps
    if warmup >= num_steps > 1:
        say(
            f"warning: the learning rate never reaches optimizer.learning_rate, as it rises for "
            f"optimizer.warmup_steps={warmup} and the run has train.num_steps={num_steps}"
        )
    with _claimed(make_workdir(workdir)) as folder:
        programs = Programs() if programs is None else programs
        return _train(config, stage, folder, profile_steps, programs, begin)


def _train(
    config: ConfigDict,
    stage: Stage,
    folder: epath.Path,
    profile_steps: tuple[int, int] | None,
    programs: Programs,
    begin: float,
) -> TrainState:
    """Trains in a workdir that is this run's alone; `begin` is when the run began."""
    settings = stage.config.train
    mesh = create_mesh(stage.config.mesh)
    say(distributed.start_report(mesh, settings.batch_size))
    source = open_source(stage, folder)
    config = note_fingerprint(config, source)
    say(f"stage {stage.name}: {len(source)} clips, global batch {settings.batch_size}")
    optimizer = create_optimizer(stage.config.optimizer, settings.num_steps)
    shapes = state_shapes(stage, optimizer, mesh)
    say(f"parameters: {count(shapes.trainable):,} trained, {count(shapes.frozen):,} frozen")
    checkpointer = checkpoint.Checkpointer(
        folder, keep_last=settings.keep_last, keep_best=settings.keep_best,
        keep_snapshots=settings.ema_snapshots > 0,
    )  # fmt: skip
    with contextlib.closing(checkpointer) as checkpoints:
        run = _Run(config, stage, folder, mesh, optimizer, shapes, programs, checkpoints)
        state = _first_state(run)
        write_config(config, folder)
        left_over, is_unfinished = _left_over(run, state), int(state.step) < settings.num_steps
        if any(left_over) or is_unfinished:
            between_steps = _BetweenSteps(run)
        if any(left_over):
            _catch_up(run, state, between_steps, left_over, begin)
        if is_unfinished:
            state = _take_steps(run, state, between_steps, source, profile_steps, begin)
        checkpoints.say_best()
    if distributed.is_primary():
        loss_plot.write(folder, stage.name)
    say(f"stage {stage.name}: done at step {int(state.step)}, in {folder}")
    return state


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays as it is while a stage is trained."""

    config: ConfigDict  # as checkpoints keep it
    stage: Stage
    folder: epath.Path
    mesh: Mesh
    optimizer: optax.GradientTransformation
    shapes: TrainState  # with their shardings
    programs: Programs
    checkpoints: checkpoint.Checkpointer


def _first_state(run: _Run) -> TrainState:
    """The state of the newest checkpoint or, without any, a fresh one."""
    if run.checkpoints.latest_step() is None:
        say(f"starting fresh because {run.folder} holds no complete checkpoint")
        run.checkpoints.forget_snapshots_after(0)
        return initial_state(run.stage, run.optimizer, run.mesh, run.programs)
    state = run.checkpoints.restore(run.shapes, run.config)
    step = int(state.step)
    say(f"restored step {step} from {run.folder}/{checkpoint.FOLDER}")
    run.checkpoints.forget_snapshots_after(step)
    if Cadence(run.stage.config.train).at(step).snapshots:  # the run ended before it was written
        run.checkpoints.save_snapshot(state)
    return state


def _left_over(run: _Run, state: TrainState) -> Due:
    """What was due after the restored step, if an interruption kept it from being done."""
    step, nothing = int(state.step), Due(False, False, False, False)
    if step == 0:
        return nothing
    due = _cadence(run, step).at(step)
    lines = metric_writer.read(run.folder)
    is_evaluated = any(line["step"] == step and "eval_loss" in line for line in lines)
    # Hosts may see a shared folder a moment apart.
    is_evaluated = distributed.agree(is_evaluated)
    is_shown = distributed.agree(samples.sheet(run.folder, step).exists())
    return nothing._replace(
        evaluates=due.evaluates and not is_evaluated, shows=due.shows and not is_shown
    )


def _cadence(run: _Run, step: int) -> Cadence:
    """What is due from a step on, whose clocks go on where an interruption stopped them."""
    settings = run.stage.config.train
    if step == 0 or not (settings.eval_minutes or settings.sample_minutes):
        return Cadence(settings)
    lines = [line for line in metric_writer.read(run.folder) if line["step"] <= step]
    evaluated = [line["step"] for line in lines if line.get("eval_loss") is not None]
    shown = [one for one in samples.steps(run.folder) if one <= step]
    passed = [minutes_since(lines, max(steps, default=0)) for steps in (evaluated, shown)]
    return Cadence(
        settings, evaluated=seconds_of_primary(passed[0]), shown=seconds_of_primary(passed[1])
    )


def _catch_up(
    run: _Run, state: TrainState, between_steps: "_BetweenSteps", left_over: Due, begin: float
) -> None:
    """Does what an interruption left out; `begin` is when the run began."""
    step = int(state.step)
    reporter = Reporter(run.stage, run.shapes.trainable, run.folder, step, begin)
    with contextlib.closing(reporter), Interruption() as interruption, peer_errors():
        between_steps(left_over, step, state, reporter, interruption.poll)


def _take_steps(
    run: _Run,
    state: TrainState,
    between_steps: "_BetweenSteps",
    source: sources.Source,
    profile_steps: tuple[int, int] | None,
    begin: float,
) -> TrainState:
    """Trains from a state to the last step; `begin` is when the run began."""
    first_step, settings = int(state.step), run.stage.config.train
    batches, empty = _batches(run, source, first_step), null_text(run.stage, run.mesh)
    cadence = _cadence(run, first_step)
    batch = global_batch(next(batches), run.mesh) | empty
    step_function = _compiled_step(run, batch)
    reporter = Reporter(run.stage, run.shapes.trainable, run.folder, first_step, begin)
    profiler = ProfilerWindow(run.folder, profile_steps)
    hang_timeout = settings.hang_timeout if jax.process_count() > 1 else 0
    with (
        contextlib.closing(reporter),
        contextlib.closing(profiler),
        Interruption() as interruption,
        Watchdog(hang_timeout, "training") as watchdog,
        _signs_of_life(watchdog, interruption, run.programs) as signs,
        peer_errors(),
    ):
        for step in range(first_step + 1, settings.num_steps + 1):
            profiler.before(step)
            state, metrics = step_function(state, batch)
            if step < settings.num_steps:
                batch = global_batch(next(batches), run.mesh) | empty  # while the devices work
            reporter.add(step, metrics)
            due = cadence.at(step)
            if any(due):
                reporter.flush()  # all of them wait for the step
            try:
                with reporter.goodput.lost():
                    signs.step = step
                    between_steps(due, step, state, reporter, signs.poll)
                interruption.poll()
            except (Preempted, Interrupted):
                reporter.flush()  # nothing that is not finite is saved
                run.checkpoints.save(state, run.config)
                run.checkpoints.wait()  # watched: another process may hang
                say(f"saved step {step}; the same command goes on from there")
                raise
            profiler.after(step, state)
            watchdog.beat(f"step {step}")
        run.checkpoints.wait()
    return state


class _SignsOfLife:
    """What the watchdog, and whoever looks, hears of what takes long after a step."""

    def __init__(self, watchdog: Watchdog, interruption: Interruption):
        self.step, self._told = 0, -1
        self._watchdog, self._interruption = watchdog, interruption

    def poll(self) -> None:
        """See `Interruption.poll`; this is progress."""
        self._watchdog.beat(f"what is due after step {self.step}")
        self._interruption.poll()

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """While something is compiled, and no process waits for another; says so once a step."""
        if self._told != self.step:
            self._told = self.step
            say(COMPILING_MORE)
        with self._watchdog.paused():
            yield


@contextlib.contextmanager
def _signs_of_life(
    watchdog: Watchdog, interruption: Interruption, programs: Programs
) -> Iterator[_SignsOfLife]:
    signs = _SignsOfLife(watchdog, interruption)
    with programs.compiling_within(signs.compiling):
        yield signs


def _batches(run: _Run, source: sources.Source, first_step: int) -> Iterator[dict[str, Any]]:
    """The part of each batch that this process reads."""
    stage, data = run.stage, run.stage.config.data
    batches = data_pipeline.train_batches(
        source,
        text.host_part(stage.text_encoder),
        batch_size=stage.config.train.batch_size,
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
    return text.device_part(batches, stage.text_encoder)


def _compiled_step(run: _Run, batch: dict[str, Any]) -> jax.stages.Compiled:
    """The step as a whole, on all processes; says so where that takes long."""
    with contextlib.ExitStack() as stack:
        announcement = announced(COMPILING, quiet=not distributed.is_primary())
        step_function = compile_step(
            run.stage, run.optimizer, run.mesh, run.shapes, batch, run.programs,
            on_compile=lambda: stack.enter_context(announcement),
        )  # fmt: skip
        distributed.wait_for_all("compiled")
    return step_function


class _BetweenSteps:
    """What is done now and then: held-out loss, checkpoints and samples."""

    def __init__(self, run: _Run):
        """Chooses the clips that are evaluated and shown."""
        stage, settings = run.stage, run.stage.config.train
        shows_clips = settings.sample_every and samples.needs_held_out(stage)
        reads_held_out = settings.eval_every or shows_clips
        held_out = sources.create_source(stage.config.data, "test") if reads_held_out else None
        self._run, self._evaluate, self._shown = run, None, None
        if settings.eval_every and held_out:
            self._evaluate = Evaluation(stage, run.mesh, held_out, run.programs)
        if settings.sample_every:
            self._shown = samples.choose(stage, held_out, run.programs)
        for name in sources.not_held_out(held_out) if held_out else ():
            say(f"{name} holds no clips out: held-out loss and samples are of training clips there")

    def __call__(
        self,
        due: Due,
        step: int,
        state: TrainState,
        reporter: Reporter,
        poll: Callable[[], None],
    ) -> None:
        """Does what is due; `poll` is called meanwhile, and may raise."""
        run, eval_loss = self._run, None
        if self._evaluate and due.evaluates:
            found = self._evaluate(state, poll)
            eval_loss = found["eval_loss"]
            reporter.write(step, **found)
        if due.saves:
            run.checkpoints.save(state, run.config, eval_loss)
        if due.snapshots:
            run.checkpoints.save_snapshot(state)
        if self._shown and due.shows:
            params = merge(state.ema, state.frozen)
            samples.write_training_samples(
                self._shown, run.stage, params, step, run.folder, run.mesh, poll
            )


def open_source(stage: Stage, workdir: epath.Path) -> sources.Source:
    """The clips of a run; says what is left out of them. Too few for a batch are a `UserError`."""
    source = sources.create_source(stage.config.data, "train")
    sources.say_report(source, workdir)
    if not stage.config.data.allow_small:
        sources.check_size(source, stage.config.train.batch_size)
    return source


def check_one_round(config: DistillationConfig | None) -> None:
    """Raises a `UserError` where several rounds of a distillation would be trained as one."""
    if config and len(config.steps) != 1:
        raise UserError(
            f"distillation.steps={config.steps} are several rounds, each a run of its own; use "
            "`lumiere_jax.main`, or `lumiere_jax.training.distill.distil`."
        )


@contextlib.contextmanager
def _claimed(folder: epath.Path) -> Iterator[epath.Path]:
    """Keeps a second run out of a workdir; the kernel forgets the claim of one that is killed.

    Not where many hosts share it: there, the claim of a host that is gone may stay for a while.
    """
    if jax.process_count() > 1 or "://" in str(folder):
        yield folder
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir={folder} is used by another training that runs; wait for its end, or "
                "choose another folder."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield folder


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
