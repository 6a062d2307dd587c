import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.diffusion import multidiffusion
from lumiere_jax.runtime.errors import UserError

lengths = st.integers(1, 40).flatmap(
    lambda window: st.tuples(st.integers(1, 120), st.just(window), st.integers(0, window - 1))
)


def random_video(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_windows_of_the_paper():
    starts = multidiffusion.windows(80, 8, 2)
    assert len(starts) == 13
    assert starts == tuple(range(0, 73, 6))


@pytest.mark.parametrize("num_frames", [1, 5, 8])
def test_short_video_is_one_window(num_frames):
    assert multidiffusion.windows(num_frames, 8, 2) == (0,)


def test_last_window_is_moved_back():
    assert multidiffusion.windows(15, 8, 2) == (0, 6, 7)


@settings(deadline=None, max_examples=200)
@given(lengths, st.sampled_from(["uniform", "linear"]))
def test_every_frame_is_covered_and_weights_sum_to_one(sizes, kind):
    num_frames, window, overlap = sizes
    starts = multidiffusion.windows(*sizes)
    weights = multidiffusion.normalized_weights(*sizes, kind)
    length = min(window, num_frames)
    assert weights.shape == (len(starts), length)
    assert starts[0] == 0 and starts[-1] == num_frames - length
    gaps = np.diff(starts)
    assert np.all(gaps >= 1) and np.all(gaps <= window - overlap)
    total = np.zeros(num_frames)
    for start, weight in zip(starts, weights, strict=True):
        assert np.all(weight > 0)
        total[start : start + length] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-14)


def test_linear_weights_crossfade_linearly():
    weights = multidiffusion.normalized_weights(12, 8, 4, "linear")
    np.testing.assert_allclose(weights[0], [1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    np.testing.assert_allclose(weights[1], [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def fuse(denoise, sizes, *inputs, **options):
    """One prediction of a whole video, chunk by chunk."""
    total = jnp.zeros(inputs[0].shape, jnp.float32)
    for starts, weights in zip(*multidiffusion.chunks(*sizes, **options), strict=True):
        chunk = multidiffusion.Chunk(jnp.asarray(starts), jnp.asarray(weights))
        predictions = jax.vmap(denoise)(*(chunk.cut(jnp.asarray(x)) for x in inputs))
        total = chunk.add(total[..., : predictions.shape[-1]], predictions)
    return total


@settings(deadline=None, max_examples=15)
@given(lengths, st.sampled_from(["uniform", "linear"]), st.integers(1, 5))
def test_window_invariant_denoiser_is_unchanged_to_rounding(sizes, kind, size):
    video = random_video((1, sizes[0], 1, 2, 1))
    fused = fuse(lambda z: -2 * z, sizes, video, kind=kind, size=size)
    np.testing.assert_allclose(fused, -2 * video, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "linear"])
@pytest.mark.parametrize("num_frames", [15, 20])
def test_solves_the_least_squares_problem(num_frames, kind):
    window, overlap = 8, 3
    video = random_video((1, num_frames, 2, 2, 1))

    def denoise(z):
        # Nonlinear, and different in every window that a frame is in.
        return jnp.sin(z * jnp.arange(1, window + 1)[:, None, None, None]) + jnp.mean(z)

    fused = fuse(denoise, (num_frames, window, overlap), video, kind=kind, size=2)
    rows, targets = [], []
    root = np.sqrt(multidiffusion.window_weights(window, kind))
    for start in multidiffusion.windows(num_frames, window, overlap):
        selection = np.eye(num_frames)[start : start + window]
        rows.append(root[:, None] * selection)
        prediction = np.asarray(denoise(video[:, start : start + window]), np.float64)
        targets.append(root[:, None] * prediction.reshape(window, -1))
    expected, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)
    np.testing.assert_allclose(np.asarray(fused).reshape(num_frames, -1), expected, atol=2e-6)


@pytest.mark.parametrize(("size", "parallel"), [(1, 1), (2, 1), (3, 1), (4, 4), (99, 2)])
def test_chunks_do_not_change_the_result(size, parallel):
    """Small integers and weights of 1 and 1/2 leave nothing to round."""
    video, low_resolution = (np.round(4 * random_video((2, 22, 4, 4, 3), seed)) for seed in (0, 1))

    def denoise(z, low):
        return z * jnp.sum(z, axis=1, keepdims=True) + low

    inputs, sizes = (video, low_resolution), (22, 6, 2)
    np.testing.assert_array_equal(
        fuse(denoise, sizes, *inputs, size=size, parallel=parallel), fuse(denoise, sizes, *inputs)
    )
    dealt = multidiffusion.chunks(*sizes, size=size, parallel=parallel)
    assert dealt.starts.shape[1] % parallel == 0 and dealt.starts.shape[1] <= max(size, parallel)
    assert dealt.weights.sum() == pytest.approx(22)


def test_other_inputs_are_cut_with_the_video():
    index = np.arange(20, dtype=np.float32).reshape(1, 20, 1, 1, 1)
    fused = fuse(lambda z, low: low - z, (20, 8, 2), index, index + 5, size=1)
    np.testing.assert_array_equal(fused, np.full_like(index, 5))


def test_a_short_video_is_not_cut():
    assert multidiffusion.chunks(5, 8, 2).is_one_window
    assert not multidiffusion.chunks(9, 8, 2).is_one_window


def differences_of_shifted_windows(overlap, weights):
    """Neighbour-frame differences where the i-th window adds i to a still video."""
    num_frames, window = 80, 8
    starts = multidiffusion.windows(num_frames, window, overlap)
    shift = np.zeros(num_frames, np.float32)
    shift[list(starts)] = np.arange(len(starts))
    shift, still = shift.reshape(1, num_frames, 1, 1, 1), np.zeros((1, num_frames, 2, 2, 1))
    sizes = (num_frames, window, overlap)
    video = fuse(lambda z, shift: z + shift[:, :1], sizes, still, shift, kind=weights)
    return np.asarray(multidiffusion.frame_differences(video))[0]


def test_overlap_reduces_the_seams():
    without = differences_of_shifted_windows(0, "uniform")
    borders = np.arange(1, 10) * 8 - 1
    np.testing.assert_allclose(without[borders], 1)
    assert np.all(np.delete(without, borders) == 0)
    # The step of one is taken in two halves, and in three thirds on a ramp.
    np.testing.assert_allclose(differences_of_shifted_windows(2, "uniform").max(), 1 / 4)
    np.testing.assert_allclose(differences_of_shifted_windows(2, "linear").max(), 1 / 9, rtol=1e-5)


def test_frame_differences_against_numpy():
    video = random_video((2, 4, 3, 3, 2)).astype(np.float64)
    expected = np.square(video[:, 1:] - video[:, :-1]).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(multidiffusion.frame_differences(video), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "word"),
    [((80, 8, 8), "overlap=8"), ((80, 8, -1), "overlap=-1"), ((0, 8, 2), "num_frames=0")],
)
def test_bad_sizes_are_refused(sizes, word):
    with pytest.raises(UserError, match=word):
        multidiffusion.windows(*sizes)


def test_bad_weights_and_chunks_are_refused():
    with pytest.raises(UserError, match="'cosine'"):
        multidiffusion.chunks(20, 8, 2, kind="cosine")
    with pytest.raises(UserError, match="chunk=0"):
        multidiffusion.chunks(20, 8, 2, size=0)
