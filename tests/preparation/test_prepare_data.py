import json
import multiprocessing.forkserver
import os
import resource
import select
import signal
import subprocess
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lumiere_jax.data import video_io
from lumiere_jax.data.prepared_format import Index, open_reader
from lumiere_jax.preparation import run, shards
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.preparation.workers import Crew
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import HashedTextEncoder
from tests.preparation.videos import (
    contents,
    copy_real,
    make_folder,
    moving,
    prepare,
    settings,
    write,
)
from tests.warm_python import python

ENCODER = HashedTextEncoder(dim=8, max_length=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def output(folder, tmp_path_factory):
    """Prepared by one worker, without a stop, with embeddings; not to be changed."""
    path = tmp_path_factory.mktemp("prepared") / "out"
    prepare(folder, path, encoder=ENCODER, videos_per_shard=3, test_fraction=0.3)
    return path


def records_of(output):
    """All records of an output: serialized, by split."""
    plan, found = Plan.load(output), {"train": [], "test": []}
    for shard in plan.shards():
        reader = open_reader(output / shard.file_name)
        found[shard.split] += reader.read_all() if reader.num_records() else []
    return found


def parsed(output):
    record_format = Index.load(output).record_format()
    return [record_format.parse(r) for split in records_of(output).values() for r in split]


def test_records_are_the_clips_of_the_videos(folder, output):
    records = parsed(output)
    starts = {}
    for record in records:
        whole = video_io.read_video(folder / record.path, fps=8, size=(16, 16))
        start = round(record.start * 8)
        np.testing.assert_array_equal(record.frames, whole[start : start + 8])
        starts.setdefault(record.path, []).append(start)
        assert record.captions == ((folder / record.path).with_suffix(".txt").read_text(),)
        (text,), (embeddings, mask) = record.text, ENCODER(record.captions)
        np.testing.assert_array_equal(text, embeddings[0][mask[0]])
    assert starts == {
        "good_a.mp4": [0, 8, 16, 24, 32],
        "deep/good_b.mp4": [0, 8, 16],
        "cut.mp4": [0, 12, 20],
    }


def test_the_report_names_every_rejected_file_and_clip(folder, output):
    report = json.loads((output / "report.json").read_text())
    reasons = {entry["path"]: entry["reason"] for entry in report["rejected_files"]}
    assert {path: reason.split(":")[0] for path, reason in reasons.items()} == {
        "broken.mp4": "broken",
        "dark.mp4": "no clip is left",
        "short.mp4": "too short",
        "static.mp4": "no clip is left",
        "untold.mp4": "without a caption",
    }
    assert reasons["dark.mp4"] == "no clip is left: 2 too dark"
    clips = [(entry["path"], entry["reason"].split(":")[0]) for entry in report["rejected_clips"]]
    assert sorted(clips) == [
        ("cut.mp4", "shot cut"),
        *[("dark.mp4", "too dark")] * 2,
        *[("static.mp4", "static")] * 2,
    ]
    assert report["settings"]["thresholds"] == {"brightness": 16.0, "motion": 0.5, "cut": 40.0}
    text = (output / "report.txt").read_text()
    for entry in report["rejected_files"]:
        assert f"  {entry['path']}: {entry['reason']}\n" in text
    assert "  cut.mp4 (1 s to 1.5 s): shot cut: at 1.50 s, after 4 frames\n" in text
    assert "brightness 16, motion 0.5, cut 40" in text and report["fingerprint"] in text
    assert sum(report["clips"].values()) == 11 and report["clips"]["test"] > 0
    assert "split: by a hash of the path (train " in text
    assert f"note: the split test has few clips ({report['clips']['test']};" in text
    assert report["videos"] == 8


def test_the_output_is_a_tfds_data_set(output):
    builder = tfds.builder_from_directory(output)
    records = records_of(output)
    record_format = Index.load(output).record_format()
    for split, serialized in records.items():
        assert builder.info.splits[split].num_examples == len(serialized)
        assert builder.info.splits[split].num_bytes == sum(map(len, serialized))
        source = builder.as_data_source(split)
        for n, example in enumerate(serialized):
            record, found = record_format.parse(example), source[n]
            np.testing.assert_array_equal(found["video"], record.frames)
            assert [caption.decode() for caption in found["captions"]] == list(record.captions)
            np.testing.assert_array_equal(found["text"], np.concatenate(record.text))


def test_the_number_of_workers_changes_nothing(folder, output, tmp_path):
    changes = {"videos_per_shard": 3, "test_fraction": 0.3}
    prepare(folder, tmp_path / "out", num_workers=2, encoder=ENCODER, **changes)
    assert contents(tmp_path / "out") == contents(output)


def test_a_second_call_makes_nothing_again_and_a_lost_shard_alone(folder, output, tmp_path):
    changes = {"encoder": ENCODER, "videos_per_shard": 3, "test_fraction": 0.3}
    prepare(folder, tmp_path / "out", **changes)
    files = sorted((tmp_path / "out").glob("prepared-*"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    times = {path: path.stat().st_mtime_ns for path in files[2:]}
    prepare(folder, tmp_path / "out", **changes)
    assert contents(tmp_path / "out") == contents(output)
    assert times == {path: path.stat().st_mtime_ns for path in files[2:]} and times


def test_another_order_of_the_same_records_has_another_fingerprint(folder, output, tmp_path):
    fingerprints = {Index.load(output).fingerprint}
    for number, changes in enumerate([{}, {"videos_per_shard": 1}, {"max_clips_per_video": 1}]):
        index = prepare(folder, tmp_path / str(number), **changes)
        assert index == Index.load(tmp_path / str(number))
        fingerprints.add(index.fingerprint)
    assert len(fingerprints) == 4


def command(source, output, *flags):
    config = ["--config=configs/t2i.py:tiny", "--config.data.num_frames=8"]
    main = [python(), "-m", "lumiere_jax.prepare_data", *config, "--test_fraction=0"]
    return [*main, f"--source={source}", f"--output={output}", "--videos_per_shard=1", *flags]


@pytest.fixture(name="pipes_are_files")
def fixture_pipes_are_files(tmp_path_factory, monkeypatch):
    """Workers take a pipe for a file, and so hang at it, as at a file of a server that is gone."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(
        "import os.path\n"
        "os.path.isfile = lambda path: os.path.exists(path) and not os.path.isdir(path)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    multiprocessing.forkserver._forkserver._stop()  # the next one starts so
    yield
    multiprocessing.forkserver._forkserver._stop()


def start_and_wait_at(fifo, source, output, done):
    """Starts the binary, and waits until `done` shards are complete and it hangs at the FIFO."""
    process = subprocess.Popen(command(source, output, "--workers=1"), stderr=subprocess.PIPE)
    begin = time.monotonic()
    while len(list(output.glob("shards/*.json"))) < done or not list(output.glob(".prepared-*")):
        assert process.poll() is None and time.monotonic() - begin < 900
        time.sleep(0.02)
    # Somebody who has opened it to read is a worker in the middle of its shard; it gets no byte.
    while True:
        try:
            return process, os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None and time.monotonic() - begin < 900
            time.sleep(0.02)


def wait_for_no_reader(fifo):
    """Waits for the end of the worker that read it, which must not outlive what it works for."""
    reader_is_gone = select.poll()
    reader_is_gone.register(fifo, select.POLLERR)
    assert reader_is_gone.poll(600_000)
    os.close(fifo)


def test_killed_in_the_middle_it_goes_on_without_loss_or_duplicates(tmp_path, pipes_are_files):
    folder, output = copy_real(tmp_path / "videos"), tmp_path / "out"
    manifest = tmp_path / "videos" / "list.csv"
    names = ["bikes.mp4", "fifo.mp4", "bigbuckbunny.mp4"]
    manifest.write_text("path,caption\n" + "".join(f"{name},about {name}\n" for name in names))
    (folder / "carphone_pristine.mp4").rename(tmp_path / "later.mp4")
    os.mkfifo(folder / "fifo.mp4")

    # kill -9 while the second of three shards is being made
    process, fifo = start_and_wait_at(folder / "fifo.mp4", manifest, output, done=1)
    process.kill()
    process.communicate()
    wait_for_no_reader(fifo)
    assert len(list(output.glob("shards/*.json"))) == 1 and list(output.glob(".prepared-*"))
    assert not (output / "index.json").exists()

    # SIGTERM to the run that goes on; it ends at once, and cleanly
    (folder / "fifo.mp4").unlink()
    os.mkfifo(folder / "fifo.mp4")
    process, fifo = start_and_wait_at(folder / "fifo.mp4", manifest, output, done=1)
    with pytest.raises(UserError, match="another process is preparing"):
        with run.begun(manifest, output, Plan.load(output).settings):
            pass
    process.send_signal(signal.SIGTERM)
    message = process.communicate()[1].decode()
    wait_for_no_reader(fifo)
    assert process.returncode == 75 and "Traceback" not in message
    assert not list(output.glob(".prepared-*")) and not list(output.glob("shards/.*"))

    (folder / "fifo.mp4").unlink()
    (tmp_path / "later.mp4").rename(folder / "fifo.mp4")
    ended = subprocess.run(command(manifest, output), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "3 shards, 1 of them done before" in ended.stdout
    last = ended.stdout.splitlines()[-1]
    assert "--config=configs/t2i.py:tiny --config.data.num_frames=8 " in last
    assert last.endswith(f"--config.data.name=prepared --config.data.folder={output}")
    with run.begun(manifest, tmp_path / "unkilled", Plan.load(output).settings) as plan:
        run.prepare(plan, None, 2)
    assert contents(output) == contents(tmp_path / "unkilled")
    places = [(record.path, record.start) for record in parsed(output)]
    assert len(places) == len(set(places)) and {path for path, _ in places} == set(names)


def hanging(tmp_path):
    """A manifest of two good videos and, between them, one at which a worker hangs."""
    for n, name in enumerate(["a.mp4", "c.mp4"]):
        write(tmp_path / name, moving(24, seed=n))
    os.mkfifo(tmp_path / "b.mp4")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,caption\na.mp4,x\nb.mp4,y\nc.mp4,z\n")
    return manifest


@pytest.mark.parametrize("how", ["killed", "slow"])
def test_a_video_that_takes_its_worker_along_is_rejected_alone(tmp_path, how, pipes_are_files):
    deaths = 0
    with run.begun(hanging(tmp_path), tmp_path / "out", settings()) as plan:
        (shard,) = plan.shards()
        with Crew(plan, 1) as crew:
            for event in crew.run([shards.Task(shard)]):
                crew._timeout = 0 if how == "slow" and crew._workers[0].video == 1 else 600
                if event.video == 1 and how == "killed" and deaths < 2:
                    deaths += 1
                    os.kill(crew._workers[0].process.pid, signal.SIGKILL)
        index = run.prepare(plan, None, 1)
    assert index.num_clips("train") == 6
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["rejected_files"]
    why = {"killed": "signal SIGKILL; out of memory?", "slow": "it took longer than 0 s"}[how]
    assert entry["path"] == "b.mp4"
    assert entry["reason"] == f"killed its worker: {why}, 2 times"
    assert [record.path for record in parsed(tmp_path / "out")] == ["a.mp4"] * 3 + ["c.mp4"] * 3


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    write(tmp_path / "a.mp4", moving(24))
    (tmp_path / "a.txt").write_text("x")
    with run.begun(tmp_path, tmp_path / "out", settings()) as plan:
        (shard,) = plan.shards()
        with Crew(plan, 1) as crew:
            os.kill(crew._workers[0].process.pid, signal.SIGKILL)
            summaries = [e.summary for e in crew.run([shards.Task(shard)]) if e.summary]
    assert [summary.records for summary in summaries] == [3]
    assert not summaries[0].rejected_files


def test_names_and_captions_that_are_no_unicode(tmp_path):
    folder = tmp_path / "videos"
    name = os.fsdecode(b"caf\xe9.mp4")
    os.rename(write(folder / "a.mp4", moving(16)), folder / name)
    lines = [{"path": name, "caption": "half \ud83d of it"}, {"path": name, "caption": "日本"}]
    manifest = folder / "list.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    index = prepare(manifest, tmp_path / "out", encoder=ENCODER, num_frames=16)
    (record,) = parsed(tmp_path / "out")
    assert record.path == "caf\\udce9.mp4" and record.captions == ("half ? of it", "日本")
    assert index.num_clips("train") == 1
    with pytest.raises(UserError, match="no clip is left"):
        prepare(manifest, tmp_path / "none", num_frames=17)
    assert "  caf\\udce9.mp4: too short" in (tmp_path / "none" / "report.txt").read_text()


def test_mistakes_are_told(folder, output, tmp_path):
    with pytest.raises(UserError, match="begun with videos_per_shard = 3, not 4: choose another"):
        prepare(folder, output, encoder=ENCODER, videos_per_shard=4, test_fraction=0.3)
    other = HashedTextEncoder(dim=10, max_length=6)
    with pytest.raises(UserError, match="text_fingerprint = hashed.*dim=8.*, not hashed.*dim=10"):
        prepare(folder, output, encoder=other, videos_per_shard=3, test_fraction=0.3)
    write(tmp_path / "one" / "a.mp4", moving(16, brightness=2.0))
    (tmp_path / "one" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no clip is left: 1 no clip is left; .*report.txt"):
        prepare(tmp_path / "one", tmp_path / "out")
    (tmp_path / "one" / "a.txt").write_text("y")
    with pytest.raises(UserError, match="begun with other videos, captions or splits"):
        prepare(tmp_path / "one", tmp_path / "out")
    with pytest.raises(UserError, match="one holds other files: choose another"):
        prepare(folder, tmp_path / "one")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output .*file cannot be written"):
        prepare(folder, tmp_path / "file")
    with pytest.raises(UserError, match="brightness threshold is -1"):
        settings(thresholds=type(settings().thresholds)(brightness=-1))
    for wrong in ({"fps": 0}, {"num_frames": 0}, {"test_fraction": 1.0}):
        with pytest.raises(UserError):
            settings(**wrong)


def test_a_full_disk_is_told(folder, tmp_path):
    with run.begun(folder, tmp_path / "out", settings(resolution=(64, 64))) as plan:
        shard = next(plan.shards())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
            with pytest.raises(UserError, match="cannot be written: .*File too large"):
                shards.make_shard(plan, shards.Task(shard), lambda number: None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert shards.Summary.read(plan, shard) is None
