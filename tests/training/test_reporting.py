import time

import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.reporting import Goodput, ProfilerWindow, parse_profile_steps


def test_goodput_is_the_share_that_was_not_lost(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    goodput = Goodput(90.0)  # ten seconds of start
    now[0] += 30.0  # training
    assert goodput.value() == pytest.approx(30 / 40)
    with goodput.lost():
        now[0] += 20.0
    assert goodput.value() == pytest.approx(30 / 60)
    with pytest.raises(KeyError), goodput.lost():
        now[0] += 60.0
        raise KeyError
    assert goodput.value() == pytest.approx(30 / 120)


def test_profile_is_of_two_numbers():
    assert parse_profile_steps("") is None
    assert parse_profile_steps("10:15") == (10, 15)
    assert parse_profile_steps("3:3") == (3, 3)


@pytest.mark.parametrize("text", ["10", "5:3", "0:3", "a:b", "1:2:3", "-1:3"])
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match=f"--profile_steps={text}: give the first and the last"):
        parse_profile_steps(text)


def test_profile_of_some_steps_is_written(tmp_path):
    window, traced = ProfilerWindow(tmp_path, (2, 3)), []
    for step in range(1, 6):
        window.before(step)
        result = jax.jit(lambda x: x + 1)(jnp.ones(3))
        window.after(step, result)
        traced.append(list((tmp_path / "profile").rglob("*.xplane.pb")))
    window.close()
    assert [len(files) for files in traced] == [0, 0, 1, 1, 1]


def test_a_run_that_ends_early_writes_what_there_is(tmp_path):
    window = ProfilerWindow(tmp_path, (1, 99))
    window.before(1)
    window.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
