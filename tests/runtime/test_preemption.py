"""Signals to a process that runs alone; tests/pod has those to many."""

import signal
import threading

import pytest

from lumiere_jax.runtime.errors import Preempted
from lumiere_jax.runtime.preemption import Interruption


def test_interrupt_waits_for_the_poll(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        interruption.poll()
        signal.raise_signal(signal.SIGINT)
        assert "stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            interruption.poll()
        interruption.poll()  # it was told once
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_second_interrupt_does_not_wait():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interruption.poll()


def test_terminate_waits_for_the_poll(capfd):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # an impatient supervisor must not hinder the save
        assert "SIGTERM" in capfd.readouterr().err
        with pytest.raises(Preempted, match="SIGTERM"):
            interruption.poll()


def test_what_an_inner_loop_did_not_poll_for_ends_the_outer_one():
    with Interruption() as outer:
        with Interruption():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Preempted):
            outer.poll()


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Preempted)]
)
def test_what_nobody_polled_for_is_not_lost(number, error):
    with pytest.raises(error), Interruption(), Interruption():
        signal.raise_signal(number)
    with Interruption() as interruption:
        interruption.poll()  # it was told once


def test_another_error_comes_before_an_interrupt():
    with pytest.raises(KeyError), Interruption():
        signal.raise_signal(signal.SIGINT)
        raise KeyError
    with Interruption() as interruption:
        interruption.poll()


def test_inner_loop_learns_what_the_outer_one_was_told():
    with Interruption() as outer:
        signal.raise_signal(signal.SIGTERM)
        with Interruption() as inner, pytest.raises(Preempted):
            inner.poll()
        outer.poll()


def test_other_threads_leave_signals_alone():
    seen = []

    def enter():
        with Interruption() as interruption:
            interruption.poll()
            seen.append([signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [[signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]]
