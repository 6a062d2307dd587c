import numpy as np
import pytest

from lumiere_jax.training.held_out import by_band


def test_losses_by_bands_of_log_snr():
    found = by_band(np.array([1.0, 3.0, 5.0, 7.0]), np.array([-20.0, -10.0, -6.0, 5.0]))
    assert found == {
        "eval_loss_log_snr/-inf_to_-10": 1.0,
        "eval_loss_log_snr/-10_to_-5": pytest.approx(4.0),
        "eval_loss_log_snr/5_to_inf": 7.0,
    }
