"""A sharded training step equals an unsharded one, on 8 virtual devices."""

from tests.pod.eight_devices import ROUNDING, compare


def test_a_training_step_is_the_same_on_every_mesh():
    result = compare("training")
    assert result["split"] > 10  # FSDP splits the optimizer's state
    assert result["loss"] < 1e-5
    assert result["gradient_norm"] < ROUNDING and result["parameters"] < ROUNDING
