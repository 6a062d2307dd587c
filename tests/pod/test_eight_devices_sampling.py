"""Sharded sampling equals unsharded sampling, on 8 virtual devices."""

import pytest

from tests.pod.eight_devices import ROUNDING, compare


@pytest.fixture(scope="module")
def result():
    return compare("sampling")


def test_sampling_is_the_same_on_every_mesh(result):
    assert result["height"] < ROUNDING and result["windows"] < ROUNDING


def test_samples_of_a_training_run_take_no_more_memory_on_more_devices(result):
    assert result["samples"] < ROUNDING
    assert result["decoded"] == 2 * 2  # by one device and by eight: as many clips as prompts
    assert result["held"] < 1.001  # options of each clip, some numbers, are on all devices
    assert result["picked"] <= 3
