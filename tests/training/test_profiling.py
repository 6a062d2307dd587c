import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.profiling import ProfilerWindow, parse_window


def test_window_is_two_steps():
    assert parse_window("") is None
    assert parse_window("10:15") == (10, 15)
    assert parse_window("3:3") == (3, 3)


@pytest.mark.parametrize("text", ["10", "5:3", "0:3", "a:b", "1:2:3", "-1:3"])
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match=f"--profile_steps={text}: give the first and the last"):
        parse_window(text)


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
