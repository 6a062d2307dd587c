"""Run by `make test-beam`, in an environment that has Apache Beam; skipped elsewhere."""

import json

import pytest

from lumiere_jax.data.prepared_format import Index, open_reader
from lumiere_jax.preparation import run
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import HashedTextEncoder
from tests.preparation.videos import contents, make_folder, prepare, settings

pytest.importorskip("apache_beam", reason="make test-beam runs these tests")

from lumiere_jax.preparation import beam_engine  # noqa: E402

TEXT = {"name": "hashed", "dim": 8, "max_length": 6}
ENCODER = HashedTextEncoder(dim=8, max_length=6)
CHANGES = {
    "videos_per_shard": 2,
    "test_fraction": 0.3,
    "text_fingerprint": ENCODER.fingerprint,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    """What the plain engine makes; not to be changed."""
    output = tmp_path_factory.mktemp("plain") / "out"
    prepare(folder, output, encoder=ENCODER, **CHANGES)
    return output


def run_beam(source, output, arguments=""):
    with run.begun(source, output, settings(**CHANGES)) as plan:
        return beam_engine.prepare(plan, TEXT, arguments)


def records(output):
    """The serialized records of an output, in no order."""
    plan, found = Plan.load(output), []
    for shard in plan.shards():
        reader = open_reader(output / shard.file_name)
        found += reader.read_all() if reader.num_records() else []
    return sorted(found)


@pytest.mark.parametrize(
    "arguments",
    ["", "--runner=FnApiRunner --direct_num_workers=2 --direct_running_mode=multi_processing"],
)
def test_beam_writes_the_records_of_the_plain_engine(folder, plain, tmp_path, arguments):
    index = run_beam(folder, tmp_path / "out", arguments)
    expected = records(plain)
    assert records(tmp_path / "out") == expected and len(expected) == len(set(expected)) == 11
    assert index.fingerprint == Index.load(plain).fingerprint
    assert contents(tmp_path / "out") == contents(plain)  # even the files are the same


def test_what_one_engine_began_the_other_ends(folder, plain, tmp_path):
    def lose(number):
        (tmp_path / "out" / "index.json").unlink()
        sorted((tmp_path / "out").glob("shards/*"))[number].unlink()
        sorted((tmp_path / "out").glob("prepared-*"))[number].unlink()
        assert contents(tmp_path / "out") != contents(plain)

    prepare(folder, tmp_path / "out", encoder=ENCODER, **CHANGES)
    lose(1)
    run_beam(folder, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(plain)
    lose(2)
    prepare(folder, tmp_path / "out", encoder=ENCODER, **CHANGES)
    assert contents(tmp_path / "out") == contents(plain)


def test_the_report_is_that_of_the_plain_engine(folder, plain, tmp_path):
    run_beam(folder, tmp_path / "out")
    found, expected = (
        json.loads((p / "report.json").read_text()) for p in (tmp_path / "out", plain)
    )
    assert found == expected and len(found["rejected_files"]) == 5


def test_a_pipeline_that_fails_says_why(folder, tmp_path):
    with pytest.raises(UserError, match="the Beam pipeline failed: .*NoSuchRunner"):
        run_beam(folder, tmp_path / "out", "--runner=NoSuchRunner")
    (tmp_path / "out" / "shards" / "train-00000-of-00003.json").mkdir()  # in the way
    with pytest.raises(UserError, match="cannot be written: .*Is a directory"):
        run_beam(folder, tmp_path / "out")
