"""How workers are started, replaced and ended, with processes that are stand-ins."""

import dataclasses
import time

import pytest
import sqlalchemy as sa

from lumiere_jax.serving import lost, tables
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.queue import QueueError
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.store import Store
from lumiere_jax.serving.supervisor import Supervisor
from lumiere_jax.serving.worker import EXIT_REPLACE, EXIT_UNABLE
from tests.serving.queue import Clock, submit


class Process:
    """What `multiprocessing` would start."""

    def __init__(self, context, name):
        self.context, self.name, self.exitcode = context, name, None

    def start(self):
        if self.context.start_error:
            raise self.context.start_error
        self.context.started.append(self)

    def terminate(self):
        self.exitcode = -15

    def kill(self):
        self.exitcode = -9

    def join(self, timeout=None):
        pass


class Context:
    """Makes and remembers them."""

    def __init__(self):
        self.started, self.start_error = [], None

    def Process(self, target, args, name):  # noqa: N802
        return Process(self, name)


class Setting:
    """A supervisor whose rounds are made by the test."""

    def __init__(self, database, tmp_path, count=1, **changes):
        settings = Settings(bundle=tmp_path, database="", scratch=tmp_path, lease=30.0)
        settings = dataclasses.replace(settings, **changes)
        self.supervisor = Supervisor(database, settings, count)
        self.context = self.supervisor._context = Context()
        self.clock, self.now, self.begin = Clock(), 0.0, time.monotonic()
        self.supervisor._expiry = lost.Expiry(database, settings.lease, self.clock)
        self.supervisor._silence = lost.Silence(self.clock)

    def pass_time(self, seconds):
        """Rounds, twice a second; returns how many workers were started in them."""
        before = len(self.context.started)
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.clock.now = self.now
            self.supervisor._look_after(self.begin + self.now)
        return len(self.context.started) - before


@pytest.fixture(name="make")
def fixture_make(database, tmp_path):
    return lambda count=1, **changes: Setting(database, tmp_path, count, **changes)


def test_workers_that_end_one_after_the_other_are_waited_with(make):
    for code, waits in ((EXIT_REPLACE, (0, 1, 3, 7)), (EXIT_UNABLE, (1, 3, 7, 15)), (1, (1, 3, 7))):
        setting = make()
        setting.pass_time(0.5)
        for seconds in waits:
            setting.context.started[-1].exitcode = code
            if seconds:
                assert setting.pass_time(seconds - 0.5) == 0
            assert setting.pass_time(1.5) == 1


def test_a_process_that_cannot_be_started_is_tried_again(make, caplog):
    setting = make(2)
    setting.context.start_error = OSError(24, "Too many open files")
    assert setting.pass_time(10) == 0 and 4 <= caplog.text.count("Too many open files") <= 8
    setting.context.start_error = None
    assert setting.pass_time(20) == 2


def test_it_ends_though_no_process_could_be_started(make):
    setting = make()
    setting.context.start_error = OSError(24, "Too many open files")
    setting.supervisor.start()
    setting.supervisor.stop()
    assert setting.context.started == []


def test_an_error_of_a_round_does_not_end_the_watching(make, monkeypatch, caplog):
    monkeypatch.setattr("lumiere_jax.serving.supervisor._LOOK_SECONDS", 0.05)
    setting, failures = make(), iter([ValueError, MemoryError])

    def put_back():
        if failure := next(failures, None):
            raise failure

    monkeypatch.setattr(setting.supervisor._expiry, "put_back", put_back)
    setting.supervisor.start()
    setting.context.started[0].exitcode = EXIT_REPLACE
    until = time.monotonic() + 200
    while len(setting.context.started) < 2 or "MemoryError" not in caplog.text:
        assert time.monotonic() < until
        time.sleep(0.05)
    setting.supervisor.stop()


def test_a_worker_that_is_silent_is_killed_if_it_ever_spoke(make, database):
    setting = make(3)
    setting.pass_time(0.5)
    silent, starting, lives = setting.context.started
    workers = [Leases(database, process.name, 30) for process in (silent, lives)]
    for worker in workers:
        worker.sign_on()
    for _ in range(100):
        workers[1].sign_on()
        assert starting.exitcode is None and lives.exitcode is None
        setting.pass_time(1)
        if setting.now < 85:
            assert silent.exitcode is None
    assert silent.exitcode == -9
    assert [starting.exitcode, lives.exitcode] == [None, None]


def test_workers_are_not_blamed_while_the_database_is_away(make, database, monkeypatch):
    setting = make()
    setting.pass_time(0.5)
    (process,) = setting.context.started
    Leases(database, process.name, 30).sign_on()
    setting.pass_time(60)

    def fail(self):
        raise QueueError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "signs_of_life", fail)
        setting.pass_time(600)
    setting.pass_time(10)
    assert process.exitcode is None


def test_leases_run_out_though_no_worker_is_left(make, database, store):
    jobs = [submit(store), submit(store)]
    for attempts in (1, 2):
        assert Leases(database, "w", 30).claim().attempts == attempts
        with database.writing() as connection:
            connection.execute(sa.update(tables.jobs).values(lease_until=0.0))
        setting = make(0)
        setting.pass_time(5)
    assert [store.get(job.id).state for job in jobs] == ["failed", "queued"]


@pytest.mark.parametrize("is_alone", [False, True])
def test_jobs_of_former_processes_go_back_at_the_start(make, database, store, is_alone):
    job = submit(store)
    Leases(database, "w", 30).claim()
    setting = make(is_alone=is_alone)
    setting.supervisor.start()
    setting.supervisor.stop()
    assert store.get(job.id).state == ("queued" if is_alone else "running")
