"""Videos and output in a bucket, which here is a folder behind the names of one."""

import json

import fsspec
import pytest
from etils.epath import backend, gpath
from fsspec.implementations.dirfs import DirFileSystem

from lumiere_jax.preparation import clips, report, run, shards
from lumiere_jax.preparation.manifest import Video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import HashedTextEncoder
from tests.preparation.videos import contents, moving, settings, write


class _Bucket(DirFileSystem):
    """Maps s3://NAME to a folder of its own; folders appear when something is put there."""

    def _join(self, path):
        return super()._join(path.removeprefix("s3://") if isinstance(path, str) else path)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    (tmp_path / "buckets" / "b").mkdir(parents=True)
    local = fsspec.filesystem("file", auto_mkdir=True)
    files = _Bucket(path=str(tmp_path / "buckets"), fs=local)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    ours = lambda self, path: files if str(path).startswith("s3://") else local  # noqa: E731
    monkeypatch.setattr(backend._FileSystemSpecBackend, "fs", ours)
    return tmp_path / "buckets" / "b"


def test_a_bucket_gets_what_a_folder_gets(bucket, tmp_path):
    write(bucket / "videos" / "a.mp4", moving(20))
    write(tmp_path / "b.mp4", moving(16, seed=1))
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "path,caption\ns3://b/videos/a.mp4,one\nb.mp4,two\ns3://b/videos/gone.mp4,three\n"
    )
    for output in ("s3://b/out", tmp_path / "out"):
        make_here(manifest, output)
    found, expected = contents(bucket / "out"), contents(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert sum(name.startswith("prepared-") for name in found) == 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["clips"] == {"train": 4, "test": 0}
    assert [entry["path"] for entry in report["rejected_files"]] == ["s3://b/videos/gone.mp4"]


def test_a_manifest_may_be_in_the_bucket_with_its_videos(bucket, tmp_path):
    write(bucket / "videos" / "a.mp4", moving(20))
    (bucket / "videos" / "list.csv").write_text("path,caption\na.mp4,one\n")
    make_here("s3://b/videos/list.csv", "s3://b/out")
    make_here(bucket / "videos" / "list.csv", tmp_path / "out")
    found, expected = contents(bucket / "out"), contents(tmp_path / "out")
    assert found["index.json"] == expected["index.json"]
    for name in ("s3://b/videos", "s3://b/nowhere.csv"):
        with pytest.raises(UserError, match=f"{name}: there is no such file.*give a manifest"):
            make_here(name, tmp_path / "other")


@pytest.mark.parametrize("most", [2, 3])
def test_a_network_may_fail_now_and_then(bucket, tmp_path, monkeypatch, most):
    write(bucket / "a.mp4", moving(16))
    monkeypatch.setattr(clips, "_WAITS", (0.0, 0.0))
    copy, failures = gpath.PosixGPath.copy, []

    def failing_copy(self, *args, **kwargs):
        if len(failures) < most:
            failures.append(self)
            raise ConnectionError("reset by peer")
        return copy(self, *args, **kwargs)

    monkeypatch.setattr(gpath.PosixGPath, "copy", failing_copy)
    found = list(clips.find_clips(Video("s3://b/a.mp4", ("one",), "train"), "", settings()))
    assert len(failures) == most
    if most == 2:
        assert len(found) == 2 and all(isinstance(entry, clips.Clip) for entry in found)
    else:
        assert found == [clips.Rejection("broken: ConnectionError: reset by peer")]


def make_here(manifest, output):
    """All shards in this process, because workers would not know the bucket."""
    encoder = HashedTextEncoder(dim=8, max_length=6)
    changes = {"videos_per_shard": 2, "text_fingerprint": encoder.fingerprint}
    with run.begun(manifest, output, settings(**changes)) as plan:
        for shard in run.left(plan):
            task = shards.Task.of(plan, shard, encoder)
            shards.make_shard(plan, task, lambda number: None)
        assert not run.left(plan)
        report.finish(plan, encoder)
