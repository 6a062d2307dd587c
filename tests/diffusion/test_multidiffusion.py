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


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_window_invariant_denoiser_is_unchanged_exactly(chunk):
    # At most two windows share a frame, so the weights are 1 and 1/2 and nothing is rounded.
    video = random_video((2, 20, 4, 4, 3))
    predict = multidiffusion.multidiffuse(
        lambda z: 3 * z, num_frames=20, window=8, overlap=2, chunk=chunk
    )
    np.testing.assert_array_equal(jax.jit(predict)(video), 3 * video)


@settings(deadline=None, max_examples=15)
@given(lengths, st.sampled_from(["uniform", "linear"]), st.integers(1, 5))
def test_window_invariant_denoiser_is_unchanged_to_rounding(sizes, kind, chunk):
    num_frames, window, overlap = sizes
    video = random_video((1, num_frames, 1, 2, 1))
    predict = multidiffusion.multidiffuse(
        lambda z: -2 * z,
        num_frames=num_frames,
        window=window,
        overlap=overlap,
        weights=kind,
        chunk=chunk,
    )
    np.testing.assert_allclose(predict(video), -2 * video, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "linear"])
@pytest.mark.parametrize("num_frames", [15, 20])
def test_solves_the_least_squares_problem(num_frames, kind):
    window, overlap = 8, 3
    video = random_video((1, num_frames, 2, 2, 1))

    def denoise(z):
        # Nonlinear, and different in every window that a frame is in.
        return jnp.sin(z * jnp.arange(1, window + 1)[:, None, None, None]) + jnp.mean(z)

    predict = multidiffusion.multidiffuse(
        denoise, num_frames=num_frames, window=window, overlap=overlap, weights=kind, chunk=2
    )
    rows, targets = [], []
    root = np.sqrt(multidiffusion.window_weights(window, kind))
    for start in multidiffusion.windows(num_frames, window, overlap):
        selection = np.eye(num_frames)[start : start + window]
        rows.append(root[:, None] * selection)
        prediction = np.asarray(denoise(video[:, start : start + window]), np.float64)
        targets.append(root[:, None] * prediction.reshape(window, -1))
    expected, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)
    np.testing.assert_allclose(
        np.asarray(predict(video)).reshape(num_frames, -1), expected, atol=2e-6
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 99])
def test_chunk_size_does_not_change_the_result(chunk):
    video, low_resolution = random_video((2, 22, 4, 4, 3)), random_video((2, 22, 4, 4, 3), 1)

    def denoise(z, low):
        return z * jnp.sum(z, axis=1, keepdims=True) + low[..., :1]

    def fuse(chunk, weights, *inputs):
        return multidiffusion.multidiffuse(
            denoise, num_frames=22, window=6, overlap=2, weights=weights, chunk=chunk
        )(*inputs)

    np.testing.assert_allclose(
        fuse(chunk, "linear", video, low_resolution),
        fuse(None, "linear", video, low_resolution),
        atol=5e-6,  # The compiler may round the denoiser itself differently.
    )
    # Small integers and weights of 1 and 1/2 leave nothing to round.
    integers = np.round(4 * video), np.round(4 * low_resolution)
    np.testing.assert_array_equal(
        fuse(chunk, "uniform", *integers), fuse(None, "uniform", *integers)
    )


def test_other_inputs_are_cut_with_the_video():
    index = np.arange(20, dtype=np.float32).reshape(1, 20, 1, 1, 1)
    predict = multidiffusion.multidiffuse(
        lambda z, low: low - z, num_frames=20, window=8, overlap=2, chunk=1
    )
    np.testing.assert_array_equal(predict(index, index + 5), np.full_like(index, 5))


def test_output_channels_may_differ_from_those_of_the_input():
    video = random_video((2, 20, 4, 4, 3))
    predict = multidiffusion.multidiffuse(
        lambda z: z[..., :2], num_frames=20, window=8, overlap=2, chunk=2
    )
    np.testing.assert_array_equal(predict(video), video[..., :2])


def test_one_window_passes_the_video_through_the_network_once():
    video = random_video((1, 5, 2, 2, 3))
    predict = multidiffusion.multidiffuse(
        lambda z: jnp.cumsum(z, axis=1), num_frames=5, window=8, overlap=2
    )
    np.testing.assert_array_equal(predict(video), jnp.cumsum(video, axis=1))


def differences_of_shifted_windows(overlap, weights):
    """Neighbour-frame differences where the i-th window adds i to a still video."""
    num_frames, window = 80, 8
    starts = multidiffusion.windows(num_frames, window, overlap)
    shift = np.zeros(num_frames, np.float32)
    shift[list(starts)] = np.arange(len(starts))
    time_input = shift.reshape(1, num_frames, 1, 1, 1)
    predict = multidiffusion.multidiffuse(
        lambda z, shift: z + shift[:, :1],
        num_frames=num_frames,
        window=window,
        overlap=overlap,
        weights=weights,
    )
    video = predict(jnp.zeros((1, num_frames, 2, 2, 1)), time_input)
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


def test_memory_grows_with_the_chunk_and_not_with_the_windows():
    video = jax.ShapeDtypeStruct((1, 80, 32, 32, 3), jnp.float32)

    def temporaries(chunk):
        predict = multidiffusion.multidiffuse(
            lambda z: jnp.sort(jnp.repeat(z, 16, axis=-1), axis=-1)[..., :3],
            num_frames=80,
            window=8,
            overlap=2,
            chunk=chunk,
        )
        return jax.jit(predict).lower(video).compile().memory_analysis().temp_size_in_bytes

    one, four, everything = temporaries(1), temporaries(4), temporaries(None)
    assert one < four / 2 < everything / 4


@pytest.mark.parametrize(
    ("sizes", "word"),
    [((80, 8, 8), "overlap=8"), ((80, 8, -1), "overlap=-1"), ((0, 8, 2), "num_frames=0")],
)
def test_bad_sizes_are_refused(sizes, word):
    with pytest.raises(UserError, match=word):
        multidiffusion.windows(*sizes)


def test_bad_weights_chunk_and_inputs_are_refused():
    sizes = {"num_frames": 20, "window": 8, "overlap": 2}
    with pytest.raises(UserError, match="'cosine'"):
        multidiffusion.multidiffuse(lambda z: z, weights="cosine", **sizes)
    with pytest.raises(UserError, match="chunk=0"):
        multidiffusion.multidiffuse(lambda z: z, chunk=0, **sizes)
    with pytest.raises(UserError, match="19"):
        multidiffusion.multidiffuse(lambda z: z, **sizes)(jnp.zeros((1, 19, 2, 2, 3)))
