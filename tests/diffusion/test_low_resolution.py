import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lumiere_jax.diffusion import low_resolution
from lumiere_jax.runtime.errors import UserError


def random_video(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=shape).astype(np.float32)


def torch_resize(video, size, method, **options):
    batch, time, height, width, channels = video.shape
    frames = torch.from_numpy(video.astype(np.float64))
    frames = frames.reshape(batch * time, height, width, channels).permute(0, 3, 1, 2)
    frames = torch.nn.functional.interpolate(frames, size, mode=method, **options)
    return frames.permute(0, 2, 3, 1).reshape(batch, time, *size, channels).numpy()


@pytest.mark.parametrize("num_frames", [1, 7])  # 14 frames are a full chunk and a rest.
def test_bilinear_upsampling_matches_torch(num_frames):
    video = random_video((2, num_frames, 5, 6, 3))
    result = jax.jit(low_resolution.upsample_low_resolution, static_argnums=1)(video, (20, 48))
    np.testing.assert_allclose(result, torch_resize(video, (20, 48), "bilinear"), atol=1e-6)


@pytest.mark.parametrize("size", [(20, 48), (5, 6), (9, 6)])
def test_bilinear_upsampling_by_corners_matches_torch(size):
    video = random_video((1, 2, 5, 6, 3))
    result = low_resolution.upsample_low_resolution(video, size, "bilinear_corners")
    expected = torch_resize(video, size, "bilinear", align_corners=True)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_bicubic_upsampling_keeps_a_quadratic_inside():
    # A Keys kernel reproduces polynomials of degree two exactly, away from the borders.
    position = (np.arange(16) + 0.5) / 16
    video = np.broadcast_to((position**2)[:, None, None], (1, 1, 16, 16, 1))
    result = low_resolution.upsample_low_resolution(jnp.asarray(video), (64, 64), "bicubic")
    expected = ((np.arange(64) + 0.5) / 64) ** 2
    np.testing.assert_allclose(result[0, 0, 12:-12, 30, 0], expected[12:-12], atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_downsampling_matches_torch(factor):
    video = random_video((2, 3, 8, 12, 3))
    expected = torch_resize(video, (8 // factor, 12 // factor), "area")
    np.testing.assert_allclose(low_resolution.downsample(video, factor), expected, atol=1e-6)


def test_downsampling_inverts_upsampling_of_a_constant():
    video = np.full((1, 2, 4, 4, 3), 0.3, np.float32)
    large = low_resolution.upsample_low_resolution(video, (16, 16))
    np.testing.assert_allclose(low_resolution.downsample(large, 4), video, atol=1e-6)


def test_bad_sizes_and_methods_are_refused():
    video = np.zeros((1, 1, 8, 8, 3))
    with pytest.raises(UserError, match="by 3"):
        low_resolution.downsample(video, 3)
    with pytest.raises(UserError, match="4×16"):
        low_resolution.upsample_low_resolution(video, (4, 16))
    with pytest.raises(UserError, match="'lanczos'"):
        low_resolution.upsample_low_resolution(video, (16, 16), "lanczos")
