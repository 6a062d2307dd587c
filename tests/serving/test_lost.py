"""Which workers are taken for gone, whatever the clock of the database does, in both databases."""

import threading

import pytest
import sqlalchemy as sa

from lumiere_jax.serving import lost, tables
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from tests.serving.queue import Clock, count, lose, submit


@pytest.fixture(name="clock")
def fixture_clock():
    return Clock()


def expiry(database, clock):
    made = lost.Expiry(database, 30, clock)

    def look(seconds=1.0):
        clock.now += seconds
        made.put_back()

    return look


def shift(database, seconds):
    """What was written looks as after the clock was set by so much: back is positive."""
    with database.writing() as connection:
        lease_until = tables.jobs.c.lease_until + seconds
        connection.execute(sa.update(tables.jobs).values(lease_until=lease_until))


def test_a_lost_job_is_tried_once_more_and_alone_and_then_fails(database, store):
    job = submit(store, "a", files={"image": b"x"})
    assert Leases(database, "dead", 30).claim().attempts == 1
    worker = Leases(database, "w", 30)
    assert worker.claim() is None
    lose(database)
    submit(store, "a")
    again = worker.claim()
    assert (again.id, again.attempts, again.worker) == (job.id, 2, "w")
    assert worker.claim_more(again, 3) == []
    lose(database)
    found = store.get(job.id)
    assert found.state == "failed" and "lost 2 times" in found.error and found.finished_at
    assert count(database, tables.inputs) == 0


def test_a_lease_that_is_over_is_looked_at_twice(database, store, clock):
    job, look = submit(store), expiry(database, clock)
    Leases(database, "w", 30).claim()
    shift(database, -31)
    for seconds, state in ((0, "running"), (1.9, "running"), (0.2, "queued")):
        look(seconds)
        assert store.get(job.id).state == state


def test_a_clock_that_is_set_forward_takes_nothing_from_a_worker_that_lives(database, store, clock):
    job, look = submit(store), expiry(database, clock)
    worker = Leases(database, "w", 30)
    claimed = worker.claim()
    shift(database, -3600)
    look()
    assert worker.report([claimed], {}, {}) == {job.id}
    for _ in range(5):
        look()
    assert store.get(job.id).state == "running"


def test_a_clock_that_is_set_back_keeps_no_job_from_being_put_back(database, store, clock):
    dead, lives = submit(store), submit(store)
    Leases(database, "dead", 30).claim()
    worker, look = Leases(database, "w", 30), expiry(database, clock)
    claimed = worker.claim()
    shift(database, 3600)
    for _ in range(70):
        assert worker.report([claimed], {}, {}) == {lives.id}
        look()
    assert store.get(dead.id).state == "queued" and store.get(lives.id).state == "running"


def test_seconds_in_which_nobody_looked_count_little(clock):
    silence = lost.Silence(clock)
    assert silence.look(["a"]) == {"a": 0}
    clock.now = 1000.0
    assert silence.look(["a", "b"]) == {"a": 5, "b": 0}
    clock.now = 1001.0
    assert silence.look(["b"]) == {"b": 1}
    assert silence.look(["a"]) == {"a": 0}


def test_what_a_dead_worker_had_goes_back_or_fails(database, store):
    job = submit(store)
    for state in ("queued", "failed"):
        assert Leases(database, "w", 30).claim()
        lost.lose(database, "v")
        assert store.get(job.id).state == "running"
        lost.lose(database, "w")
        assert store.get(job.id).state == state


def test_what_all_workers_had(database, store):
    jobs = [submit(store) for _ in range(3)]
    for name in "ab":
        worker = Leases(database, name, 30)
        worker.sign_on()
        worker.claim()
    lost.lose_all(database)
    assert [store.get(job.id).state for job in jobs] == ["queued"] * 3
    assert [store.get(job.id).attempts for job in jobs] == [1, 1, 0]
    assert store.living_workers(30) == []


def test_a_lock_that_is_held_keeps_no_other_job_from_being_put_back(new_postgres, clock):
    from lumiere_jax.serving.store import Store

    database = Database(f"{new_postgres}&options=-c%20lock_timeout%3D2s")
    store = Store(database)
    locked, free = submit(store), submit(store)
    worker, look = Leases(database, "dead", 30), expiry(database, clock)
    worker.claim()
    worker.claim()
    shift(database, -31)
    look()
    with database.writing() as connection:  # of a machine that vanished while it reported
        connection.execute(sa.update(tables.jobs).where(tables.jobs.c.id == locked.id).values(
            progress={}
        ))  # fmt: skip
        look(3)
        assert (store.get(locked.id).state, store.get(free.id).state) == ("running", "queued")
    look()
    assert store.get(locked.id).state == "queued"
    database.close()


def test_a_job_that_two_look_at_is_put_back_once(database, store):
    job, clocks = submit(store), [Clock(), Clock()]
    Leases(database, "w", 30).claim()
    shift(database, -31)
    looks = [expiry(database, clock) for clock in clocks]
    for seconds in (0, 3):
        threads = [threading.Thread(target=look, args=(seconds,)) for look in looks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (store.get(job.id).state, store.get(job.id).attempts) == ("queued", 1)
