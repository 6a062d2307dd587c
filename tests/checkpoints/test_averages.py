"""Averages of widths that are chosen afterwards, against direct ones in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from lumiere_jax.cascade.state import POWER_WIDTHS, power_exponent, update_powers
from lumiere_jax.checkpoints.averages import coefficients

STEPS, EVERY = 400, 20


def weights(exponent, steps=STEPS):
    """What each step counts, since the decays (1 - 1 / t)^(n + 1) multiply to (s / t)^(n + 1)."""
    ends = (np.arange(steps + 1) / steps) ** (exponent + 1)
    return np.diff(ends)


def width_of(exponent):
    times, share = (np.arange(20_000) + 0.5) / 20_000, weights(exponent, 20_000)
    mean = (share * times).sum()
    return np.sqrt((share * (times - mean) ** 2).sum())


@pytest.fixture(name="walk", scope="module")
def fixture_walk():
    """Parameters that wander, and snapshots of both averages of them, in float32."""
    walk = np.cumsum(np.random.default_rng(0).normal(size=(STEPS, 64)), axis=0)
    update, snapshots = jax.jit(update_powers), []
    powers = {name: {"w": jnp.full(64, 1e6)} for name in POWER_WIDTHS}  # is forgotten at once
    for step, params in enumerate(walk.astype(np.float32)):
        powers = update(powers, {"w": params}, jnp.int32(step))
        if (step + 1) % EVERY == 0:
            snapshots.append([powers[name]["w"] for name in POWER_WIDTHS])
    return walk, np.array(snapshots, np.float64)


def test_the_saved_averages_are_those_of_their_widths(walk):
    params, snapshots = walk
    for saved, width in zip(snapshots[-1], POWER_WIDTHS.values(), strict=True):
        exponent = brentq(lambda n, width=width: width_of(n) - width, 0.1, 100.0)
        assert power_exponent(width) == pytest.approx(exponent, rel=1e-5)
        expected = np.zeros(64)
        for t, value in enumerate(params, 1):  # in float64, by the definition
            decay = (1 - 1 / t) ** (exponent + 1)
            expected = decay * expected + (1 - decay) * value
        np.testing.assert_allclose(expected, weights(exponent) @ params, rtol=1e-9)
        np.testing.assert_allclose(saved, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("width", [0.03, 0.05, 0.07, 0.15, 0.2])
def test_an_average_of_another_width_is_made_of_them(walk, width):
    params, snapshots = walk
    found, error = coefficients(np.arange(EVERY, STEPS + 1, EVERY, dtype=float), width)
    made = np.einsum("sw,swp->p", found, snapshots)
    expected = weights(power_exponent(width)) @ params
    assert error < 0.03 and found.sum() == pytest.approx(1, abs=0.003)
    # Far nearer to it than the nearest of those that were saved.
    others = [weights(power_exponent(w)) @ params for w in POWER_WIDTHS.values() if w != width]
    distance = min(np.sqrt(np.mean((other - expected) ** 2)) for other in others)
    assert np.sqrt(np.mean((made - expected) ** 2)) < 0.05 * distance


def test_what_a_combination_leaves_is_told():
    """The error is that of the weights of all steps, computed one by one."""
    ends = np.arange(1000, 4001, 1000)
    found, error = coefficients(ends.astype(float), 0.02)
    made = np.zeros(4000)
    for end, row in zip(ends, found, strict=True):
        for factor, width in zip(row, POWER_WIDTHS.values(), strict=True):
            made[:end] += factor * weights(power_exponent(width), end)
    wanted = weights(power_exponent(0.02), 4000)
    assert error > 0.3
    assert error == pytest.approx(np.linalg.norm(made - wanted) / np.linalg.norm(wanted), rel=1e-3)
