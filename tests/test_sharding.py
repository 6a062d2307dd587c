import jax
import pytest

from lumiere_jax.errors import UserError
from lumiere_jax.sharding import sampling_shardings, training_shardings


def test_batch_that_the_devices_cannot_share(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(UserError, match="train.batch_size=6 is not divisible by the 4 devices"):
        training_shardings(6)


@pytest.mark.parametrize("shardings", [training_shardings, sampling_shardings])
def test_parameters_are_whole_everywhere_and_clips_are_split(shardings):
    replicated, by_clip = shardings(6 * jax.device_count())
    assert replicated.is_fully_replicated
    assert by_clip.shard_shape((6 * jax.device_count(), 5)) == (6, 5)
    assert replicated.device_set == by_clip.device_set == set(jax.devices())
