import jax
import numpy as np
import pytest
import torch

from lumiere_jax.metrics import c3d
from lumiere_jax.runtime.errors import UserError

CONVOLUTIONS = {
    "conv1a": (3, 64), "conv2a": (64, 128), "conv3a": (128, 256), "conv3b": (256, 256),
    "conv4a": (256, 512), "conv4b": (512, 512), "conv5a": (512, 512), "conv5b": (512, 512),
}  # fmt: skip
DENSE = {"fc6": (8192, 4096), "fc7": (4096, 4096), "fc8": (4096, 101)}
POOL_AFTER = {"conv1a": 1, "conv2a": 2, "conv3b": 2, "conv4b": 2, "conv5b": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of the release's form with random numbers: NumPy arrays in Chainer's layout."""
    folder, rng = tmp_path_factory.mktemp("c3d"), np.random.default_rng(0)
    arrays = {}
    for name, (inputs, outputs) in CONVOLUTIONS.items():
        shape = (outputs, inputs, 3, 3, 3)
        arrays[f"{name}/W"] = rng.normal(0, (2 / (27 * inputs)) ** 0.5, shape)
    for name, (inputs, outputs) in DENSE.items():
        arrays[f"{name}/W"] = rng.normal(0, (2 / inputs) ** 0.5, (outputs, inputs))
    for name in list(arrays):
        arrays[name.replace("/W", "/b")] = rng.normal(0, 0.1, len(arrays[name]))
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    np.savez(folder / "conv3d_deepnetA_ucf.npz", **arrays)
    mean = rng.uniform(80, 120, (3, 16, 128, 171)).astype(np.float32)
    np.savez(folder / "mean2.npz", mean=mean)
    return folder, arrays, mean


def torch_logits(arrays: dict[str, np.ndarray], clips: torch.Tensor) -> np.ndarray:
    """The same network of PyTorch's functions; clips `[batch, 3, 16, 112, 112]`."""
    f, x = torch.nn.functional, clips
    for name in CONVOLUTIONS:
        weight, bias = (torch.from_numpy(arrays[f"{name}/{leaf}"]) for leaf in "Wb")
        x = f.relu(f.conv3d(x, weight, bias, padding=1))
        if name in POOL_AFTER:
            size = (POOL_AFTER[name], 2, 2)
            x = f.max_pool3d(x, size, size, ceil_mode=True)
    x = x.flatten(1)
    for name in DENSE:
        weight, bias = (torch.from_numpy(arrays[f"{name}/{leaf}"]) for leaf in "Wb")
        x = f.linear(x, weight, bias)
        x = x if name == "fc8" else f.relu(x)
    return x.numpy()


def test_logits_of_a_video_equal_those_of_pytorch(files):
    folder, arrays, mean = files
    params, clip_mean = c3d.load(folder / "conv3d_deepnetA_ucf.npz", folder / "mean2.npz")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 78_409_573
    video = np.random.default_rng(1).uniform(-1, 1, (1, 16, 60, 80, 3)).astype(np.float32)
    got = c3d.C3D().apply({"params": params}, c3d.preprocess(video, clip_mean))

    bgr = torch.from_numpy(128 * video[..., ::-1].copy()).permute(0, 4, 1, 2, 3)
    frames = bgr.transpose(1, 2).flatten(0, 1)  # PyTorch resizes [n, c, h, w]
    frames = torch.nn.functional.interpolate(
        frames, (112, 112), mode="bilinear", align_corners=True
    )
    clips = frames.reshape(1, 16, 3, 112, 112).transpose(1, 2)
    clips = clips + 128 - torch.from_numpy(mean[None, :, :, 8:120, 8:120])
    expected = torch_logits(arrays, clips)
    assert expected.std() > 1
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())


def test_missing_and_wrong_files_say_where_the_right_ones_are(files, tmp_path):
    folder, arrays, _ = files
    weights, mean = folder / "conv3d_deepnetA_ucf.npz", folder / "mean2.npz"
    with pytest.raises(UserError, match="absent.npz does not exist.*rezoo/tgan2"):
        c3d.load(tmp_path / "absent.npz", mean)
    with pytest.raises(UserError, match="no array 'conv1a/W'.*tgan2"):
        c3d.load(mean, mean)
    (tmp_path / "broken.npz").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="broken.npz cannot be read"):
        c3d.load(tmp_path / "broken.npz", mean)
    np.save(tmp_path / "one_array.npy", np.zeros(3))
    with pytest.raises(UserError, match="one_array.npy cannot be read"):
        c3d.load(tmp_path / "one_array.npy", mean)
    np.savez(tmp_path / "small.npz", mean=np.zeros((3, 16, 112, 112)))
    with pytest.raises(UserError, match="small.npz.*not \\(3, 16, 128"):
        c3d.load(weights, tmp_path / "small.npz")
    np.savez(tmp_path / "shape.npz", **(arrays | {"conv1a/W": arrays["conv2a/W"]}))
    with pytest.raises(UserError, match="conv1a/kernel has shape"):
        c3d.load(tmp_path / "shape.npz", mean)
