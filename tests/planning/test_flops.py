import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lumiere_jax.cascade.stage import STAGES, Stage
from lumiere_jax.planning.flops import Flops, batch_shapes, count, training_flops
from lumiere_jax.training.step import training_loss
from tests.tiny_runs import tiny_config


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def xla_flops(function, *args):
    """XLA's own count of the unoptimized program; it counts elementwise operations as well."""
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def products(function, *args):
    """Products of two elements of arrays of ones: zeros of padding and dilation add nothing."""
    return int(np.sum(np.asarray(function(*(jnp.ones(x.shape) for x in args)), np.float64)))


@st.composite
def convolutions(draw):
    """A convolution of any kind over two axes, and the shapes of what it takes."""
    axes = range(2)
    feature_groups = draw(st.integers(1, 3))
    batch_groups = draw(st.integers(1, 2)) if feature_groups == 1 else 1
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    sizes = [draw(st.integers(1, 7)) for _ in axes]
    kernel = [draw(st.integers(1, 4)) for _ in axes]
    options = {
        "window_strides": [draw(st.integers(1, 3)) for _ in axes],
        "padding": [(draw(st.integers(-1, 4)), draw(st.integers(-1, 4))) for _ in axes],
        "lhs_dilation": [draw(st.integers(1, 3)) for _ in axes],
        "rhs_dilation": [draw(st.integers(1, 3)) for _ in axes],
        "feature_group_count": feature_groups,
        "batch_group_count": batch_groups,
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }
    left = shape(batch_groups * draw(st.integers(1, 2)), *sizes, feature_groups * inputs)
    right = shape(*kernel, inputs, outputs * feature_groups * batch_groups)
    return functools.partial(jax.lax.conv_general_dilated, **options), left, right


@settings(max_examples=60)
@given(convolutions())
def test_convolution_counts_products_with_what_is_not_a_filled_in_zero(case):
    function, left, right = case
    out = jax.eval_shape(function, left, right)
    assume(out.size)
    assert count(function, left, right) == Flops(conv=2 * products(function, left, right))


def test_convolution_in_closed_form():
    def convolve(x, kernel, stride=1):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    x, kernel = shape(5, 8, 6, 4), shape(3, 3, 4, 7)
    # 3 taps a position and axis, but for the one beyond each border.
    assert count(convolve, x, kernel).conv == 2 * 5 * 4 * 7 * (3 * 8 - 2) * (3 * 6 - 2)
    strided = functools.partial(convolve, stride=2)
    forward = 2 * 5 * 4 * 7 * (3 * 4 - 1) * (3 * 3 - 1)
    assert count(strided, x, kernel).conv == forward
    # Each gradient pairs the same elements once more, though it is written with dilation.
    gradients = jax.grad(lambda x, kernel: jnp.square(strided(x, kernel)).sum(), (0, 1))
    assert count(gradients, x, kernel) == Flops(conv=3 * forward)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=4, max_size=4), st.booleans())
def test_matrix_product(sizes, batched):
    batch, rows, inner, columns = sizes
    if batched:
        function = functools.partial(jnp.einsum, "brij,bjic->brc")
        left, right = shape(batch, rows, 2, inner), shape(batch, inner, 2, columns)
    else:
        function, left, right = jnp.matmul, shape(batch, rows, inner), shape(inner, columns)
    assert count(function, left, right) == Flops(dot=2 * products(function, left, right))


def test_integers_do_not_count():
    x = shape(4, 4, dtype=jnp.int32)
    assert count(jnp.matmul, x, x) == Flops()


def test_control_flow():
    x, flops = shape(4, 4), 2 * 4**3

    def repeat(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x, length=7)[0]

    def choose(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    def wait(x):
        return jax.lax.while_loop(lambda c: c[0, 0] > 0, lambda c: c @ x, x)

    assert count(repeat, x).dot == 7 * flops
    assert count(jax.vmap(repeat), shape(3, 4, 4)).dot == 3 * 7 * flops
    assert count(choose, x).dot == 2 * flops
    assert count(jax.jit(jax.checkpoint(repeat)), x).dot == 7 * flops
    with pytest.raises(ValueError, match="while cannot be counted"):
        count(wait, x)


def test_what_nobody_uses_does_not_count():
    def first(x):
        return (x @ x, x @ x @ x)[0]

    assert count(first, shape(4, 4)).dot == count(jax.jit(first), shape(4, 4)).dot == 2 * 4**3


def test_gradient_of_a_chain_with_a_frozen_first_layer():
    batch, sizes = 5, (3, 7, 11, 13)
    weights = [shape(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]

    def loss(trainable, frozen, x):
        for weight in (frozen, *trainable):
            x = jnp.tanh(x @ weight)
        return x.sum()

    first, second, third = (2 * batch * a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    forward, weight_gradients, input_gradients = first + second + third, second + third, third
    args = (weights[1:], weights[0], shape(batch, sizes[0]))
    assert count(jax.value_and_grad(loss), *args).dot == (
        forward + weight_gradients + input_gradients
    )
    # Recomputed activations are in the jaxpr, so they would count: `training_flops` avoids them.
    assert count(jax.value_and_grad(jax.checkpoint(loss)), *args).dot > (
        forward + weight_gradients + input_gradients
    )


def wide_config(stage):
    """A small network whose convolutions and products outweigh everything else."""
    widths = {"model.widths": (128, 256), "model.groups": 8, "data.resolution": 16}
    if stage in ("t2i_ssr", "ssr"):
        widths |= {"ssr.crop": 16}
    return tiny_config(stage, **{name.replace(".", "__"): x for name, x in widths.items()})


def forward(stage):
    """The network's forward pass and the shapes of its arguments."""
    batch, clip = batch_shapes(stage, 2), shape(2, *stage.clip_shape())
    condition = {"text": batch["text"], "text_mask": batch["text_mask"]}
    if stage.is_super_resolution:
        condition |= {"low_resolution": clip, "augmentation_level": shape(2)}
    if stage.is_conditional:
        condition["known"] = shape(*clip.shape[:-1], 4)
    return stage.predict, (stage.param_shapes, clip, shape(2),
                           condition)  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_forward_pass_against_the_count_of_xla(name):
    function, args = forward(Stage.from_config(wide_config(name)))
    ours, theirs = count(function, *args).total, xla_flops(function, *args)
    assert 0.95 * theirs < ours <= theirs


def test_training_against_the_count_of_xla():
    config = wide_config("stunet")
    config.train.trainable = "all"
    stage = Stage.from_config(config)
    key, params = jax.random.key(0), forward(stage)[1][0]
    ours = training_flops(stage, 2).total
    theirs = xla_flops(
        jax.value_and_grad(lambda params, batch: training_loss(stage, params, batch, key)),
        params, batch_shapes(stage, 2),
    )  # fmt: skip
    assert 0.93 * theirs < ours <= theirs


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("t2i", 2.9, 3.0),  # no gradient with respect to pixels, text and noise level
        ("ssr", 1.8, 2.1),  # no weight gradient of the image network, which is most of it
    ],
)
def test_training_is_a_forward_pass_and_the_gradients_that_are_needed(name, least, most):
    config = wide_config(name)
    stage = Stage.from_config(config)
    function, args = forward(stage)
    once, flops = count(function, *args).total, training_flops(stage, 2).total
    assert least * once < flops < most * once
    with config.unlocked():
        config.model.remat = "full"  # counts once, whatever is computed twice
    assert training_flops(Stage.from_config(config), 2).total == flops
