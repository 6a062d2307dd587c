"""The watchdog in one process, and which errors mean a lost peer; tests/pod loses real ones."""

import os
import threading
from types import SimpleNamespace

import jax
import pytest

from lumiere_jax.runtime import watchdog
from lumiere_jax.runtime.errors import EXIT_PEER
from lumiere_jax.runtime.progress import Progress
from lumiere_jax.runtime.watchdog import Watchdog, peer_errors, peer_sign

# The end of the process is replaced by that of the thread alone.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Waiting:
    """A stream whose writes wait for an event."""

    def __init__(self, event):
        self.write = lambda text: event.wait(20)

    def isatty(self):
        return False

    def flush(self):
        pass


@pytest.fixture(name="ended")
def fixture_ended(monkeypatch):
    """An event with an `exit_code`, set when the process would have ended."""
    event = threading.Event()

    def end(code):
        event.exit_code = code
        event.set()
        raise SystemExit  # instead, ends the thread that asked for it

    monkeypatch.setattr(os, "_exit", end)
    return event


def test_silence_ends_the_process(ended, capfd):
    with Watchdog(0.2, "training") as dog:
        dog.beat("step 41")
        assert ended.wait(20)
    assert ended.exit_code == EXIT_PEER
    line = capfd.readouterr().err.strip()
    assert line.count("\n") == 0
    assert line.startswith("error: process 0 of 1: training made no progress for 0 s")
    assert "step 41" in line and "logs of the other processes" in line


def test_message_names_the_line_that_waits(ended, capfd):
    with Watchdog(0.2, "training"):
        Progress("x", 1, "steps", stream=Waiting(ended)).announce("waits in progress.py")
    assert "it waits at lumiere_jax/runtime/progress.py:" in capfd.readouterr().err


def test_beats_and_pauses_keep_it_quiet(ended, monkeypatch, capfd):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def after(seconds: float) -> bool:
        """Whether it has ended the process, after so long, by its clock, and a few looks at it."""
        clock.now += seconds
        return ended.wait(0.5)

    with Watchdog(0.2, "training") as dog:
        for step in range(3):
            assert not after(0.15)
            dog.beat(f"step {step}")
        with dog.paused():
            with dog.paused():
                assert not after(1000)
            assert not after(1000)
        assert not after(0.15)
        clock.now += 0.1
        assert ended.wait(20)
    assert "last: step 2" in capfd.readouterr().err


def test_zero_is_off():
    before = threading.active_count()
    with Watchdog(0, "training"):
        assert threading.active_count() == before


# As jaxlib 0.10.2 raises it; that it still does is seen in tests/pod.
LOST = ValueError(
    "UNKNOWN: Gloo all-reduce failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:1024"
)


def test_lost_peer_is_found_behind_another_error(monkeypatch, ended, capfd):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(SystemExit), peer_errors():
        try:
            raise LOST
        except ValueError as error:
            raise KeyError("the checkpoint was not written") from error
    assert ended.exit_code == EXIT_PEER
    line = capfd.readouterr().err.strip()
    assert line.startswith("error: process 0 of 2 lost another process (UNKNOWN: Gloo all-reduce")
    assert "logs of the other processes" in line and line.count("\n") == 0


def test_one_process_has_no_peers():
    with pytest.raises(ValueError, match="Gloo"), peer_errors():
        raise LOST


def test_other_errors_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    memory = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory", 8)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"), peer_errors():
        raise memory


# The codes are those of absl::StatusCode.
@pytest.mark.parametrize(
    ("error", "is_peer"),
    [
        (jax.errors.JaxRuntimeError("UNAVAILABLE: Task 1 heartbeat timeout.", 14), True),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out.", 4), True),
        (jax.errors.JaxRuntimeError("INTERNAL: NCCL operation: remote process exited", 13), True),
        (jax.errors.JaxRuntimeError("INTERNAL: a barrier in the name of a kernel", 13), False),
        (ValueError("UNAVAILABLE: a barrier in the text of a clip"), False),
        (ValueError("UNKNOWN: Gloo all-gather failed: [pair.cc:547] Connection closed"), True),
    ],
)
def test_the_code_of_an_error_tells_a_lost_peer(error, is_peer):
    assert (peer_sign(error) is not None) == is_peer
