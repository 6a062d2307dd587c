import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.safetensors_reading import TensorFiles

TENSORS = {
    "b.weight": torch.arange(12.0).reshape(3, 4).bfloat16(),
    "a.weight": torch.linspace(0, 1, 24).reshape(2, 3, 4),
    "half": torch.linspace(-1, 1, 5).half(),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 4),
}


def sharded(folder, stem="model"):
    parts = {f"{stem}-00001-of-00002.safetensors": ["b.weight", "count"]}
    parts[f"{stem}-00002-of-00002.safetensors"] = ["a.weight", "half", "none"]
    for file, names in parts.items():
        save_torch({name: TENSORS[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(name="folder", params=["one file", "shards", "other stem"])
def fixture_folder(request, tmp_path):
    if request.param == "one file":
        save_torch(TENSORS, tmp_path / "model.safetensors")
        return tmp_path, "model"
    stem = "model" if request.param == "shards" else "diffusion_pytorch_model"
    sharded(tmp_path, stem)
    return tmp_path, stem


def test_tensors_are_those_that_were_saved(folder):
    files = TensorFiles(*folder)
    assert files.names() == sorted(TENSORS)
    for name, tensor in TENSORS.items():
        array = files.read(name)
        assert array.shape == files.shape(name) == tuple(tensor.shape)
        assert array.dtype == files.dtype(name)
        np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy())
    assert files.dtype("b.weight") == ml_dtypes.bfloat16
    assert files.dtype("half") == np.float16 and files.dtype("count") == np.int64


BOUND = st.none() | st.integers(0, 9)


@given(bounds=st.lists(st.tuples(BOUND, BOUND), max_size=3))
def test_slices_are_those_of_numpy(tmp_path_factory, bounds):
    folder = tmp_path_factory.getbasetemp() / "slices"
    if not folder.exists():
        folder.mkdir()
        save_torch(TENSORS, folder / "model.safetensors")
    index = tuple(slice(*bound) for bound in bounds)
    part = TensorFiles(folder).read_slice("a.weight", index)
    np.testing.assert_array_equal(part, TENSORS["a.weight"].numpy()[index])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is in memory")
def test_a_slice_reads_no_more_than_its_bytes(tmp_path):
    path = tmp_path / "model.safetensors"
    stored = np.full((4, 1 << 20), 3.0, np.float32)
    save_file({"x": stored}, path)
    files = TensorFiles(tmp_path)
    assert resident_file_bytes(path) < stored.nbytes / 2
    part = files.read_slice("x", (slice(1, 2), slice(0, 1024)))
    assert part.shape == (1, 1024) and (part == 3.0).all()
    assert resident_file_bytes(path) < stored.nbytes / 2
    assert files.read("x").nbytes <= resident_file_bytes(path)  # it can be seen at all


def resident_file_bytes(path):
    """What this process has of a file in memory."""
    total, inside = 0, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            if "-" in line.split(" ")[0]:
                inside = line.rstrip().endswith(str(path))
            elif inside and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def test_folder_or_files_that_are_missing(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*absent.*model\.safetensors"):
        TensorFiles(tmp_path / "absent")
    with pytest.raises(UserError, match="neither model.safetensors nor .*give the folder that"):
        TensorFiles(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"only pytorch_model.bin, a pickle.*save_pretrained"):
        TensorFiles(tmp_path)
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors is missing; copy all"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize(
    "files, index",
    [
        (["model.fp16.safetensors"], None),
        (["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"], None),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
        (["model.fp16-00001-of-00001.safetensors"], "model.safetensors.index.fp16.json"),
        (["model.fp16-00001-of-00001.safetensors"], "model.fp16.safetensors.index.json"),
    ],
)
def test_variants_and_parts_without_an_index_are_read(tmp_path, files, index):
    names = sorted(TENSORS)
    for n, file in enumerate(files):
        save_torch({name: TENSORS[name] for name in names[n :: len(files)]}, tmp_path / file)
    if index:
        weight_map = dict.fromkeys(names, files[0])
        (tmp_path / index).write_text(json.dumps({"weight_map": weight_map}))
    assert TensorFiles(tmp_path).names() == names
    save_torch({"other": TENSORS["half"]}, tmp_path / "model.safetensors")
    assert TensorFiles(tmp_path).names() == ["other"]  # beside it, a variant is another copy


def test_variants_and_parts_of_which_it_is_not_clear_what_to_read(tmp_path):
    for name in ("model.fp16.safetensors", "model.non_ema.safetensors"):
        save_torch(TENSORS, tmp_path / name)
    with pytest.raises(UserError, match="the variants fp16, non_ema; make a folder with one"):
        TensorFiles(tmp_path)
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "model-00001-of-00002.safetensors").rename(tmp_path / "x")
    with pytest.raises(UserError, match="1 parts of model and no index, and model-00002-of-00002"):
        TensorFiles(tmp_path)
    for n in (1, 2):
        save_torch(TENSORS, tmp_path / f"model-0000{n}-of-00002.safetensors")
    with pytest.raises(UserError, match="and another part both have the tensor 'a.weight'"):
        TensorFiles(tmp_path)


def test_damaged_files(tmp_path):
    file = tmp_path / "model.safetensors"
    save_torch(TENSORS, file)
    whole = file.read_bytes()
    for damaged in (b"", b"no tensors", whole[:50], whole[:-1]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model.safetensors cannot be read .*copy it again"):
            TensorFiles(tmp_path)


def test_damaged_index(tmp_path):
    sharded(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    shard = "model-00001-of-00002.safetensors"
    for damaged in ("", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"x": 3}}',
                    '{"weight_map": {"x": "../model.safetensors"}}'):  # fmt: skip
        index.write_text(damaged)
        with pytest.raises(UserError, match="is not an index of safetensors files"):
            TensorFiles(tmp_path)
    index.write_text(json.dumps({"weight_map": {"absent": shard}}))
    with pytest.raises(UserError, match=r"'absent' in model-00001.*copy all of them again"):
        TensorFiles(tmp_path)


def test_tensors_that_are_not_there_or_of_another_kind(tmp_path):
    save_torch({"x": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    with pytest.raises(UserError, match="has no tensor 'y' among its 1"):
        files.read("y")
    with pytest.raises(UserError, match=r"'x' has numbers of type F8_E4M3.*convert it"):
        files.read("x")
    files.check_shape("x", (2,))
    with pytest.raises(UserError, match=r"'x' has shape \(2,\), and \(3,\) is needed"):
        files.check_shape("x", (3,))
