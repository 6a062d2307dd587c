"""What a worker does with jobs, with videos that are made by stand-ins."""

import dataclasses
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.queue import QueueError
from lumiere_jax.serving.runner import JobError
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store
from lumiere_jax.serving.watch import Stopped, Watch
from lumiere_jax.serving.worker import EXIT_REPLACE, EXIT_UNABLE, Worker


class Runner:
    """Makes "videos" of the prompts, step by step; remembers the batches."""

    def __init__(self):
        self.batches, self.steps, self.seconds = [], 2, 0.0
        self.error = self.load_error = None
        self.load_seconds = 0.0

    def load(self, job):
        time.sleep(self.load_seconds)
        if self.load_error:
            raise self.load_error

    def stages(self, job):
        return 1

    def run(self, jobs, files, watch):
        self.batches.append([job.options["prompt"] for job in jobs])
        watch.start("base", self.steps)
        for step in range(self.steps):
            is_list = isinstance(self.seconds, list)
            time.sleep(self.seconds[step] if is_list else self.seconds)
            watch.estimate(np.float32(1), np.zeros((len(jobs), 2, 4, 4, 3), np.float32))
            watch.advance()
        if self.error:
            raise self.error
        return [job.options["prompt"].encode() + files.get("image", b"") for job in jobs]


class Setting:
    """A queue and a worker of it in a thread."""

    def __init__(self, tmp_path):
        place = {"bundle": tmp_path, "scratch": tmp_path, "database": f"sqlite:///{tmp_path / 'q'}"}
        self.settings = Settings(batch_wait=0.1, **place)
        self.database = Database(self.settings.database)
        self.store, self.runner, self.left = Store(self.database), Runner(), []
        self._stop, self._thread = threading.Event(), None

    def submit(self, prompt, key=None, files=None):
        return self.store.submit(
            "text_to_video", {"prompt": prompt}, files or {}, batch_key=key, max_queue=99
        ).id

    def start(self, make_runner=None, **changes):
        """A worker, after the last one left."""
        if self._thread:
            self.stop()
            self._stop.clear()

        def leave(code):
            self.left.append(code)
            self._stop.set()

        settings = dataclasses.replace(self.settings, **changes)
        make = make_runner or (lambda _: self.runner)
        worker = Worker(
            Leases(self.database, "w", settings.lease), settings, make, self._stop.is_set, leave
        )
        self._thread = threading.Thread(target=worker.run)
        self._thread.start()

    def wait(self, job, *states):
        states = states or ("done", "failed", "cancelled")
        self.wait_until(lambda: self.store.get(job).state in states)
        return self.store.get(job)

    def wait_until(self, is_so):
        until = time.monotonic() + 300
        while not is_so():
            assert time.monotonic() < until
            time.sleep(0.02)

    def wait_left(self, *codes):
        self.wait_until(lambda: len(self.left) == len(codes))
        assert self.left == list(codes)
        self._thread.join(300)

    def stop(self):
        self._stop.set()
        if self._thread:
            self._thread.join(300)
            assert not self._thread.is_alive()


@pytest.fixture(name="setting")
def fixture_setting(tmp_path, monkeypatch):
    setting = Setting(tmp_path)
    monkeypatch.setattr("lumiere_jax.serving.worker._RETRY_SECONDS", 0.1)
    yield setting
    setting.stop()
    setting.database.close()


def test_jobs_that_are_alike_are_made_at_once(setting):
    jobs = [setting.submit(f"p{i}", "k") for i in range(5)]
    lone = setting.submit("lone", files={"image": b"!"})
    setting.start(max_batch=4)
    for job in (*jobs, lone):
        assert setting.wait(job).state == "done"
    assert setting.runner.batches == [["p0", "p1", "p2", "p3"], ["p4"], ["lone"]]
    assert [setting.store.video(job) for job in jobs] == [b"p%d" % i for i in range(5)]
    assert setting.store.video(lone) == b"lone!"


def test_a_batch_of_one(setting):
    jobs = [setting.submit(f"p{i}", "k") for i in range(2)]
    setting.start(max_batch=1)
    for job in jobs:
        setting.wait(job)
    assert setting.runner.batches == [["p0"], ["p1"]]


def test_progress_and_previews(setting):
    setting.runner.seconds, setting.runner.steps = 0.4, 6
    job = setting.submit("p")
    setting.start()
    seen = set()
    while setting.store.get(job).state != "done":
        progress = setting.store.get(job).progress
        seen.add((progress or {}).get("step"))
        time.sleep(0.1)
    assert len(seen) > 2
    assert setting.store.get(job).previews >= 1
    assert setting.store.preview(job).startswith(b"\x89PNG")


def test_a_cancelled_job_stops_and_the_next_one_is_made(setting):
    setting.runner.seconds, setting.runner.steps = 0.05, 10**6
    job = setting.submit("endless")
    setting.start()
    setting.wait(job, "running")
    setting.store.cancel(job)
    setting.runner.steps = 1
    assert setting.wait(setting.submit("next")).state == "done"
    assert setting.store.get(job).state == "cancelled" and setting.left == []


def test_a_batch_goes_on_while_one_of_it_is_wanted(setting):
    setting.runner.seconds, setting.runner.steps = 0.3, 6
    first, second = (setting.submit(name, "k") for name in "ab")
    setting.start()
    setting.wait(second, "running")
    setting.store.cancel(first)
    assert setting.wait(second).state == "done"
    assert setting.store.get(first).state == "cancelled" and setting.store.video(first) is None


def test_the_limit_of_time(setting):
    setting.runner.seconds = 30
    job = setting.submit("slow")
    setting.start(job_timeout=1)
    failed = setting.wait(job)
    assert failed.state == "failed"
    assert failed.error == "it took longer than the 1 s that a job may take"
    setting.stop()
    assert setting.left == [EXIT_REPLACE]


def test_a_program_that_does_not_stop_is_left(setting, monkeypatch):
    monkeypatch.setattr("lumiere_jax.serving.worker._STOP_SECONDS", 0.5)
    setting.runner.seconds, setting.runner.steps = [0.0, 30.0], 2
    job = setting.submit("deaf")
    setting.start()
    setting.wait_until(lambda: (setting.store.get(job).progress or {}).get("step"))
    setting.store.cancel(job)
    setting.wait_left(EXIT_REPLACE)
    assert setting.store.get(job).state == "cancelled"


def test_the_worker_leaves_at_the_limit_of_time_though_it_can_tell_nobody(setting, monkeypatch):
    setting.runner.seconds = 4.0
    job = setting.submit("slow")
    setting.submit("next")
    monkeypatch.setattr(Leases, "fail", _gone)
    setting.start(job_timeout=1)
    setting.wait_left(EXIT_REPLACE)
    assert setting.runner.batches == [["slow"]]
    assert setting.store.get(job).state in ("running", "queued")  # and lost with the process


def test_a_job_that_is_cancelled_while_it_is_loaded_stops_at_once(setting, monkeypatch):
    monkeypatch.setattr("lumiere_jax.serving.worker._STOP_SECONDS", 4.0)  # less than loading
    setting.runner.load_seconds = 1.0
    setting.runner.seconds, setting.runner.steps = 0.05, 10**6
    job = setting.submit("endless")

    def make_runner(settings):
        time.sleep(4.5)
        return setting.runner

    setting.start(make_runner)
    setting.wait(job, "running")
    setting.store.cancel(job)
    setting.wait_until(lambda: setting.runner.batches)
    setting.runner.load_seconds, setting.runner.steps = 0.0, 1
    assert setting.wait(setting.submit("next")).state == "done"
    assert setting.left == []


def test_stopping_gives_the_job_back(setting):
    setting.runner.seconds, setting.runner.steps = 0.05, 10**6
    job = setting.submit("endless")
    setting.start()
    setting.wait(job, "running")
    setting.stop()
    given_back = setting.store.get(job)
    assert (given_back.state, given_back.attempts, setting.left) == ("queued", 0, [0])


def test_why_a_job_cannot_be_done(setting):
    setting.runner.error = JobError("zoom=2 is too much")
    failed = setting.submit("p")
    setting.start()
    assert setting.wait(failed).error == "zoom=2 is too much"
    setting.runner.error = None
    assert setting.wait(setting.submit("q")).state == "done" and setting.left == []


def test_a_worker_that_may_be_broken_leaves_the_queue_alone(setting, caplog):
    setting.runner.error = ValueError("secret of /root/x")
    first, second = setting.submit("a", "k"), setting.submit("b", "k")
    third = setting.submit("c")
    setting.start()
    setting.wait_left(EXIT_REPLACE)
    for job, attempts in ((first, 1), (second, 1), (third, 0)):
        found = setting.store.get(job)
        assert (found.state, found.attempts, found.error) == ("queued", attempts, None)
    setting.start()
    setting.wait_left(EXIT_REPLACE, EXIT_REPLACE)
    failed = setting.store.get(first)
    assert failed.state == "failed" and setting.store.get(second).state == "queued"
    assert failed.error == "something went wrong in the server; its log has more"
    assert setting.runner.batches == [["a", "b"], ["a"]] and "/root/x" in caplog.text
    setting.runner.error = None
    setting.start()
    assert {setting.wait(job).state for job in (second, third)} == {"done"}


@pytest.mark.parametrize("is_made", [False, True])
def test_what_cannot_be_loaded_is_no_fault_of_the_job(setting, is_made):
    error = MemoryError("no room")

    def fail(settings):
        raise error

    make_runner = None if is_made else fail
    setting.runner.load_error = error
    job = setting.submit("p")
    for times in (1, 2, 3):
        setting.start(make_runner)
        setting.wait_left(*[EXIT_UNABLE] * times)
        found = setting.store.get(job)
        assert (found.state, found.attempts, setting.runner.batches) == ("queued", 0, [])
    # It does not wait for good: once it is older than a job may take, it is counted.
    time.sleep(1.0)
    for times, state in ((4, "queued"), (5, "failed")):
        setting.start(make_runner, job_timeout=1.0)
        setting.wait_left(*[EXIT_UNABLE] * times)
        assert setting.store.get(job).state == state
    assert "could not load" in setting.store.get(job).error


def _gone(*arguments, **named):
    raise QueueError("gone")


def test_an_error_of_the_database_is_survived(setting, monkeypatch):
    real, failures = Database.writing, iter([True] * 3)

    def writing(self):
        if next(failures, False):
            _gone()
        return real(self)

    job = setting.submit("p")
    monkeypatch.setattr(Database, "writing", writing)
    setting.start()
    assert setting.wait(job).state == "done"


def _failing_once(real, *, after=False):
    failures = iter([True])

    def call(*arguments):
        if after and next(failures, False):
            real(*arguments)
            _gone()
        if not after and next(failures, False):
            _gone()
        return real(*arguments)

    return call


@pytest.mark.parametrize(
    ("name", "after"),
    [("files", False), ("claim_more", False), ("claim_more", True), ("claim", True)],
)
def test_a_job_that_was_claimed_before_an_error_is_made_at_once(setting, monkeypatch, name, after):
    jobs = [setting.submit(prompt, "k") for prompt in "ab"]
    monkeypatch.setattr(Leases, name, _failing_once(getattr(Leases, name), after=after))
    setting.start()
    for job in jobs:
        made = setting.wait(job)
        assert (made.state, made.attempts) == ("done", 1)
    assert setting.left == []


def test_an_error_that_is_not_of_the_database_replaces_the_worker(setting, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    setting.runner.seconds = 3.0
    job = setting.submit("p")
    setting.submit("next")
    monkeypatch.setattr(Leases, "report", fail)
    setting.start()
    setting.wait_left(EXIT_REPLACE)
    assert setting.runner.batches == [["p"]]
    assert setting.store.get(job).state in ("running", "queued")


def test_fractions_of_stages_and_seconds_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watch = Watch(2)
    assert watch.progress()["stage"] == "loading" and watch.progress()["fraction"] == 0
    watch.start("base", 4)
    now[0] = 100.0  # compilation
    watch.advance()
    assert watch.progress()["fraction"] == 0.125 and watch.progress()["seconds_left"] is None
    now[0] = 101.0
    watch.advance()
    assert watch.progress() == {
        "stage": "base", "step": 2, "total": 4, "fraction": 0.25, "seconds_left": 6.0
    }  # fmt: skip
    now[0] = 150.0
    assert watch.progress()["seconds_left"] == 6.0
    watch.start("super-resolution 1", 1)
    assert watch.progress()["fraction"] == 0.5
    watch.advance()
    watch.advance()
    assert watch.progress()["fraction"] == 1
    watch.stop()
    with pytest.raises(Stopped):
        watch.advance()


def test_the_latest_estimate_is_shown_though_they_come_in_any_order():
    watch = Watch(1)
    watch.start("base", 9)
    for _ in range(3):
        watch.advance()
    grey, white = np.zeros((1, 1, 8, 8, 3), np.float32), np.ones((1, 1, 8, 8, 3), np.float32)
    watch.estimate(np.float32(2), white)
    watch.estimate(np.float32(1), grey)
    (picture,) = watch.previews(1)
    image = Image.open(io.BytesIO(picture))
    assert image.size == (128, 128) and image.getpixel((0, 0)) == (255, 255, 255)
    assert watch.previews(1) == []
