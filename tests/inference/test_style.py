"""Styles: which weights change, by how much, and low-rank changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference import style
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.models.lora import LORA, fresh_lora, merge_lora
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh
from tests.tiny_runs import tiny_config, train

PROMPT = "a large red circle moving right"


def flat(params):
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(params).items()}


@pytest.fixture(name="low_rank", scope="module")
def fixture_low_rank(cascade, tmp_path_factory):
    """A run of the stage `style` that trains changes of rank 2."""
    workdir = tmp_path_factory.mktemp("style") / "low_rank"
    config = tiny_config(
        "style",
        cascade["t2i"],
        data__folder=str(cascade["style"].parent / "pictures"),
        style__rank=2,
    )
    train(config, workdir)
    return workdir


def interpolated(base, workdir, alpha):
    config, params, _ = checkpoint.load(base)
    return flat(params), flat(style.interpolate(config, params, workdir, alpha))


def test_exactly_the_image_weights_change(cascade):
    before, after = interpolated(cascade["stunet"], cascade["style"], 0.5)
    trained = flat(checkpoint.load(cascade["style"])[1])
    image = {path for path in before if not is_temporal(path)}
    assert trained.keys() == image
    assert after.keys() == before.keys()
    changed = {path for path in before if before[path].tobytes() != after[path].tobytes()}
    # A few weights, such as biases before a normalization, may not have moved in four steps.
    assert changed == {p for p in image if not np.array_equal(trained[p], before[p])}
    assert len(changed) > 0.9 * len(image)
    for path in image:
        half = 0.5 * trained[path].astype(np.float64) + 0.5 * before[path].astype(np.float64)
        np.testing.assert_allclose(after[path], half, atol=1e-6)


def test_a_blend_in_bfloat16_is_rounded_once():
    rng = np.random.default_rng(0)
    original = jnp.asarray(rng.normal(size=4000), jnp.bfloat16)
    changed = np.asarray(original, np.float64) * (1 + 0.01 * rng.normal(size=4000))
    blended = style._blend(original, jnp.asarray(changed, jnp.float32), 0.8)
    exact = 0.8 * changed + 0.2 * np.asarray(original, np.float64)
    assert blended.dtype == jnp.bfloat16
    half_unit = 2.0 ** (np.floor(np.log2(np.abs(exact))) - 8)  # of eight binary digits
    error = np.abs(np.asarray(blended, np.float64) - exact)
    assert np.all(error < 1.001 * half_unit)  # the blend itself is of float32


@pytest.mark.parametrize("base", ["stunet", "t2i"])
def test_alpha_0_is_the_original_and_1_the_style_bit_for_bit(cascade, base):
    before, none = interpolated(cascade[base], cascade["style"], 0.0)
    trained = flat(checkpoint.load(cascade["style"])[1])
    _, full = interpolated(cascade[base], cascade["style"], 1.0)
    for path, leaf in before.items():
        assert none[path].tobytes() == leaf.tobytes()
        expected = leaf if is_temporal(path) else trained[path]
        assert full[path].tobytes() == expected.tobytes()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_conditional_base_keeps_its_trained_input_layer(cascade, low_rank, rank):
    """It is moved by what a style changed, where that is known, and never replaced."""
    workdir = low_rank if rank else cascade["style"]
    before, after = interpolated(cascade["stunet_conditional"], workdir, 0.5)
    expected = {path: leaf for path, leaf in before.items() if path[0] == "conv_in"}
    assert expected[("conv_in", "kernel")].shape[2] == 7
    if rank:
        factors = checkpoint.load(workdir)[1][LORA]["conv_in/kernel"]
        down, up = (np.asarray(factors[name], np.float64) for name in ("down", "up"))
        change = 0.5 * (down @ up).reshape(*before[("conv_in", "kernel")].shape[:2], 3, -1)
        assert np.abs(change).max() > 1e-4
        expected[("conv_in", "kernel")] = expected[("conv_in", "kernel")].astype(np.float64)
        expected[("conv_in", "kernel")][:, :, :3] += change
    for path, leaf in expected.items():
        np.testing.assert_allclose(after[path], leaf, rtol=0, atol=1e-6 if rank else 0)
    assert any(after[path].tobytes() != before[path].tobytes() for path in before)


def test_low_rank_changes_begin_at_nothing_and_are_added(cascade):
    params = checkpoint.load(cascade["t2i"])[1]
    factors = fresh_lora(params, 2, jax.random.key(0))
    kernels = {path for path in flat(params) if path[-1] == "kernel"}
    assert {tuple(name.split("/")) for name in factors} <= kernels
    assert len(factors) > 0.8 * len(kernels)
    merged = flat(merge_lora({**params, LORA: factors}))
    for path, leaf in flat(params).items():
        np.testing.assert_array_equal(merged[path], leaf)

    generator = np.random.default_rng(0)
    factors = jax.tree.map(lambda x: generator.normal(size=x.shape).astype(np.float32), factors)
    merged = flat(merge_lora({**params, LORA: factors}))
    for path, leaf in flat(params).items():
        expected = leaf.astype(np.float64)
        if "/".join(path) in factors:
            down, up = (factors["/".join(path)][name].astype(np.float64) for name in ("down", "up"))
            change = (merged[path] - expected).reshape(-1, leaf.shape[-1])
            assert np.linalg.matrix_rank(change, tol=1e-3) == 2
            expected = expected + (down @ up).reshape(leaf.shape)
        np.testing.assert_allclose(merged[path], expected, atol=1e-5)


def test_low_rank_style_trains_its_factors_alone_and_merges_to_a_delta(cascade, low_rank):
    before = flat(checkpoint.load(cascade["t2i"])[1])
    saved = checkpoint.load(low_rank)[1]
    after = flat({name: value for name, value in saved.items() if name != LORA})
    assert after.keys() == before.keys()
    assert all(after[path].tobytes() == leaf.tobytes() for path, leaf in before.items())
    assert all(np.any(factors["up"]) for factors in saved[LORA].values())
    _, styled = interpolated(cascade["stunet"], low_rank, 1.0)
    merged = flat(merge_lora(saved))
    assert {path for path in styled if not is_temporal(path)} == merged.keys()
    for path, leaf in merged.items():
        np.testing.assert_array_equal(styled[path], leaf)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_style_makes_images_and_styles_videos(cascade, low_rank, rank):
    workdir = low_rank if rank else cascade["style"]
    images = LumierePipeline.from_checkpoints(workdir, show_progress=False)
    assert images([PROMPT]).shape == (1, 1, 16, 16, 3)
    plain = LumierePipeline.from_checkpoints(cascade["stunet"], show_progress=False)
    videos = {
        alpha: plain.with_style(workdir, alpha)([PROMPT], seeds=[1]) for alpha in (0.0, 0.5, 1.0)
    }
    np.testing.assert_array_equal(videos[0.0], plain([PROMPT], seeds=[1]))
    assert np.abs(videos[0.5] - videos[0.0]).max() > 1e-3
    assert np.abs(videos[1.0] - videos[0.5]).max() > 1e-3
    assert plain.with_style(workdir, 0.0).fingerprints() == plain.fingerprints()
    assert plain.with_style(workdir, 0.5).fingerprints() != plain.fingerprints()
    mesh = create_mesh({"data": 1, "fsdp": 1, "space": 1}, jax.devices()[:1])
    _, params, _ = checkpoint.load(cascade["stunet"], mesh)
    placed = LumierePipeline((plain.base[0], params), show_progress=False, mesh=mesh)
    styled = placed.with_style(workdir, 1.0)
    places = jax.tree.map(lambda leaf: leaf.sharding, (params, styled.base[1]))
    assert places[0] == places[1] and styled._mesh is mesh
    np.testing.assert_array_equal(styled([PROMPT], seeds=[1]), videos[1.0])


def test_styles_that_do_not_fit_are_refused(cascade, tmp_path):
    config, params, _ = checkpoint.load(cascade["stunet"])
    with pytest.raises(UserError, match="alpha=1.5 must be between 0"):
        style.interpolate(config, params, cascade["style"], 1.5)
    with pytest.raises(UserError, match="is a checkpoint of stage 't2i'; give one of stage 'style"):
        style.interpolate(config, params, cascade["t2i"], 0.5)
    with pytest.raises(UserError, match="no checkpoint in"):
        style.interpolate(config, params, tmp_path, 0.5)
    other = dict(params, mid_9={"kernel": np.ones((3, 3))})
    with pytest.raises(UserError, match="mid_9/kernel.* differs; train the style from the same"):
        style.interpolate(config, other, cascade["style"], 0.5)
    with pytest.raises(UserError, match="style.rank=-1"):
        Stage.from_config(tiny_config("style", style__rank=-1))
