"""An encoder that is split over 8 virtual devices."""

import numpy as np

from tests.text.eight_devices import result_of
from tests.text.tiny_t5 import write_tiny_t5


def test_every_device_reads_its_own_part_and_embeddings_are_the_same(tmp_path):
    write_tiny_t5(tmp_path, d_model=16, d_ff=32, shards=True)
    one, eight = result_of(tmp_path, 1), result_of(tmp_path, 8)
    assert (one["devices"], eight["devices"]) == (1, 8)
    np.testing.assert_allclose(eight["embeddings"], one["embeddings"], atol=1e-5)
    whole = eight["parameters"] - eight["split"]
    # Each device reads what it holds: its eighth of what is split, and all of what is small.
    assert eight["read"] == eight["held"] == eight["split"] + 8 * whole
    assert eight["split"] > 0.9 * eight["parameters"]
