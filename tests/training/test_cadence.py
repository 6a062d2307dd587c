import pytest

from lumiere_jax.cascade.config import TrainConfig
from lumiere_jax.training.cadence import Cadence, minutes_since


def due_steps(seconds_a_step=1.0, **fields):
    """The steps after which a run of seven evaluates, saves and shows samples."""
    since = {name: fields.pop(name, 0.0) for name in ("evaluated", "shown")}
    settings = TrainConfig(num_steps=7, **{"log_every": 1, "keep_best": 0} | fields)
    now = iter(range(100))
    cadence = Cadence(settings, lambda: next(now) * seconds_a_step, **since)
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


def test_the_clocks_of_a_run_that_was_interrupted_go_on():
    minutes = {"eval_minutes": 3.0, "sample_minutes": 5.0, "checkpoint_minutes": 9.0}
    found = due_steps(60.0, **minutes, evaluated=1.5, shown=7.0)
    assert found == [[2, 5, 7], [7], [1, 6, 7]]


def test_each_evaluation_has_a_checkpoint_if_the_best_one_is_kept():
    assert due_steps(eval_every=3, checkpoint_every=4, sample_every=0, keep_best=1) == [
        [3, 6, 7], [3, 4, 6, 7], [],
    ]  # fmt: skip
    minutes = {"checkpoint_minutes": 2.0, "eval_minutes": 3.0}
    found = due_steps(60.0, **minutes, keep_best=1)
    assert found[:2] == [[3, 6, 7], [2, 3, 4, 6, 7]]


def test_minutes_since_a_step():
    lines = [
        {"step": 20, "steps_per_second": 0.5}, {"step": 40, "steps_per_second": 0.25},
        {"step": 40, "eval_loss": 1.0}, {"step": 60, "steps_per_second": 1.0},
    ]  # fmt: skip
    assert minutes_since(lines, 0) == pytest.approx((40 + 80 + 20) / 60)
    assert minutes_since(lines, 40) == pytest.approx(20 / 60)
    assert minutes_since(lines, 60) == 0
