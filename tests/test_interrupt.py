import signal
import threading

import pytest

from lumiere_jax.interrupt import DelayedInterrupt


def test_interrupt_waits_for_the_check(capsys):
    before = signal.getsignal(signal.SIGINT)
    with DelayedInterrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        assert "stopping after this step" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_second_interrupt_does_not_wait():
    with DelayedInterrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_leave_signals_alone():
    seen = []

    def enter():
        with DelayedInterrupt() as interrupt:
            interrupt.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
