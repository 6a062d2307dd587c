"""Exported programs in a process without this package: the code of docs/bundles.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.diffusion.samplers import normal
from lumiere_jax.inference import stablehlo
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import sample_keys
from lumiere_jax.runtime.errors import UserError
from tests.inference.running import run

ROOT = Path(__file__).parents[2]
PROMPTS = ["a large red circle moving right", "a small blue cross standing still",
           "a small green ring moving up"]  # fmt: skip
SEEDS = [4, 1, 7]
RUN = """
import sys
bundle, programs, inputs, output = sys.argv[1:]
given = dict(np.load(inputs))
noise = given.pop("noise")
made = sample(bundle, programs, **given)
one = {name: x[:1] for name, x in given.items()}
first = sample(bundle, programs, **one)
del given["seeds"]
base = sample_base_by_steps(bundle, programs, noise=noise, **given)
assert not [name for name in sys.modules if name.startswith("lumiere_jax")]
np.savez(output, made=made, first=first, base=base)
"""


@pytest.fixture(name="bundle", scope="module")
def fixture_bundle(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs") / "bundle"
    export([str(cascade[stage]) for stage in ("t2i", "stunet", "ssr")], folder)
    return folder


@pytest.fixture(name="made", scope="module")
def fixture_made(bundle):
    code, output, errors = run("export_programs", bundle=bundle, output=bundle.parent / "programs")
    assert code == 0, errors
    names = ["stunet_step", "stunet_sampler", "ssr_step", "ssr_sampler"]
    assert [Path(line).stem for line in output.splitlines()] == names
    return bundle.parent / "programs"


def test_the_same_video_without_this_package(bundle, made, tmp_path):
    pipeline = LumierePipeline.from_pretrained(bundle, show_progress=False)
    stage, _ = pipeline.base
    text, mask = stage.text_encoder(PROMPTS)
    data = stage.config.data
    shape = (len(PROMPTS), data.num_frames, data.resolution, data.resolution, 3)
    noise = normal(sample_keys(SEEDS, 0), 0, shape)
    np.savez(tmp_path / "in.npz", text=text, text_mask=mask, noise=noise,
             seeds=np.array(SEEDS, np.uint32))  # fmt: skip
    page = (ROOT / "docs" / "bundles.md").read_text()
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", page, re.S) if "def program" in c)
    process = subprocess.run(
        [sys.executable, "-c", code + RUN, bundle, made, tmp_path / "in.npz", tmp_path / "out.npz"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    found = np.load(tmp_path / "out.npz")
    expected = pipeline(PROMPTS, seeds=SEEDS)
    base = pipeline(PROMPTS, seeds=SEEDS, base_only=True)
    assert found["made"].shape == expected.shape and np.ptp(expected) > 0.1
    np.testing.assert_allclose(found["made"], expected, atol=1e-4)
    np.testing.assert_allclose(found["first"], expected[:1], atol=1e-4)
    np.testing.assert_allclose(found["base"], base, atol=1e-4)


def test_a_program_is_for_all_platforms_and_holds_no_weights(bundle, made):
    manifest = json.loads((made / stablehlo.MANIFEST).read_text())
    assert manifest["platforms"] == ["cpu", "tpu", "cuda"]
    for name, entry in manifest["programs"].items():
        data = (made / f"{name}{stablehlo.SUFFIX}").read_bytes()
        exported = jax.export.deserialize(data)
        assert exported.platforms == ("cpu", "tpu", "cuda")
        assert len(data) == entry["bytes"]
        assert str(exported.in_avals[-1].shape[0]) == "b"
        assert entry["inputs"]["text"]["shape"][0] == "b"
        assert entry["stage"] == name.rpartition("_")[0]
        _, params, _ = checkpoint.load(bundle / entry["stage"])
        shapes = {".".join(p): list(np.shape(x)) for p, x in flatten_dict(params).items()}
        assert {n: w["shape"] for n, w in entry["weights"].items()} == shapes
        assert {w["dtype"] for w in entry["weights"].values()} == {"bfloat16"}
    largest = (bundle / "t2i" / "weights.safetensors").stat().st_size
    assert (made / "stunet_sampler.stablehlo").stat().st_size < max(largest, 500_000)


def test_a_conditional_stage_takes_what_is_known(cascade, tmp_path, without_annotations):
    pipeline = LumierePipeline.from_checkpoints(cascade["stunet_conditional"], show_progress=False)
    made = stablehlo.export_programs(
        pipeline, tmp_path / "p", platforms=["cpu"], stages=["my_base"]
    )
    assert [path.stem for path in made] == ["stunet_conditional_step", "stunet_conditional_sampler"]
    entry = json.loads((tmp_path / "p" / "programs.json").read_text())["programs"]
    assert entry["stunet_conditional_sampler"]["inputs"]["known"]["shape"][-1] == 4
    assert {described["stage"] for described in entry.values()} == {"my_base"}
    (tmp_path / "p" / "mine.py").write_text("of the user")
    again = stablehlo.export_programs(pipeline, tmp_path / "p", platforms=["cpu", "rocm"])
    assert (tmp_path / "p" / "mine.py").is_file()
    assert made == again and len(list(tmp_path.iterdir())) == 1


def test_bad_requests(bundle, tmp_path):
    pipeline = LumierePipeline.from_pretrained(bundle, show_progress=False)
    with pytest.raises(UserError, match="exists and holds no programs"):
        stablehlo.export_programs(pipeline, tmp_path)
    with pytest.raises(UserError, match="is in a bucket"):
        stablehlo.export_programs(pipeline, "gs://bucket/programs")
    with pytest.raises(UserError, match="num_frames=0 must be at least 1"):
        stablehlo.export_programs(pipeline, tmp_path / "x", num_frames=0)
    with pytest.raises(UserError, match="choose from cpu, tpu, cuda, rocm"):
        stablehlo.export_programs(pipeline, tmp_path / "x", platforms=["gpu"])
    code, _, errors = run("export_programs", bundle=tmp_path, output=tmp_path / "x")
    assert code == 2 and "is not a bundle" in errors
    assert not list(tmp_path.iterdir())
