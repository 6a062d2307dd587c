"""Bundles: what is in them, that any stage's place takes them, and how broken ones are told."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from lumiere_jax import bundle, checkpoint
from lumiere_jax.errors import UserError
from lumiere_jax.exporting import export
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.pipeline import LumierePipeline
from lumiere_jax.sharding import create_mesh
from lumiere_jax.train import train
from tests.test_verbs import run
from tests.tiny_runs import tiny_config

SHIPPED = ("t2i", "stunet", "stunet_conditional", "ssr", "style")
PROMPT = "a large red circle moving right"


def flat(params):
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(params).items()}


@pytest.fixture(name="made", scope="module")
def fixture_made(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "made"
    export([str(cascade[stage]) for stage in SHIPPED], folder)
    return folder


@pytest.fixture(name="copy")
def fixture_copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


@pytest.mark.parametrize("stage", SHIPPED)
def test_every_stage_comes_back_rounded_to_bfloat16(cascade, made, stage):
    expected_config, expected, step = checkpoint.load(cascade[stage])
    config, params, step_read = checkpoint.load(made / stage)
    expected, params = flat(expected), flat(params)
    assert params.keys() == expected.keys()
    for path, array in params.items():
        rounded = expected[path].astype(ml_dtypes.bfloat16).astype(np.float32)
        assert array.dtype == np.float32 and array.tobytes() == rounded.tobytes(), path
    assert step_read == step
    expected_config.init_from = ""
    assert json.loads(config.to_json()) == json.loads(expected_config.to_json())
    assert json.loads(checkpoint.load_config(made / stage).to_json()) == json.loads(
        config.to_json()
    )


def test_what_is_shared_is_there_once(made):
    t2i, stunet = (load_file(made / name / bundle.WEIGHTS) for name in ("t2i", "stunet"))
    assert t2i and stunet and all(is_temporal(tuple(name.split("."))) for name in stunet)
    conditional = load_file(made / "stunet_conditional" / bundle.WEIGHTS)
    assert {"conv_in.bias", "conv_in.kernel"} == {
        n for n in conditional if not is_temporal(tuple(n.split(".")))
    }


def test_others_can_read_the_files(made):
    files = [path for path in made.rglob("*") if path.is_file()]
    assert files and all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_float32_is_kept_exactly(cascade, tmp_path):
    export([str(cascade["stunet"])], tmp_path / "exact", "float32")
    expected, params = (
        flat(checkpoint.load(place)[1]) for place in (cascade["stunet"], tmp_path / "exact/stunet")
    )
    assert all(params[path].tobytes() == expected[path].tobytes() for path in expected)


def test_sampling_is_that_of_the_rounded_weights(cascade, made):
    rounded = LumierePipeline.from_checkpoints(cascade["stunet"], show_progress=False)
    stage, params = rounded.base
    params = jax.tree.map(lambda x: np.asarray(x).astype(ml_dtypes.bfloat16).astype("f4"), params)
    rounded.base = (stage, params)
    shipped = LumierePipeline.from_checkpoints(made / "stunet", show_progress=False)
    videos = [pipeline([PROMPT], seeds=[3]) for pipeline in (rounded, shipped)]
    np.testing.assert_array_equal(*videos)
    assert shipped.with_style(made / "style", 0.5).fingerprints() != shipped.fingerprints()


def test_a_stage_of_a_bundle_starts_a_training(made, tmp_path):
    train(tiny_config("stunet", made / "t2i", train__num_steps=1), tmp_path / "run")
    frozen = flat(checkpoint.load(made / "t2i")[1])
    trained = flat(checkpoint.load(tmp_path / "run")[1])
    assert all(trained[path].tobytes() == array.tobytes() for path, array in frozen.items())


def test_placed_on_a_mesh(made):
    mesh = create_mesh(checkpoint.load_config(made / "t2i").mesh)
    _, params, _ = checkpoint.load(made / "t2i", mesh)
    assert {leaf.sharding.mesh.axis_names for leaf in jax.tree.leaves(params)} == {mesh.axis_names}


def test_written_again_it_keeps_other_files(cascade, copy):
    (copy / "README.md").write_text("about")
    export([f"again={cascade['t2i']}"], copy)
    assert (copy / "README.md").read_text() == "about"
    assert list(bundle.entries(copy)) == ["again"]
    assert not list(copy.parent.glob(".*"))


def truncate(copy):
    file = copy / "stunet" / bundle.WEIGHTS
    file.write_bytes(file.read_bytes()[:-5])


def alter(copy):
    file = copy / "t2i" / bundle.WEIGHTS  # which the stage shares
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def set_version(copy):
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    (copy / bundle.MANIFEST).write_text(json.dumps(manifest | {"version": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"stunet/weights.safetensors has \d+ bytes in place of \d+; get the bundle"),
        (alter, "t2i/weights.safetensors is not what its checksum says"),
        (lambda copy: (copy / "t2i" / bundle.WEIGHTS).unlink(), "t2i/weights.* cannot be read"),
        (lambda copy: (copy / bundle.MANIFEST).write_text("{"), "manifest.json is no manifest"),
        (set_version, "version 99 of the format, and this program reads 1; use the newer program"),
    ],
)
def test_broken_files_are_named(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message):
        checkpoint.load(copy / "stunet")


def test_a_stage_that_is_not_there(made):
    with pytest.raises(UserError, match="has no stage 'sunet'; it has t2i, stunet"):
        checkpoint.load(made / "sunet")


def test_bad_requests(cascade, tmp_path):
    t2i = str(cascade["t2i"])
    with pytest.raises(UserError, match="two stages are called 't2i'"):
        export([t2i, t2i], tmp_path / "x")
    with pytest.raises(UserError, match="dtype 'int3' is unknown"):
        export([t2i], tmp_path / "x", "int3")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine exists and is no bundle"):
        export([t2i], tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_binary(cascade, tmp_path):
    flags = [f"--stage={cascade['t2i']}", f"--stage=video={cascade['stunet']}"]
    code, output, errors = run("export", *flags, output=tmp_path / "b")
    assert code == 0, errors
    assert "video" in output and "what t2i has" in output
    code, _, errors = run("export", "--stage=nowhere", output=tmp_path / "c")
    assert code == 2 and "no checkpoint in nowhere" in errors
