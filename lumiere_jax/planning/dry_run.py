"""What a training job would do, without doing it: `lumiere_jax.main --dry_run`."""

import json
import math

from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.planning import report
from lumiere_jax.planning.check_up.finding import table
from lumiere_jax.planning.check_up.report import with_data
from lumiere_jax.planning.plan import make_plan
from lumiere_jax.planning.topology import present
from lumiere_jax.runtime.distributed import say, start_report
from lumiere_jax.runtime.sharding import create_mesh
from lumiere_jax.training.initialization import state_shapes
from lumiere_jax.training.optimizer import create_optimizer


def print_job(config: ConfigDict) -> None:
    """Prints config, mesh, parameters and plan of a job, on its devices, and a check-up of it.

    A job that could not start is a `UserError`.
    """
    stage, mesh = Stage.from_config(config, shapes_only=True), create_mesh(config.mesh)
    devices = start_report(mesh, config.train.batch_size)
    say(json.dumps(config.to_dict(), indent=2, default=list))
    say(devices)
    optimizer = create_optimizer(config.optimizer, config.train.num_steps)
    say(parameter_table(state_shapes(stage, optimizer, mesh)))
    plan = make_plan(config, present(), name=stage.name)
    say(report.text(plan))
    samples = None
    if config.train.sample_every:
        samples = make_plan(config, present(), mode="training_samples")
    say(table(with_data(stage, plan, samples)))


def parameter_table(state: TrainState) -> str:
    """Parameters by the top-level module that they belong to, and how they are split."""
    rows: list[tuple[str, ...]] = [("parameters of", "trained", "frozen", "on each device")]
    groups: dict[str, list[int]] = {}
    for column, tree in ((0, state.trainable), (1, state.frozen), (1, state.teacher)):
        for path, leaf in flatten_dict(tree).items():
            numbers = groups.setdefault(path[0], [0, 0, 0])
            numbers[column] += leaf.size
            numbers[2] += math.prod(leaf.sharding.shard_shape(leaf.shape))
    totals = [sum(numbers[i] for numbers in groups.values()) for i in range(3)]
    for name, numbers in [*sorted(groups.items()), ("all", totals)]:
        rows.append((name, *(f"{number:,}" for number in numbers)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))])
        for row in rows
    )
