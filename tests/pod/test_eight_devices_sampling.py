"""Sharded sampling equals unsharded sampling, on 8 virtual devices."""

from tests.pod.eight_devices import ROUNDING, compare


def test_sampling_is_the_same_on_every_mesh():
    result = compare("sampling")
    assert result["height"] < ROUNDING and result["windows"] < ROUNDING
