import io

import pytest

from lumiere_jax.runtime import progress
from lumiere_jax.runtime.progress import Progress, announced, duration


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch):
    """A clock that moves only when a test says so: `clock[0] += seconds`."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"), (7810, "2 h 10 min"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_line_tells_rate_and_time_left(clock):
    stream = io.StringIO()
    bar = Progress("t2i", 100, "steps", stream=stream)
    clock[0] += 20
    bar.update(40, "loss 0.5")
    assert stream.getvalue() == "t2i: 40/100 steps, 2 steps/s, 30 s left, loss 0.5\n"
    clock[0] += 30
    bar.update(100)
    assert stream.getvalue().splitlines()[-1] == "t2i: 100/100 steps, 2 steps/s, took 50 s"


def test_resumed_run_counts_its_own_steps_alone(clock):
    stream = io.StringIO()
    bar = Progress("t2i", 100, "steps", start=80, stream=stream)
    clock[0] += 20
    bar.update(90)
    assert stream.getvalue() == "t2i: 90/100 steps, 0.5 steps/s, 20 s left\n"


def test_prints_now_and_then_and_always_at_the_end(clock):
    stream = io.StringIO()
    bar = Progress("t2i", 1000, "steps", stream=stream)
    for done in range(1, 1001):
        clock[0] += 0.05  # 50 s in all
        bar.update(done)
    lines = stream.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    assert lines[-1].startswith("t2i: 1000/1000 steps")
    bar.update(1000, force=True)
    assert len(stream.getvalue().splitlines()) == len(lines) + 1


def test_terminal_shows_one_line(clock):
    stream = Terminal()
    bar = Progress("t2i", 3, "steps", stream=stream)
    for done in (1, 2, 3):
        clock[0] += 1
        bar.update(done)
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\r\x1b[K") == 3


def test_compilation_does_not_count_when_advancing(clock):
    stream = io.StringIO()
    bar = Progress("base", 5, "steps", stream=stream)
    clock[0] += 600  # compiling
    bar.advance()
    assert stream.getvalue() == "base: 1/5 steps\n"
    for _ in range(4):
        clock[0] += 2
        bar.advance()
    assert stream.getvalue().splitlines()[-1] == "base: 5/5 steps, 0.5 steps/s, took 8 s"


def test_announcement(clock):
    stream = io.StringIO()
    with announced("compiling", stream):
        assert stream.getvalue() == "compiling ...\n"
        clock[0] += 65
    assert stream.getvalue().splitlines()[-1] == "compiling: done in 1 min 05 s"
    with pytest.raises(ValueError), announced("reading", stream):
        raise ValueError
    assert stream.getvalue().splitlines()[-1] == "reading ..."
