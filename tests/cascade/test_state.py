import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.cascade.config import OptimizerConfig
from lumiere_jax.cascade.state import create_state, first_non_finite, leaf_squares, update_ema
from lumiere_jax.models.parameters import leaf_name, merge, partition
from lumiere_jax.training.optimizer import create_optimizer

names = st.sampled_from(["a", "b", "kernel", "temporal_down", "conv_0"])
trees = st.recursive(
    st.integers(0, 99), lambda inner: st.dictionaries(names, inner, min_size=1), max_leaves=12
).filter(lambda tree: isinstance(tree, dict))


def paths(tree, before=()):
    """The leaves of a nested dict by path."""
    if not isinstance(tree, dict):
        return {before: tree}
    found = {}
    for name, inner in tree.items():
        found |= paths(inner, (*before, name))
    return found


@settings(max_examples=60)
@given(trees, st.sets(names))
def test_partition_and_merge_are_inverse(tree, chosen):
    def rule(path):
        return bool(chosen & set(path))

    trainable, frozen = partition(tree, rule)
    assert paths(trainable) == {p: x for p, x in paths(tree).items() if rule(p)}
    assert paths(frozen) == {p: x for p, x in paths(tree).items() if not rule(p)}
    assert merge(trainable, frozen) == tree


def test_ema_is_that_of_numpy_in_float64():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 3))
    ema, expected = {"w": jnp.asarray(values[0], jnp.float32)}, values[0]
    for step, value in enumerate(values):
        ema = update_ema(ema, {"w": jnp.asarray(value, jnp.float32)}, jnp.int32(step), 0.7)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(ema["w"], expected, rtol=1e-5)


def clip(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1.0, limit / norm) for g in gradients]


def learning_rate(step, config, num_steps):
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.decay == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / (num_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + np.cos(np.pi * progress))


@pytest.mark.parametrize("decay", ["constant", "cosine"])
@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_adamw_is_that_of_numpy_in_float64(decay, warmup_steps):
    num_steps = 20
    config = OptimizerConfig(
        decay=decay, warmup_steps=warmup_steps, learning_rate=0.1, weight_decay=0.2, b2=0.97
    )
    rng = np.random.default_rng(1)
    expected = [rng.normal(size=(4, 3)), rng.normal(size=5)]
    # From far below the limit of the norm to far above it.
    gradients = [
        [10 ** (s / 5 - 2) * rng.normal(size=p.shape) for p in expected] for s in range(20)
    ]
    params = [jnp.asarray(p, jnp.float32) for p in expected]
    optimizer = create_optimizer(config, num_steps)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    first, second = [0.0 * p for p in expected], [0.0 * p for p in expected]
    for step in range(num_steps):
        gradient = [jnp.asarray(g, jnp.float32) for g in gradients[step]]
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        rate = learning_rate(step, config, num_steps)
        for i, gradient in enumerate(clip(gradients[step], config.gradient_clip)):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.97 * second[i] + 0.03 * gradient**2
            mean, variance = (
                first[i] / (1 - 0.9 ** (step + 1)),
                second[i] / (1 - 0.97 ** (step + 1)),
            )
            direction = mean / (np.sqrt(variance) + 1e-8) + 0.2 * expected[i]
            expected[i] = expected[i] - rate * direction
    for got, wanted in zip(params, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


def orthogonalize(matrix):
    """Five Newton-Schulz steps towards the nearest orthogonal matrix (Jordan, 2024)."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(6, 4), (3, 3, 2, 5)])
@pytest.mark.parametrize("repeats", [None, 2])
def test_muon_is_that_of_numpy_in_float64(shape, repeats):
    # The parameters of repeated blocks, stacked along a first axis, are that many matrices.
    config = OptimizerConfig(name="muon", warmup_steps=0, learning_rate=0.1, weight_decay=0.2)
    rng = np.random.default_rng(2)
    stacked = shape if repeats is None else (repeats, *shape)
    expected = rng.normal(size=stacked)
    params = {"kernel": jnp.asarray(expected, jnp.float32)}
    optimizer = create_optimizer(config, 10)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    rows, columns = np.prod(shape[:-1]), shape[-1]
    mean = np.zeros(stacked)
    for step in range(4):
        gradient = 0.01 * rng.normal(size=stacked)  # below the limit of the norm
        updates, state = update({"kernel": jnp.asarray(gradient, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        mean = 0.95 * mean + 0.05 * gradient
        ahead = 0.95 * mean / (1 - 0.95 ** (step + 2)) + 0.05 * gradient / (1 - 0.95 ** (step + 1))
        matrices = ahead.reshape(-1, rows, columns)
        direction = np.stack([orthogonalize(matrix.T).T for matrix in matrices]).reshape(stacked)
        direction *= 0.2 * np.sqrt(max(rows, columns))
        expected = expected - 0.1 * (direction + 0.2 * expected)
    np.testing.assert_allclose(params["kernel"], expected, rtol=1e-4, atol=1e-5)


def test_muon_leaves_vectors_to_adam():
    config = OptimizerConfig(name="muon", warmup_steps=0, learning_rate=0.1, weight_decay=0.0)
    optimizer = create_optimizer(config, 10)
    vectors = jnp.array([[1.0, -2.0], [3.0, -4.0]])  # of two repeated blocks
    params = {"bias": jnp.ones((2, 2)), "kernel": jnp.ones((3, 4))}
    gradient = {"bias": vectors, "kernel": jnp.ones((3, 4))}
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    # With Nesterov's momentum, the first step is 1 + 0.9 · 0.1 / (1 - 0.9²) of the rate.
    expected = -0.1 * (1 + 0.09 / 0.19) * np.sign(gradient["bias"])
    np.testing.assert_allclose(updates["bias"], expected, rtol=1e-5)


def test_adafactor_descends_and_keeps_less_state_than_adamw():
    params = {"w": jnp.ones((256, 128))}
    sizes = {}
    for name in ("adafactor", "adamw"):
        optimizer = create_optimizer(OptimizerConfig(name=name, warmup_steps=0), 10)
        state = optimizer.init(params)
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(state))
        # The gradient of sum(w²).
        updates, _ = jax.jit(optimizer.update)({"w": 2 * params["w"]}, state, params)
        assert bool(jnp.all(updates["w"] < 0))
    assert sizes["adafactor"] < 1000 < 2 * params["w"].size < sizes["adamw"]


@pytest.mark.parametrize("shape", [(256, 128), (64,)])
def test_adafactor_moves_what_starts_at_zero_as_far_as_adamw(shape):
    moved = {}
    for name in ("adafactor", "adamw"):
        optimizer = create_optimizer(OptimizerConfig(name=name, warmup_steps=0), 100)
        params, update = {"w": jnp.zeros(shape)}, jax.jit(optimizer.update)
        state, rng = optimizer.init(params), np.random.default_rng(0)
        for _ in range(100):
            gradient = {"w": jnp.asarray(1 + 0.5 * rng.normal(size=shape), jnp.float32)}
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        moved[name] = float(jnp.sqrt(jnp.mean(jnp.square(params["w"]))))
    assert moved["adamw"] == pytest.approx(100 * 1e-4, rel=0.2)  # steps of the learning rate
    assert moved["adafactor"] == pytest.approx(moved["adamw"], rel=0.25)


@pytest.mark.parametrize("name", ["adafactor", "adamw", "muon"])
def test_weight_decay_goes_with_the_learning_rate(name):
    fields = {"warmup_steps": 0, "learning_rate": 0.1, "weight_decay": 0.2}
    optimizer = create_optimizer(OptimizerConfig(name=name, **fields), 10)
    params = {"kernel": jnp.full((4, 3), 5.0)}
    nothing = {"kernel": jnp.zeros((4, 3))}
    updates, _ = jax.jit(optimizer.update)(nothing, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.2 * params["kernel"], rtol=1e-5)


def test_frozen_parameters_carry_no_optimizer_state():
    trainable = {"temporal_a": {"kernel": jnp.ones((3, 7))}}
    frozen = {"conv": {"kernel": jnp.ones((5, 11))}}
    state = create_state(trainable, frozen, create_optimizer(OptimizerConfig(), 10))
    assert int(state.step) == 0
    assert jax.tree.structure(state.ema) == jax.tree.structure(trainable)
    carried = [leaf.shape for leaf in jax.tree.leaves((state.optimizer, state.ema))]
    assert carried.count((3, 7)) == 3  # two moments and the average
    assert (5, 11) not in carried


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0, -3e18]), min_size=1, max_size=5)
)
def test_first_non_finite_names_the_first_bad_leaf(values):
    tree = {f"layer_{i}": {"kernel": jnp.asarray([1.0, x])} for i, x in enumerate(values)}
    bad = [i for i, x in enumerate(values) if not np.isfinite(x)]
    squares = leaf_squares(tree)
    index = int(first_non_finite(squares))
    assert index == (bad[0] if bad else -1)
    expected = [1 + x**2 if np.isfinite(x) else x * x for x in values]
    np.testing.assert_allclose(squares, expected, rtol=1e-6)
    if bad:
        assert leaf_name(tree, index) == f"layer_{bad[0]}/kernel"


def test_muon_in_stacks_is_muon_of_every_leaf():
    rng = np.random.default_rng(0)

    def tree():
        def normal(*shape):
            return jnp.asarray(rng.normal(size=shape), jnp.float32)

        return {
            "one": {"kernel": normal(6, 4), "bias": normal(4)},
            "two": {"kernel": normal(6, 4), "bias": normal(4), "norm": {"scale": normal(4)}},
            "conv": {"kernel": normal(3, 3, 2, 4)},
            "repeated": {"kernel": normal(5, 6, 4), "bias": normal(5, 4)},
            "repeated_conv": {"kernel": normal(2, 3, 3, 2, 4)},
        }

    config = OptimizerConfig(name="muon", decay="cosine", weight_decay=0.1, warmup_steps=1)
    axes = {2: ((0,), (1,)), 3: ((1,), (2,)), 4: ((0, 1, 2), (3,)), 5: ((1, 2, 3), (4,))}

    def dimension_numbers(params):
        def choose(path, leaf):
            is_vector = path[-1].key in ("bias", "scale")
            return None if is_vector else optax.contrib.MuonDimensionNumbers(*axes[leaf.ndim])

        return jax.tree_util.tree_map_with_path(choose, params)

    expected = optax.chain(
        optax.clip_by_global_norm(config.gradient_clip),
        optax.contrib.muon(
            optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, 1, 10, 0.0),
            consistent_rms=0.2,
            adam_b2=config.b2,
            weight_decay=0.1,
            adam_weight_decay=0.1,
            muon_weight_dimension_numbers=dimension_numbers,
        ),
    )
    got = create_optimizer(config, 10)
    params = tree()
    states = got.init(params), expected.init(params)
    for _ in range(3):
        gradients = tree()
        first, states_0 = got.update(gradients, states[0], params)
        second, states_1 = expected.update(gradients, states[1], params)
        states = states_0, states_1
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9), first, second
        )
        params = optax.apply_updates(params, first)
