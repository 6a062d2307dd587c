"""Motions are read from tracks that are drawn by `data.motions`, with noise."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import signal

from lumiere_jax.data import motions
from lumiere_jax.metrics import motion_reading as reading

TIMES = np.linspace(0.0, 1.0, 80)
HALF = (0.14, 0.14)
ANY = st.one_of(*(st.sampled_from([m.name for m in ms]) for _, ms in motions.KINDS.values()))


def track(name, seed, noise=0.005, times=TIMES):
    generator = np.random.default_rng(seed)
    path = motions.MOTIONS[name].draw(HALF, generator)
    return path, path(times) + generator.normal(0.0, noise, (len(times), 2))


def read(centres, times=TIMES):
    return reading.read(times, centres, HALF, 0.035)


def means_the_same(name, other):
    """Whether a clip of one may count as the other but for its frequency."""
    first, second = motions.MOTIONS[name], motions.MOTIONS[other]
    kind = type(first)
    if kind is not type(second):  # a bounce is also a motion there and back
        return {kind, type(second)} == {motions.Bounce, motions.Phases}
    if kind is motions.Circle:
        return first.sense == second.sense
    return name == other if kind is not motions.Swing else first.axis == second.axis


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    name=ANY, other=ANY, seed=st.integers(0, 2**32 - 1), frames=st.sampled_from([16, 80])
)
def test_a_motion_is_read_as_what_it_is_and_as_no_other(name, other, seed, frames):
    hypothesis.assume(frames == 80 or "quickly" not in name)
    times = np.linspace(0.0, 1.0, frames)
    path, centres = track(name, seed, 0.002 if frames == 16 else 0.005, times)
    seen = read(centres, times)
    assert reading.has_direction(name, seen)
    assert reading.has_order(name, times, centres) in (True, None)
    assert reading.has_frequency(name, seen) in (True, None)
    if not means_the_same(name, other):
        assert not reading.has_direction(other, seen)
    if isinstance(path, motions.Polyline):
        assert len(seen.turns) == len(path.times) - 2
        np.testing.assert_allclose(seen.turns, path.times[1:-1], atol=0.05)
        assert seen.cycles is None and seen.error < 0.01
    else:
        assert seen.cycles == pytest.approx(path.cycles, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_the_frequency_is_that_of_a_periodogram(seed):
    """Also where frames are missing, as behind another object; there, Lomb's is the reference."""
    path, centres = track("swing up and down quickly", seed)
    kept = np.random.default_rng(seed).permutation(80)[:60]
    times, centres = TIMES[np.sort(kept)], centres[np.sort(kept)]
    grid = np.linspace(1.0, 14.0, 2601)
    power = signal.lombscargle(
        times, centres[:, 1], 2 * np.pi * grid, floating_mean=True, normalize=True
    )
    seen = read(centres, times)
    assert seen.cycles == pytest.approx(grid[power.argmax()], rel=0.005)
    error = reading.frequency_error("swing up and down quickly", seen)
    assert error == pytest.approx(path.cycles / 6.0 - 1.0, abs=0.01)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_half_and_twice_the_frequency_are_seen(factor):
    for name in ("swing left and right slowly", "swing left and right quickly"):
        path, _ = track(name, 1)
        seen = read(path(TIMES * factor))
        assert seen.axis == "left and right" and not reading.has_frequency(name, seen)
        assert reading.frequency_error(name, seen) == pytest.approx(factor - 1.0, abs=0.11)


def test_key_frames_lose_a_quick_swing_and_no_slow_one():
    keys = np.arange(5) / 5
    for seed in range(5):
        path, _ = track("swing left and right quickly", seed)
        between = motions.Polyline(tuple(keys), tuple(map(tuple, path(keys))))
        assert not reading.has_frequency("swing left and right quickly", read(between(TIMES)))


def test_phases_in_another_order_are_seen():
    for name, other in (
        ("right then up", "up then right"),
        ("still then left", "left then still"),
        ("up then right then down", "right then up then down"),
    ):
        _, centres = track(other, 0)
        assert reading.has_order(name, TIMES, centres) is False
        assert reading.has_order(other, TIMES, centres) is True
        assert not reading.has_direction(name, read(centres))
    # Directions that are off by an eighth of a turn are still in their order.
    _, centres = track("upper right then up", 0)
    assert reading.has_order("right then up", TIMES, centres) is True
    assert reading.has_order("right", TIMES, centres) is None


def test_a_bounce_touches_the_border():
    path, _ = track("bounce right", 0)
    for gap, side in ((0.0, "right"), (0.02, "right"), (0.05, None)):
        seen = read(path(TIMES) - [gap, 0.0])
        assert seen.directions == ("right", "left") and seen.side == side
        assert reading.has_direction("right then left", seen)


def test_what_has_no_name_is_not_read():
    generator = np.random.default_rng(0)
    seen = read(generator.uniform(0.2, 0.8, (80, 2)))
    assert seen.points is None and seen.error > 0.1
    assert not any(reading.has_direction(name, seen) for name in motions.MOTIONS)
    _, centres = track("right then up", 0)
    few = read(centres[:4], TIMES[:4])
    assert (
        few.points is None and reading.has_order("right then up", TIMES[:4], centres[:4]) is False
    )
    assert np.isnan(reading.frequency_error("circle clockwise once", few))
    assert reading.has_frequency("circle clockwise once", few) is False
    assert reading.frequency_error("right", few) is None
