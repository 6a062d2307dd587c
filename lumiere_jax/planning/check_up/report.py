"""The check-up of a job: all of its rows, with and without its data."""

from collections.abc import Iterator

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.sources import create_source
from lumiere_jax.planning.check_up import input as data_input
from lumiere_jax.planning.check_up import noise, optimization, run, source
from lumiere_jax.planning.check_up.finding import Finding
from lumiere_jax.planning.plan import Plan
from lumiere_jax.runtime.errors import UserError


def without_data(stage: Stage, plan: Plan) -> list[Finding]:
    """What can be said of a job where its data is not."""
    return [*of_config(stage), *of_run(stage, plan)]


def with_data(stage: Stage, plan: Plan, samples: Plan | None = None) -> list[Finding]:
    """What can be said of a job where its data is; the input is measured for seconds.

    `samples` is the plan of those that are made during training, if there are any.
    """
    data = stage.config.data
    try:
        clips = create_source(data, "train")
        rows = list(source.findings(source.look(clips, data), stage.config))
        delivery = data_input.measure(stage, clips)
    except UserError as error:
        rows = [Finding("source", "not looked at, and the input not measured", "look", str(error))]
        return [*of_config(stage), *rows, *of_run(stage, plan, samples)]
    return [*of_config(stage), *rows, *of_run(stage, plan, samples, delivery, len(clips))]


def of_config(stage: Stage) -> Iterator[Finding]:
    """What the config alone tells."""
    config = stage.config
    yield from noise.last_step(stage)
    yield from noise.training_times(stage)
    yield from noise.shift(stage, _before(stage))
    yield from noise.augmentation(stage)
    yield from optimization.warm_up(config)
    yield from optimization.zero_start(config.optimizer)
    yield from source.prompts(config)
    yield from source.pictures(config)


def of_run(
    stage: Stage,
    plan: Plan,
    samples: Plan | None = None,
    delivery: data_input.Delivery | None = None,
    clips: int | None = None,
) -> Iterator[Finding]:
    """What the plan tells; where they are known, with the input's rate and the source's clips."""
    yield from data_input.rate(delivery, plan)
    yield from data_input.bytes_to_devices(stage, plan)
    for step in filter(None, (plan, samples)):
        yield from run.memory(step)
    yield from run.pauses(stage, plan)
    yield from run.checkpoints(stage, plan)
    yield from run.length(stage, plan, clips)


def _before(stage: Stage) -> StageConfig | None:
    """The config of the stage that this one starts from; None where it is not here."""
    if not stage.config.init_from:
        return None
    try:
        return StageConfig.parse(checkpoint.load_config(stage.config.init_from))
    except UserError:
        return None
