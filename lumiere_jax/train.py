"""The training loop of every stage, linear from top to bottom."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lumiere_jax import checkpoint, loss_plot, samples
from lumiere_jax.atomic import write_text
from lumiere_jax.config import ConfigDict
from lumiere_jax.data import pipeline as data_pipeline
from lumiere_jax.errors import UserError
from lumiere_jax.interrupt import DelayedInterrupt
from lumiere_jax.metrics.writer import MetricsWriter
from lumiere_jax.progress import Announcement, Progress
from lumiere_jax.sharding import training_shardings
from lumiere_jax.stage import STAGES, Batch, Stage
from lumiere_jax.state import (
    Params,
    TrainState,
    create_optimizer,
    create_state,
    first_non_finite,
    leaf_name,
    merge,
    partition,
    update_ema,
)


class NonFiniteError(RuntimeError):
    """The loss or a gradient became NaN or infinite; the message names the first bad leaf."""


def train(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Trains one stage; the same call again resumes it, bit for bit on the CPU.

    Args:
      config: see `default_config`.
      workdir: folder for checkpoints, metrics, samples and the plot of the loss.

    Returns:
      The final state.

    Raises:
      UserError: for a config, data source or checkpoint that cannot be used.
      NonFiniteError: if the loss or a gradient is not finite.
    """
    # ---- set-up ---------------------------------------------------------------------------
    stage = Stage.from_config(config)
    workdir = make_workdir(workdir)
    replicated, by_clip = training_shardings(config.train.batch_size)
    source = data_pipeline.create_source(config.data, "train")
    if not config.data.allow_small:
        data_pipeline.check_size(source, config.train.batch_size)
    print(f"stage {stage.name}: {len(source)} clips, global batch {config.train.batch_size}")
    settings, num_steps = config.train, config.train.num_steps

    # ---- network, parameters and optimiser ------------------------------------------------
    optimizer = create_optimizer(config.optimizer, num_steps)

    def new_state(params: Params) -> TrainState:
        return create_state(*partition(params, stage.is_trainable), optimizer)

    shapes = jax.eval_shape(lambda key: new_state(stage.init_params(key)), jax.random.key(0))
    print(f"parameters: {count(shapes.trainable):,} trained, {count(shapes.frozen):,} frozen")

    # ---- resume, or start afresh ----------------------------------------------------------
    checkpoints = checkpoint.Checkpointer(
        workdir, keep_last=settings.keep_last, keep_best=settings.keep_best
    )
    if checkpoints.latest_step() is None:
        print(f"starting fresh because {workdir} holds no complete checkpoint")
        state = new_state(initial_params(stage))
    else:
        state = checkpoints.restore(shapes, config)
        print(f"restored step {int(state.step)} from {workdir}/{checkpoint.FOLDER}")
    first_step = int(state.step)
    write_config(config, workdir)

    # ---- input ----------------------------------------------------------------------------
    batches = data_pipeline.train_batches(
        source,
        stage.text_encoder,
        batch_size=settings.batch_size,
        seed=config.seed,
        start_step=first_step,
        allow_small=config.data.allow_small,
        num_threads=config.data.num_threads,
    )
    evaluate = Evaluation(stage) if settings.eval_every else None

    # ---- the step, data-parallel over all devices -----------------------------------------
    state = jax.device_put(state, replicated)
    step_function = jax.jit(make_step(stage, optimizer), out_shardings=replicated, donate_argnums=0)
    if first_step < num_steps:
        batch = jax.device_put(next(batches), by_clip)
        with Announcement("compiling the training step, this can take minutes"):
            step_function = step_function.lower(state, batch).compile()

    # ---- loop -----------------------------------------------------------------------------
    writer = MetricsWriter(workdir, first_step)
    progress = Progress(f"{stage.name}", num_steps, "steps", first_step)
    window = RateWindow(first_step)
    pending: tuple[int, dict[str, jax.Array]] | None = None
    try:
        with DelayedInterrupt() as interrupt:
            for step in range(first_step + 1, num_steps + 1):
                state, metrics = step_function(state, batch)
                if step < num_steps:
                    batch = jax.device_put(next(batches), by_clip)  # while the devices work
                if pending is not None:
                    report(pending, config, shapes.trainable, writer, progress, window)
                pending, eval_loss = (step, metrics), None
                evaluates = is_due(step, settings.eval_every, num_steps)
                saves = is_due(step, settings.checkpoint_every, num_steps) or step == num_steps
                shows = is_due(step, settings.sample_every, num_steps)
                if evaluates or saves or shows:  # all of them wait for the step
                    report(pending, config, shapes.trainable, writer, progress, window)
                    pending = None
                if evaluates:
                    eval_loss = evaluate(state)
                    writer.write(step, {"eval_loss": eval_loss})
                if saves:
                    checkpoints.save(state, config, eval_loss)
                if shows:
                    samples.write_training_samples(
                        stage, merge(state.ema, state.frozen), step, workdir
                    )
                interrupt.check()
    finally:
        writer.close()
        checkpoints.close()

    # ---- end ------------------------------------------------------------------------------
    loss_plot.write(workdir, stage.name)
    print(f"stage {stage.name}: done at step {int(state.step)}, in {workdir}")
    return state


def make_workdir(path: str | Path) -> Path:
    """Makes the folder of a run.

    Raises:
      UserError: if there can be no such folder, or nothing can be written into it.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(
            f"--workdir={path} cannot be used ({error}); choose a folder that can be written to."
        ) from error
    return path


def is_due(step: int, every: int, num_steps: int) -> bool:
    """Whether something happens at a step: `every` so many and at the last; never if 0."""
    return every > 0 and (step % every == 0 or step == num_steps)


def make_step(stage: Stage, optimizer: Any) -> Any:
    """The training step, `(state, batch) -> (state, metrics)`, to be compiled as a whole.

    Randomness is a function of the config's seed and the step. Metrics are "loss",
    "gradient_norm" and "bad_leaf", see `first_non_finite`.
    """
    config = stage.config

    def step_function(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss_function(trainable: Params) -> jax.Array:
            return stage.loss(merge(trainable, state.frozen), batch, key)

        loss, gradient = jax.value_and_grad(loss_function)(state.trainable)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trainable)
        trainable = jax.tree.map(jnp.add, state.trainable, updates)
        ema = update_ema(state.ema, trainable, state.step, config.optimizer.ema_decay)
        squares = sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient))
        metrics = {
            "loss": loss,
            "gradient_norm": jnp.sqrt(squares),
            "bad_leaf": first_non_finite(gradient),
        }
        return TrainState(state.step + 1, trainable, state.frozen, ema, optimizer_state), metrics

    return step_function


def initial_params(stage: Stage) -> Params:
    """Fresh parameters, with those of the stage before in their place.

    Raises:
      UserError: if the checkpoint named by `init_from` is of the wrong stage or does not fit, or
        an inflated stage has none.
    """
    config, expected = stage.config, STAGES[stage.name]
    if not config.init_from:
        if expected and not config.allow_untrained_start:
            raise UserError(
                f"stage {stage.name!r} starts from a trained stage {expected!r}: give its workdir "
                "with --config.init_from=WORKDIR (or set --config.allow_untrained_start=True "
                "with --config.train.trainable=all to train everything at once)."
            )
        print("initialising all parameters at random")
        return fresh_params(stage, {})
    saved_config, saved, step = checkpoint.load(config.init_from)
    if saved_config.stage != expected:
        raise UserError(
            f"init_from={config.init_from} is a checkpoint of stage {saved_config.stage!r}; stage "
            f"{stage.name!r} is initialised from {f'stage {expected!r}' if expected else 'none'}."
        )
    inherited = checkpoint.INHERITED_FIELDS
    checkpoint.check_same_fields(
        saved_config.to_dict(), config, inherited, config.init_from, "another --config.init_from"
    )
    print(f"initialising from step {step} of {config.init_from}")
    check_fit(jax.eval_shape(stage.init_params, jax.random.key(0)), saved, config.init_from)
    return fresh_params(stage, saved)


def fresh_params(stage: Stage, saved: Params) -> Params:
    """All parameters of a stage: the saved ones, and random ones where there are none."""
    saved = flatten_dict(saved)

    def init(key: jax.Array) -> Params:
        fresh = flatten_dict(stage.init_params(key))
        return unflatten_dict({path: x for path, x in fresh.items() if path not in saved})

    # XLA's own generator and no optimisation: thousands of small draws take long to compile.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    key = jax.random.key(stage.config.seed, impl="rbg")
    fresh = jax.jit(init).lower(key).compile(compiler_options=options)(key)
    return merge(jax.tree.map(jnp.asarray, unflatten_dict(saved)), fresh)


def check_fit(shapes: Params, saved: Params, place: str) -> None:
    """Makes sure that saved parameters have their place in a network, which may have more.

    Args:
      shapes: the network's parameters, or their shapes.
      saved: parameters of the stage before.
      place: where they are from, for messages.

    Raises:
      UserError: if a saved parameter has no place or another shape.
    """
    shapes = flatten_dict(shapes)
    for path, leaf in flatten_dict(saved).items():
        name = "/".join(path)
        if path not in shapes:
            raise UserError(f"{place}: this network has no parameter {name!r}; use equal sizes.")
        if shapes[path].shape != leaf.shape:
            raise UserError(
                f"{place}: parameter {name!r} has shape {leaf.shape}, and this network's "
                f"{shapes[path].shape}; give both stages the same model fields."
            )


class Evaluation:
    """Loss of the EMA on fixed held-out clips, noise and noise levels."""

    def __init__(self, stage: Stage):
        """Draws the clips, once."""
        config = stage.config
        source = data_pipeline.create_source(config.data, "test")
        batches = data_pipeline.train_batches(
            source,
            stage.text_encoder,
            batch_size=config.train.batch_size,
            seed=config.seed,
            allow_small=True,
        )
        self._batches = [next(batches) for _ in range(config.train.eval_batches)]

        def loss(state: TrainState, batch: Batch, index: int) -> jax.Array:
            return stage.loss(merge(state.ema, state.frozen), batch, jax.random.key(index))

        self._loss = jax.jit(loss)

    def __call__(self, state: TrainState) -> float:
        """Mean loss over the clips."""
        losses = [self._loss(state, batch, i) for i, batch in enumerate(self._batches)]
        return float(np.mean(losses))


class RateWindow:
    """Steps per second since the last report."""

    def __init__(self, step: int):
        """Starts at `step`."""
        self._step, self._time = step, time.monotonic()

    def rate(self, step: int) -> float:
        """Steps per second since the last call."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return rate


def check_finite(metrics: dict[str, jax.Array], step: int, trainable: Params) -> None:
    """Raises NonFiniteError, with the first bad leaf's name, if a step went wrong."""
    bad, loss = int(metrics["bad_leaf"]), float(metrics["loss"])
    if bad >= 0 or not np.isfinite(loss):
        where = f"the gradient of {leaf_name(trainable, bad)!r}" if bad >= 0 else "the loss alone"
        raise NonFiniteError(
            f"step {step}: loss {loss}; the first value that is not finite is in {where}. Nothing "
            "of this step was saved. Lower the learning rate, look at the data of this step, or "
            "compute in float32."
        )


def report(
    pending: tuple[int, dict[str, jax.Array]],
    config: ConfigDict,
    trainable: Params,
    writer: MetricsWriter,
    progress: Progress,
    window: RateWindow,
) -> None:
    """Checks and writes the metrics of a step that the device has left behind."""
    step, metrics = pending
    check_finite(metrics, step, trainable)
    loss = float(metrics["loss"])
    if step % config.train.log_every == 0 or step == config.train.num_steps:
        rate = window.rate(step)
        scalars = {
            "loss": loss,
            "gradient_norm": float(metrics["gradient_norm"]),
            "steps_per_second": rate,
            "clips_per_second": rate * config.train.batch_size,
        }
        writer.write(step, scalars)
    clips = config.train.batch_size
    progress.update(step, f"loss {loss:.4f}, {clips} clips/step")


def count(params: Params) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Writes the resolved config to `WORKDIR/config.json`, for people to read."""
    write_text(workdir / "config.json", json.dumps(config.to_dict(), indent=2, default=list) + "\n")
