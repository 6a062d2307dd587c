"""Bundles that go to a model hub and come back, by a hub on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lumiere_jax.checkpoints import bundle, hub
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.runtime.errors import UserError
from tests.checkpoints.hub_stand_in import StandIn

REPOSITORY = Path(__file__).parents[2]
ROUND_TRIP = """
import sys
import numpy as np
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.inference.pipeline import LumierePipeline

pipeline = LumierePipeline.from_pretrained(sys.argv[1], show_progress=False)
print(pipeline.push_to_hub("someone/small", token="hf_secret", license="Apache-2.0"))
back = LumierePipeline.from_pretrained("someone/small", show_progress=False)
assert back.fingerprints() == pipeline.fingerprints()
again = LumierePipeline.from_pretrained("someone/small", revision="main", show_progress=False)
assert again.fingerprints() == pipeline.fingerprints()
for name in ("someone/else", "some one/x"):
    try:
        LumierePipeline.from_pretrained(name)
    except UserError as error:
        print(error)
"""


@pytest.fixture(name="made", scope="module")
def fixture_made(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "made"
    export([str(cascade["t2i"])], folder)
    return folder


def test_sent_and_fetched(made, tmp_path):
    stand_in = StandIn()
    settings = {"HF_ENDPOINT": stand_in.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP, made], cwd=REPOSITORY, env=os.environ | settings,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    stand_in.close()
    assert process.returncode == 0, process.stderr[-3000:]
    address, missing, no_name = process.stdout.splitlines()
    assert address.startswith(f"{stand_in.address}/someone/small/commit/")
    assert "repository cannot be fetched" in missing and "hf auth login" in missing
    assert "there is no folder some one/x" in no_name
    assert "Bearer hf_secret" in stand_in.tokens
    files = stand_in.repositories["someone/small"]
    assert set(files) == {"README.md", "manifest.json", "t2i/weights.safetensors"}
    assert b"license: apache-2.0" in files["README.md"]
    assert b"# small: model card" in files["README.md"]
    assert files["t2i/weights.safetensors"] == (made / "t2i" / bundle.WEIGHTS).read_bytes()


def test_a_broken_bundle_is_not_sent(made, tmp_path):
    export([str(made / "t2i")], tmp_path / "broken")
    file = tmp_path / "broken" / "t2i" / bundle.WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="bytes in place of"):
        hub.push(tmp_path / "broken", "someone/small")


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"is not a bundle: it has no manifest\.json"):
        hub.find(tmp_path)
    with pytest.raises(UserError, match="there is no folder nowhere; give a bundle"):
        hub.find("nowhere")
    with pytest.raises(UserError, match=r"there is no folder \./x"):
        hub.find("./x")
    with pytest.raises(UserError, match="cannot be fetched"):  # the tests are offline
        hub.find("someone/small")


@pytest.mark.parametrize("name", ["..", "a/..", "./a", "small", "a/b/c", ""])
def test_names_of_no_repository(made, name):
    with pytest.raises(UserError, match="is not a repository; give OWNER/NAME"):
        hub.push(made, name)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'lumiere_jax\[hub\]'"):
        hub.find("someone/small")
