"""Bundles: what is in them, that any stage's place takes them, and how broken ones are told."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from lumiere_jax.checkpoints import bundle, checkpoint
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh
from tests.inference.running import run
from tests.manifests import write_manifest
from tests.tiny_runs import ONE_STEP, tiny_config, train

SHIPPED = ("t2i", "stunet", "stunet_conditional", "ssr", "style")
PROMPT = "a large red circle moving right"


def flat(params):
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(params).items()}


def flat_params(place):
    return flat(checkpoint.load(place)[1])


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
    expected_config.init_from = expected_config.data.folder = ""  # of the machine it was made on
    for found in (config, checkpoint.load_config(made / stage)):
        assert json.loads(found.to_json()) == json.loads(expected_config.to_json())


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
    expected, params = flat_params(cascade["stunet"]), flat_params(tmp_path / "exact/stunet")
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
    train(tiny_config("stunet", made / "t2i", **ONE_STEP), tmp_path / "run")
    frozen, trained = flat_params(made / "t2i"), flat_params(tmp_path / "run")
    assert all(trained[path].tobytes() == array.tobytes() for path, array in frozen.items())


def test_placed_on_a_mesh(made):
    mesh = create_mesh(checkpoint.load_config(made / "t2i").mesh)
    _, params, _ = checkpoint.load(made / "t2i", mesh)
    assert {leaf.sharding.mesh.axis_names for leaf in jax.tree.leaves(params)} == {mesh.axis_names}


def test_written_again_it_keeps_other_files_and_stages(cascade, copy):
    (copy / "README.md").write_text("about")
    (copy / "losses").mkdir(exist_ok=True)
    (copy / "losses" / "t2i.png").write_text("of a former run")
    link = copy.with_name("link")
    link.symlink_to(copy)
    with pytest.raises(UserError, match=rf"would be lost: {', '.join(SHIPPED[1:])}; give them as"):
        export([str(cascade["t2i"])], link)
    assert list(bundle.entries(copy)) == list(SHIPPED)
    stages = [f"again={cascade['t2i']}", str(cascade["t2i"])]
    export([*stages, *(str(copy / name) for name in SHIPPED[1:])], link)
    assert link.is_symlink() and (copy / "README.md").read_text() == "about"
    assert list(bundle.entries(copy)) == ["again", *SHIPPED]
    plots = {path.stem for path in (copy / "losses").glob("*.png")}
    sources = {name: cascade[name] for name in SHIPPED} | {"again": cascade["t2i"]}
    assert plots == {name for name, run in sources.items() if (run / "loss.png").is_file()}
    assert not list(copy.parent.glob(".*"))


def test_stages_by_other_names_share_with_no_ring(cascade, tmp_path):
    places = {"stunet": "stunet_conditional", "t2i": "stunet", "image": "t2i"}
    export([f"{name}={cascade[stage]}" for name, stage in places.items()], tmp_path / "b")
    entries = bundle.entries(tmp_path / "b")
    assert {name: entry["shares"] for name, entry in entries.items()} == {
        "stunet": "t2i", "t2i": "image", "image": None,
    }  # fmt: skip
    for name, stage in places.items():
        params = flat_params(tmp_path / "b" / name)
        for path, array in flat_params(cascade[stage]).items():
            assert params[path].tobytes() == array.astype(ml_dtypes.bfloat16).astype("f4").tobytes()
    export([f"stunet={cascade['stunet_conditional']}"], tmp_path / "one")
    assert bundle.entries(tmp_path / "one")["stunet"]["shares"] is None


def test_a_bundle_says_nothing_of_the_machine(cascade, tmp_path):
    config, params, step = checkpoint.load(cascade["t2i"])
    config = config.to_dict()
    config["text"]["folder"], config["data"]["captions"] = "/home/me/t5", "/home/me/c.csv"
    config["data"]["mixture"] = [{"name": "video_folder", "folder": "/home/me/clips"}]
    config["imported_from"] = "/home/me/IF-I"
    bundle.write({"t2i": (config, params, step)}, tmp_path / "b", {})
    assert "/home/me" not in (tmp_path / "b" / bundle.MANIFEST).read_text()
    assert config["text"]["folder"]  # the caller's own stays
    assert bundle.entries(tmp_path / "b")["t2i"]["config"]["imported_from"] == "IF-I"


def test_a_workdir_whose_name_holds_an_equals_sign(cascade, tmp_path):
    place = tmp_path / "lr=0.003"
    place.symlink_to(cascade["t2i"])
    export([str(place), f"two={place}"], tmp_path / "b")
    assert list(bundle.entries(tmp_path / "b")) == ["t2i", "two"]


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


def test_a_bundle_that_cannot_be_read_is_not_replaced(cascade, copy):
    set_version(copy)
    with pytest.raises(UserError, match="cannot be read; remove it, or choose another --output"):
        export([str(cascade["t2i"])], copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"stunet/weights.safetensors has \d+ bytes in place of \d+; get the bundle"),
        (alter, "t2i/weights.safetensors is not what its checksum says"),
        (lambda copy: (copy / "t2i" / bundle.WEIGHTS).unlink(), "t2i/weights.* cannot be read"),
        (
            lambda copy: (copy / "manifest.json").write_text("{"),
            "manifest.json is not the manifest",
        ),
        (set_version, "version 99 of the format, and this program reads 2; use the newer program"),
    ],
)
def test_broken_files_are_named(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message):
        checkpoint.load(copy / "stunet")


def of_stage(field, value):
    return lambda manifest: manifest["stages"]["stunet"].update({field: value})


def without(field):
    return lambda manifest: manifest["stages"]["stunet"].pop(field)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda manifest: manifest.pop("stages"), "'stages' is missing"),
        (lambda manifest: manifest.update(stages=[]), r"'stages' is \[\]"),
        (lambda manifest: manifest.update(stages={}), "it has no stages"),
        (without("config"), "stage 'stunet': 'config' is missing"),
        (without("shares"), "stage 'stunet': 'shares' is missing"),
        (of_stage("shares", "stunet"), "stage 'stunet' shares with itself"),
        (of_stage("shares", "stunet_conditional"), "shares with itself"),
        (of_stage("shares", "../../x"), r"'stunet' shares with '../../x', which is not there"),
        (of_stage("config", {"stage": "t2i"}), "stage 'stunet': 'model' is missing"),
        (of_stage("step", True), "stage 'stunet': 'step' is True"),
        (
            lambda manifest: manifest["stages"]["t2i"]["config"].update(stage="nope"),
            "stage 't2i': its kind 'nope' is unknown",
        ),
        (
            lambda manifest: manifest["stages"].update({"../x": manifest["stages"]["t2i"]}),
            "'../x' is not a name for a stage",
        ),
    ],
)
def test_manifests_of_another_shape(copy, change, problem):
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    change(manifest)
    write_manifest(copy, manifest)
    message = rf"manifest.json is not the manifest of a bundle .*{problem}"
    with pytest.raises(UserError, match=message):
        checkpoint.load(copy / "stunet")


def test_parameters_that_are_missing(copy):
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    manifest["stages"]["stunet"]["shares"] = None
    write_manifest(copy, manifest)
    with pytest.raises(UserError, match=r"stunet/weights.safetensors holds [\d,]+ of [\d,]+ param"):
        checkpoint.load(copy / "stunet")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version": true}', "[]", "null"])
def test_what_is_no_manifest(copy, text):
    (copy / bundle.MANIFEST).write_text(text)
    with pytest.raises(UserError, match="manifest.json is not the manifest of a bundle"):
        checkpoint.load(copy / "stunet")


def test_a_stage_by_other_paths(made, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(made / "t2i")
    expected = checkpoint.fingerprint(checkpoint.load(made / "t2i")[1])
    monkeypatch.chdir(made / "t2i")
    for place in (tmp_path / "link", "."):
        assert checkpoint.fingerprint(checkpoint.load(place)[1]) == expected


def test_stages_of_a_bundle_bring_along_what_they_have(cascade, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    export([f"image={cascade['t2i']}", str(cascade["stunet"])], first, license="MIT")
    (first / "losses").mkdir(exist_ok=True)
    (first / "losses" / "image.png").write_bytes(b"a picture")
    (first / "image" / "notes.txt").write_text("mine")
    export([f"t2i={first / 'image'}", str(first / "stunet")], again)
    assert bundle.license(again) == "MIT"
    assert (again / "losses" / "t2i.png").read_bytes() == b"a picture"
    for name, former in (("t2i", "image"), ("stunet", "stunet")):
        files = [folder / bundle.WEIGHTS for folder in (again / name, first / former)]
        assert files[0].read_bytes() == files[1].read_bytes()
    export([f"image={first / 'image'}", str(first / "stunet")], first)  # onto itself
    assert bundle.license(first) == "MIT" and (first / "losses" / "image.png").is_file()
    assert (first / "image" / "notes.txt").read_text() == "mine"
    export([f"image={cascade['t2i']}", str(cascade["stunet"])], first)  # what is replaced counts
    assert bundle.license(first) == "MIT"
    export([str(cascade["ssr"])], tmp_path / "other", license="Apache-2.0")
    stages = [str(first / "image"), str(tmp_path / "other" / "ssr")]
    with pytest.raises(UserError, match=r"under several licenses \(Apache-2.0; MIT\); say by"):
        export(stages, tmp_path / "both")
    export(stages, tmp_path / "both", license="MIT and Apache-2.0")


def test_folders_that_are_in_the_way(cascade, tmp_path):
    made, stages = tmp_path / "b", [str(cascade["t2i"])]
    export(stages, made)
    (made / "stunet").mkdir()
    (made / "stunet" / "precious").write_text("mine")
    with pytest.raises(UserError, match="b/stunet is not a stage of that bundle, but in the way"):
        export([*stages, str(cascade["stunet"])], made)
    assert (made / "stunet" / "precious").is_file()
    shutil.rmtree(made / "losses", ignore_errors=True)
    (made / "losses").write_text("mine")
    with pytest.raises(UserError, match="'losses' is not a folder of loss curves"):
        export(stages, made)
    assert (made / "losses").read_text() == "mine" and bundle.entries(made)


def test_a_stage_that_is_not_there(made):
    with pytest.raises(UserError, match="has no stage 'sunet'; it has t2i, stunet"):
        checkpoint.load(made / "sunet")


def test_bad_requests(cascade, tmp_path):
    t2i = str(cascade["t2i"])
    with pytest.raises(UserError, match="two stages have one name"):
        export([t2i, t2i], tmp_path / "x")
    with pytest.raises(UserError, match="dtype 'int3' is unknown"):
        export([t2i], tmp_path / "x", "int3")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine exists and is not a bundle"):
        export([t2i], tmp_path / "mine")
    with pytest.raises(UserError, match="is in a bucket; write a local folder"):
        export([t2i], "gs://bucket/model")
    (tmp_path / "mine" / "file").write_text("1")
    with pytest.raises(UserError, match="cannot be written"):
        export([t2i], tmp_path / "mine" / "file" / "x")
    for name in ("a-b", "a" * 300, "losses"):
        with pytest.raises(UserError, match="is not a name for a stage"):
            export([f"{name}={t2i}"], tmp_path / "x")
    for place in ("o" * 300, "x\udcff"):
        with pytest.raises(UserError, match="is not a valid name for a folder"):
            export([t2i], tmp_path / place)
    with pytest.raises(UserError, match="the license 'two.*' is not one line"):
        export([t2i], tmp_path / "x", license="two\nlines")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_binary(cascade, tmp_path):
    flags = [f"--stage={cascade['t2i']}", f"--stage=video={cascade['stunet']}"]
    code, output, errors = run("export", *flags, output=tmp_path / "b")
    assert code == 0, errors
    assert "video" in output and "what t2i has" in output
    code, _, errors = run("export", "--stage=nowhere", output=tmp_path / "c")
    assert code == 2 and "no checkpoint in nowhere" in errors
