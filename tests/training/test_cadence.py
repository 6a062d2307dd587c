from lumiere_jax.cascade.config import TrainConfig
from lumiere_jax.training.cadence import Cadence


def due_steps(seconds_a_step=1.0, **fields):
    """The steps after which a run of seven evaluates, saves and shows samples."""
    settings = TrainConfig(num_steps=7, **{"log_every": 1} | fields)
    now = iter(range(100))
    cadence = Cadence(settings, lambda: next(now) * seconds_a_step)
    due = [cadence.at(step) for step in range(1, 8)]
    return [[step for step, d in enumerate(due, 1) if d[i]] for i in range(3)]


def test_by_steps():
    found = due_steps(eval_every=3, checkpoint_every=7, sample_every=0)
    assert found == [[3, 6, 7], [7], []]


def test_the_last_step_is_always_saved():
    assert due_steps(eval_every=0, checkpoint_every=5, sample_every=10) == [[], [5, 7], [7]]


def test_by_the_clock():
    minutes = {"checkpoint_minutes": 1.0, "eval_minutes": 0.5, "sample_minutes": 2.0}
    assert due_steps(30.0, **minutes) == [[1, 2, 3, 4, 5, 6, 7], [2, 4, 6, 7], [4, 7]]
    assert due_steps(30.0, **minutes, sample_every=0)[2] == []


def test_the_clock_is_looked_at_where_metrics_are_written():
    found = due_steps(60.0, log_every=3, checkpoint_minutes=1.0, eval_minutes=1.0, eval_every=1)
    assert found[0] == found[1] == [3, 6, 7]
