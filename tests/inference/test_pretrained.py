"""Pipelines from bundles: which stages are taken, and what comes back."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from lumiere_jax.checkpoints import bundle, selection
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.errors import UserError
from tests.inference.running import run
from tests.manifests import write_manifest
from tests.warm_python import python

PROMPT = "a large red circle moving right"
ELSEWHERE = """
import sys
import jax, numpy as np
from lumiere_jax.inference.pipeline import LumierePipeline
bundle, output, prompt = sys.argv[1:]
videos = LumierePipeline.from_pretrained(bundle)([prompt] * 4, seeds=[1, 2, 3, 4], num_steps=2)
np.savez(output, videos=videos, devices=jax.device_count())
"""


@pytest.fixture(name="made", scope="module")
def fixture_made(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "made"
    stages = ("t2i", "stunet", "stunet_conditional", "t2i_ssr", "ssr", "style")
    export([str(cascade[stage]) for stage in stages], folder, license="CC-BY-4.0")
    return folder


def names(chosen):
    base, others = chosen
    return [path.name for path in (base, *others)]


def test_stages_of_a_cascade(made):
    assert names(selection.choose(made)) == ["stunet", "ssr"]
    assert names(selection.choose(made, "stunet_conditional")) == ["stunet_conditional", "ssr"]
    assert names(selection.choose(made, "t2i")) == ["t2i", "t2i_ssr"]
    with pytest.raises(UserError, match="has no base stage 'ssr'; it has t2i, stunet, stunet_cond"):
        selection.choose(made, "ssr")


def test_distilled_stages(cascade, made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "copy")
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    for name in ("stunet", "ssr"):
        entry = json.loads(json.dumps(manifest["stages"][name]))
        entry["config"]["distillation"] = {"steps": [4]}
        manifest["stages"][f"{name}_4"] = entry
    write_manifest(copy, manifest)
    assert names(selection.choose(copy)) == ["stunet", "ssr"]
    assert names(selection.choose(copy, distilled=True)) == ["stunet_4", "ssr_4"]
    assert names(selection.choose(copy, "stunet_4")) == ["stunet_4", "ssr"]
    conditional = selection.choose(copy, "stunet_conditional", distilled=True)
    assert names(conditional) == ["stunet_conditional", "ssr_4"]
    manifest["stages"]["other"] = manifest["stages"]["stunet"]
    write_manifest(copy, manifest)
    with pytest.raises(UserError, match="has 2 bases: stunet, other; name one"):
        selection.choose(copy)
    assert names(selection.choose(copy, "other")) == ["other", "ssr"]


def test_a_bundle_without_a_base(cascade, tmp_path):
    export([str(cascade["ssr"])], tmp_path / "b")
    with pytest.raises(UserError, match="has no base stage; give another bundle"):
        LumierePipeline.from_pretrained(tmp_path / "b")


def test_saved_and_loaded_again(made, tmp_path):
    pipeline = LumierePipeline.from_pretrained(made, show_progress=False)
    styled = pipeline.with_style(made / "style", 0.5)
    folder = styled.save_pretrained(tmp_path / "styled", dtype="float32", license="MIT")
    back = LumierePipeline.from_pretrained(folder, show_progress=False)
    assert back.fingerprints() == styled.fingerprints() != pipeline.fingerprints()
    np.testing.assert_array_equal(back([PROMPT], seeds=[1]), styled([PROMPT], seeds=[1]))
    assert bundle.license(folder) == "MIT"
    assert {entry["step"] for entry in bundle.entries(folder).values()} == {None}
    assert "| `stunet` | stunet |" in (folder / "README.md").read_text()
    code, output, errors = run("export", f"--stage={folder}/stunet", output=tmp_path / "again")
    assert code == 0 and "unknown" in output, errors
    with pytest.raises(UserError, match="exists and is not a bundle"):
        pipeline.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m["stages"]["stunet"]["config"].update(seed=9), "not what its checksum says"),
        (lambda m: m["stages"]["stunet"].update(shares=None), "not what its checksum says"),
        (lambda m: m.update(license="MIT"), "not what its checksum says"),
        (lambda m: m.pop("sha256"), "not what its checksum says"),
        (lambda m: m.update(version="2"), "is not the manifest of a bundle"),
        (lambda m: m.update(version=0), "use the older program"),
    ],
)
def test_an_altered_manifest(made, tmp_path, damage, message):
    copy = shutil.copytree(made, tmp_path / "copy")
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    damage(manifest)
    (copy / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        LumierePipeline.from_pretrained(copy)


@pytest.mark.parametrize("devices", [3, 8])
def test_on_several_devices(made, tmp_path, devices):
    flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    process = subprocess.run(
        [python(), "-c", ELSEWHERE, made, tmp_path / "out.npz", PROMPT],
        env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    found = np.load(tmp_path / "out.npz")
    expected = LumierePipeline.from_pretrained(made)([PROMPT] * 4, seeds=[1, 2, 3, 4], num_steps=2)
    assert found["devices"] == devices and np.ptp(expected) > 0.1
    np.testing.assert_allclose(found["videos"], expected, atol=1e-4)


def test_binaries_take_a_bundle(made, tmp_path):
    code, _, errors = run(
        "sample", bundle=made, prompt=PROMPT, steps=2, base_only=True, output=tmp_path / "x.mp4"
    )
    assert code == 0 and (tmp_path / "x.mp4").stat().st_size > 0, errors
    for flags in ({"bundle": made, "base": made / "stunet"}, {}):
        code, _, errors = run("sample", prompt=PROMPT, output=tmp_path / "y.mp4", **flags)
        assert code == 2 and "either --bundle=BUNDLE, or --base" in errors
    code, _, errors = run(
        "sample", bundle=made, ssr=made / "ssr", prompt=PROMPT, output=tmp_path / "y.mp4"
    )
    assert code == 2 and "leave --ssr out" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
