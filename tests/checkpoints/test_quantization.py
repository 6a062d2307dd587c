"""int8 weights: rounding against NumPy, bundles and programs that hold them."""

import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from lumiere_jax.checkpoints import bundle, checkpoint, quantization
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.inference import stablehlo
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.errors import UserError

PROMPT = "a large red circle moving right"
SHAPES = st.sampled_from([(3, 4), (2, 3, 4), (3, 3, 2, 4), (2, 3, 1, 2, 4)])


def values(shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32))


@given(SHAPES.flatmap(values))
def test_rounding(kernel):
    rounded, scale = quantization.quantize(kernel)
    layers = 1 if kernel.ndim in (3, 5) else 0
    axes = tuple(range(layers, kernel.ndim - 1))
    most = np.abs(kernel.astype(np.float64)).max(axis=axes, keepdims=True)
    assert rounded.dtype == np.int8 and rounded.shape == kernel.shape
    assert scale.shape == quantization.scale_shape(kernel.shape) == most.shape
    is_tiny = most < 1e-6  # rounded to 0
    np.testing.assert_allclose(scale[~is_tiny], (most / 127)[~is_tiny], rtol=1e-2)
    back = quantization.dequantize({"a.kernel": rounded, "a.kernel_scale": scale})["a.kernel"]
    assert (np.abs(back - kernel) <= 0.51 * most / 127 + 1e-6).all()


def test_what_is_no_kernel_stays():
    arrays = {"a.bias": np.ones(3, np.float32), "b.scale": np.ones(2, np.float32)}
    assert quantization.dequantize(arrays) == arrays
    assert not quantization.is_kernel("a.bias", np.ones((2, 3)))
    assert not quantization.is_kernel("a.kernel", np.ones(3))


@pytest.fixture(name="made", scope="module")
def fixture_made(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "made"
    export([str(cascade[stage]) for stage in ("t2i", "stunet", "ssr")], folder, "int8")
    return folder


def test_a_bundle_of_int8(cascade, made):
    exact = flatten_dict(checkpoint.load(cascade["stunet"])[1])
    rounded = flatten_dict(checkpoint.load(made / "stunet")[1])
    assert rounded.keys() == exact.keys()
    for path, array in rounded.items():
        error = np.abs(array - np.asarray(exact[path])).max()
        assert array.dtype == np.float32 and error <= np.abs(exact[path]).max() / 127, path
    stored = load_file(made / "t2i" / bundle.WEIGHTS)
    kernels = [name for name in stored if name.endswith("kernel")]
    assert kernels and {stored[name].dtype.name for name in kernels} == {"int8"}
    number = sum(np.size(leaf) for leaf in exact.values())
    assert bundle.entries(made)["stunet"]["parameters"] == number
    assert bundle.entries(made)["stunet"]["shares"] == "t2i"


def test_int8_is_not_rounded_twice(cascade, made, tmp_path):
    stages = [str(made / "t2i"), str(cascade["stunet"]), str(made / "ssr")]
    export(stages, tmp_path / "again", "int8")
    for stage in ("t2i", "stunet", "ssr"):  # and the run's frozen weights are shared as before
        files = [folder / stage / bundle.WEIGHTS for folder in (made, tmp_path / "again")]
        assert files[0].read_bytes() == files[1].read_bytes(), stage


def test_programs_take_int8(made, tmp_path, without_annotations):
    pipeline = LumierePipeline.from_pretrained(made, show_progress=False)
    stablehlo.export_programs(pipeline, tmp_path / "p", dtype=bundle.dtype(made), platforms=["cpu"])
    call = jax.export.deserialize((tmp_path / "p/stunet_sampler.stablehlo").read_bytes()).call
    weights = {name: array for stage in ("t2i", "stunet")
               for name, array in load_file(made / stage / bundle.WEIGHTS).items()}  # fmt: skip
    text, mask = pipeline.base[0].text_encoder([PROMPT])
    seeds = np.array([3], np.uint32)
    found = call(weights, {"text": text, "text_mask": mask, "seeds": seeds})["video"]
    expected = pipeline([PROMPT], seeds=[3], base_only=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_the_library(cascade, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(UserError, match=r"pip install 'lumiere_jax\[int8\]'"):
        export([str(cascade["t2i"])], tmp_path / "x", "int8")
    assert not list(tmp_path.iterdir())
