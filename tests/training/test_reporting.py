import time

import pytest

from lumiere_jax.training.reporting import Goodput


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
