import dataclasses

import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.planning import gpus, roofline
from lumiere_jax.runtime.errors import UserError
from tests.tiny_runs import SMALLEST, tiny_config

GPU = gpus.Gpu(name="made_up", kind="", peak=1000.0, memory=10**6, bandwidth=10.0)


def test_names():
    assert gpus.parse("h100:8") == (gpus.GPUS["h100"], 8) and gpus.parse("h200:1")[1] == 1
    assert not any(map(gpus.parse, ("h100", "h100:0", "h100:2x2", "v5e:4", "b200:8")))


def test_operations_and_bytes_by_hand():
    def function(x, kernel, n):
        def step(x, _):
            return jax.lax.conv(x, kernel, (1, 1), "VALID"), None

        x = jax.lax.scan(step, x, length=3)[0]
        x = jax.lax.while_loop(lambda x: x.sum() < n, lambda x: jnp.sin(x), x)
        return jax.lax.while_loop(lambda x: x.sum() < n, lambda x: x @ x, x.reshape(4, 4))

    x, kernel = jnp.ones((1, 1, 4, 4), jnp.bfloat16), jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    operations, loops = roofline.count(function, x, kernel, 9.0)
    convolution, product = (2 * 16, 2 * (16 + 1 + 16)), (2 * 4**3, 2 * 3 * 16)
    assert operations == {convolution: 3, product: 1} and loops == 1  # one of them has products
    compute_bound = dataclasses.replace(GPU, bandwidth=1e9)
    assert roofline.bound(operations, compute_bound) == pytest.approx((3 * 32 + 128) / 1000)
    assert roofline.bound(operations, GPU) == pytest.approx((3 * 66 + 96) / 10)
    mixed = dataclasses.replace(GPU, bandwidth=1000 * 66 / 50)  # the product is bound by its FLOPs
    assert roofline.bound(operations, mixed) == pytest.approx(3 * 50 / 1000 + 128 / 1000)


def test_what_is_kept_for_the_backward_pass_by_hand():
    def loss(trainable, frozen, batch):
        hidden = jnp.sin(batch["x"] @ jnp.tanh(trainable["first"]))
        return (hidden @ frozen).sum() + (hidden @ trainable.get("second", frozen)).sum()

    first, last, batch = jnp.ones((5, 7)), jnp.ones((7, 2)), {"x": jnp.ones((3, 5))}
    # The cosine alone; what follows from weights, and the batch, do not count.
    assert roofline.stored_bytes(loss, {"first": first}, last, batch) == 4 * 3 * 7
    both = {"first": first, "second": last}
    assert roofline.stored_bytes(loss, both, last, batch) == 2 * 4 * 3 * 7


@pytest.mark.parametrize("mode", ["train", "sample"])
def test_a_bound_of_a_step(mode):
    config = tiny_config("t2i", **SMALLEST, model__remat="full")
    h100 = gpus.GPUS["h100"]
    found = roofline.create(config, h100, jax.devices()[:1], mode, "tiny")
    assert found.topology == "h100:1" and found.mesh == {"data": 1, "fsdp": 1, "space": 1}
    # A training step computes again what lies inside of remat, but for its last layers.
    assert (1.1 if mode == "train" else 1) <= found.flops / found.model_flops < 4 / 3
    assert max(found.compute_seconds, found.memory_seconds) <= found.seconds
    assert found.seconds < found.compute_seconds + found.memory_seconds
    assert found.utilization == found.model_flops / found.seconds / h100.peak < 1
    parameters = 4 * (found.trainable + found.frozen)
    assert found.state >= (3 if mode == "train" else 1) * parameters
    text = roofline.text(found)
    assert "at most" in text and "it may fit" in text and "not counted" in text
    if mode == "train":
        assert found.gradients == 4 * found.trainable and 0 < found.stored
        assert found.needed == found.state + found.gradients + found.stored
        small = dataclasses.replace(found, memory=found.needed)
        assert "it will hardly fit" in roofline.text(small)
    else:
        assert found.gradients == found.stored == 0 and "clips/s of 2 denoising steps" in text


def test_other_modes_are_refused():
    with pytest.raises(UserError, match="for GPUs there are train and sample"):
        roofline.create(tiny_config("t2i"), GPU, jax.devices()[:1], "text", "")
