"""The queue in both databases: who gets a job, what is kept, and what is lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import database as serving_database
from lumiere_jax.serving import tables
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.leases import Leases
from lumiere_jax.serving.queue import QueueError, QueueFull
from lumiere_jax.serving.store import Store
from tests.serving.queue import count, lose, submit


def test_jobs_are_claimed_in_their_order_with_all_that_was_given(database, store):
    first = submit(store, prompt="ä", seed=2**32 - 1, files={"image": b"\0\xff"})
    second = submit(store)
    assert (store.position(first), store.position(second)) == (0, 1)
    worker = Leases(database, "w", 30)
    job = worker.claim()
    assert job.id == first.id and job.options == {"prompt": "ä", "seed": 2**32 - 1}
    assert worker.files(job) == {"image": b"\0\xff"}
    assert store.position(store.get(first.id)) is None and store.position(second) == 0
    assert worker.claim().id == second.id and worker.claim() is None
    assert store.counts()["running"] == 2


def test_no_job_is_claimed_twice(database, store):
    ids = {submit(store, key="k").id for _ in range(40)}
    got, lock = [], threading.Lock()

    def work(number):
        worker = Leases(database, f"w{number}", 30)
        while job := worker.claim():
            batch = [job, *worker.claim_more(job, 2)]
            with lock:
                got.extend(job.id for job in batch)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(got) == 40 and set(got) == ids


def test_the_bound_of_the_queue_holds_though_many_come_at_once(store):
    def try_one(_):
        try:
            return submit(store, max_queue=5)
        except QueueFull:
            return None

    with ThreadPoolExecutor(8) as pool:
        accepted = [job for job in pool.map(try_one, range(20)) if job]
    assert len(accepted) == 5
    store.check_room(6)
    with pytest.raises(QueueFull, match="5 jobs are waiting"):
        store.check_room(5)


def test_jobs_of_a_client_are_bounded_and_listed_in_pages(database, store):
    def send(client):
        room = {"batch_key": None, "max_queue": 9, "max_per_client": 3}
        return store.submit("text_to_video", {}, {}, client=client, **room).id

    a, _, *others = (send(client) for client in "abaa")
    with pytest.raises(QueueFull, match="3 of your jobs are waiting"):
        send("a")
    assert Leases(database, "w", 30).claim().id == a
    ids = [a, *others, send("a")]
    last, listed = None, []
    while page := store.sent_by("a", after=last, limit=3, newest_first=False):
        last, listed = page[-1], [*listed, *(job.id for job in page)]
    assert listed == ids
    page = store.sent_by("a", after=store.get(ids[2]), limit=9, newest_first=True)
    assert [job.id for job in page] == ids[1::-1]


def test_a_deleted_job_is_gone_with_all_that_was_kept_of_it(database, store):
    worker = Leases(database, "w", 30)
    done, running = submit(store, files={"image": b"x"}), submit(store, files={"image": b"x"})
    worker.finish(worker.claim(), b"MP4")
    claimed = worker.claim()
    assert worker.report([claimed], {}, {running.id: b"PNG"}) == {running.id}
    for job in (done, running):
        assert store.delete(job.id) and not store.delete(job.id) and store.get(job.id) is None
    assert [
        count(database, table) for table in (tables.inputs, tables.previews, tables.videos)
    ] == [0, 0, 0]
    assert worker.report([claimed], {}, {running.id: b"PNG"}) == set()
    assert not worker.finish(claimed, b"MP4")


def test_a_queue_of_the_version_before_is_taken_over(url, database, store):
    job = submit(store)
    with database.writing() as connection:
        connection.execute(sa.text("ALTER TABLE lumiere_jobs DROP COLUMN client"))
        connection.execute(sa.update(tables.versions).values(version=1))
    opened = Database(url)
    assert Store(opened).get(job.id).client is None and submit(Store(opened)).client is None
    opened.close()


def test_a_batch_takes_what_is_alike_and_nothing_else(database, store):
    first, other, alike, alone = (submit(store, key) for key in ("a", "b", "a", None))
    worker = Leases(database, "w", 30)
    batch = worker.claim()
    assert [job.id for job in worker.claim_more(batch, 3)] == [alike.id]
    assert worker.claim().id == other.id
    lone = worker.claim()
    assert lone.id == alone.id and worker.claim_more(lone, 3) == []
    assert first.id == batch.id


def test_what_comes_after_the_lease_is_dropped(database, store):
    job = submit(store)
    slow, fast = Leases(database, "slow", 30), Leases(database, "fast", 30)
    late = slow.claim()
    lose(database)
    current = fast.claim()
    assert slow.report([late], {"step": 9}, {job.id: b"late"}) == set()
    assert not slow.finish(late, b"late")
    slow.fail([late], "late")
    assert store.get(job.id).state == "running" and store.preview(job.id) is None
    assert fast.finish(current, b"video") and not fast.finish(current, b"again")
    assert store.video(job.id) == b"video" and store.get(job.id).video_bytes == 5
    assert not slow.finish(late, b"late") and store.video(job.id) == b"video"


def test_a_worker_does_not_finish_its_own_earlier_attempt(database, store):
    submit(store)
    worker = Leases(database, "w", 30)
    first = worker.claim()
    lose(database)
    second = worker.claim()
    assert not worker.finish(first, b"old") and worker.finish(second, b"new")


def test_a_report_renews_the_lease_and_shows_where_it_is(database, store):
    job = submit(store)
    worker = Leases(database, "w", 30)
    claimed = worker.claim()
    before = store.get(job.id).lease_until
    assert worker.report([claimed], {"step": 1}, {job.id: b"one"}) == {job.id}
    assert worker.report([claimed], {"step": 2}, {job.id: b"two"}) == {job.id}
    assert store.get(job.id).lease_until > before
    shown = store.get(job.id)
    assert (shown.progress, shown.previews, store.preview(job.id)) == ({"step": 2}, 2, b"two")


def test_cancelling(database, store):
    waits, runs, done = (submit(store, files={"image": b"x"}) for _ in range(3))
    assert store.cancel(waits.id).state == "cancelled"
    worker = Leases(database, "w", 30)
    claimed, other = worker.claim(), worker.claim()
    assert [claimed.id, other.id] == [runs.id, done.id]
    assert store.cancel(runs.id).state == "cancelled"
    assert worker.report([claimed, other], {}, {}) == {done.id}
    assert not worker.finish(claimed, b"v") and worker.finish(other, b"v")
    assert store.cancel(done.id).state == "done" and store.cancel("none") is None
    assert count(database, tables.inputs) == 0 and count(database, tables.videos) == 1


def test_a_worker_that_signs_off_gives_back(database, store):
    job = submit(store)
    for _ in range(3):  # that a machine is restarted is no fault of the job
        worker = Leases(database, "w", 30)
        worker.sign_on()
        worker.sign_on()
        assert store.living_workers(30) == ["w"]
        assert worker.claim().attempts == 1
        worker.sign_off()
        assert store.living_workers(30) == [] and store.get(job.id).state == "queued"
    assert worker.claim() and worker.give_back() is None
    assert (store.get(job.id).state, store.get(job.id).attempts) == ("queued", 0)


def test_what_could_not_be_made_goes_back_once_and_then_fails(database, store):
    job, other = submit(store, files={"image": b"x"}), submit(store)
    worker = Leases(database, "w", 30)
    for state, attempts in (("queued", 1), ("failed", 2)):
        worker.put_back([worker.claim()], "broken")
        found = store.get(job.id)
        assert (found.state, found.attempts) == (state, attempts)
    assert found.error == "broken" and count(database, tables.inputs) == 0
    for _ in range(3):
        worker.put_back([worker.claim()], "broken", free_for=3600)
        assert (store.get(other.id).state, store.get(other.id).attempts) == ("queued", 0)
    with database.writing() as connection:
        connection.execute(
            sa.update(tables.jobs).values(created_at=tables.jobs.c.created_at - 4000)
        )
    for state, attempts in (("queued", 1), ("failed", 2)):
        worker.put_back([worker.claim()], "broken", free_for=3600)
        found = store.get(other.id)
        assert (found.state, found.attempts) == (state, attempts)


def test_what_another_has_is_not_put_back(database, store):
    job = submit(store)
    slow = Leases(database, "slow", 30)
    late = slow.claim()
    lose(database)
    Leases(database, "fast", 30).claim()
    slow.put_back([late], "late")
    slow.give_back()
    assert (store.get(job.id).state, store.get(job.id).worker) == ("running", "fast")


def test_a_worker_of_the_future_is_not_taken_to_live(database, store):
    Leases(database, "w", 30).sign_on()
    with database.writing() as connection:
        connection.execute(sa.update(tables.workers).values(seen_at=tables.workers.c.seen_at + 60))
    assert store.living_workers(30) == [] and store.living_workers(90) == ["w"]


def test_old_jobs_are_deleted_with_all_they_had(database, store):
    worker = Leases(database, "w", 30)
    done, waits = submit(store), submit(store, files={"image": b"x"})
    claimed = worker.claim()
    worker.report([claimed], {}, {done.id: b"p"})
    worker.finish(claimed, b"v")
    assert store.tidy(3600) == 0 and store.video(done.id) == b"v"
    assert store.tidy(0) == 1
    assert store.get(done.id) is None and store.get(waits.id).state == "queued"
    counts = [count(database, t) for t in (tables.videos, tables.previews, tables.inputs)]
    assert counts == [0, 0, 1]


def test_all_is_there_after_opening_it_again(url, store):
    job = submit(store, prompt="p")
    again = Database(url)
    assert Store(again).get(job.id).options == {"prompt": "p"}
    again.close()


def test_opened_by_many_at_once(url):
    with ThreadPoolExecutor(4) as pool:
        for database in pool.map(lambda _: Database(url), range(4)):
            assert Store(database).counts()["queued"] == 0
            database.close()


def test_new_sqlite_files_opened_by_many_at_once(tmp_path):
    # SQLite refuses about one in forty such openings at once when it isn't asked again.
    with ThreadPoolExecutor(12) as pool:
        for i in range(40):
            for database in pool.map(Database, [f"sqlite:///{tmp_path}/{i}.sqlite"] * 12):
                database.close()


def test_a_database_of_another_version(url, database):
    with database.writing() as connection:
        connection.execute(sa.update(tables.versions).values(version=99))
    with pytest.raises(UserError, match="has version 99, but this program uses 2"):
        Database(url)


def test_postgres_gives_up_on_machines_and_networks_that_are_silent(new_postgres):
    def shown(url, *names):
        database = Database(url)
        with database.reading() as connection:
            driver = connection.connection.driver_connection
            shown = [connection.scalar(sa.text(f"SHOW {name}")) for name in names]
            parameters = driver.info.get_parameters()
        database.close()
        return shown, parameters

    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    values, parameters = shown(new_postgres, *names)
    assert values == ["2min", "1min", "30s"]
    assert parameters["keepalives_idle"] == "10" and parameters["tcp_user_timeout"] == "30000"
    # What the URL says goes before.
    own = f"{new_postgres}&options=-c%20lock_timeout%3D5s&keepalives_idle=77"
    values, parameters = shown(own, *names)
    assert values == ["2min", "5s", "30s"]
    assert parameters["keepalives_idle"] == "77" and parameters["keepalives_interval"] == "5"


def test_a_transaction_that_is_left_open_ends(new_postgres, monkeypatch):
    name = "idle_in_transaction_session_timeout"
    monkeypatch.setitem(serving_database._SESSION, name, "200ms")
    first, second = Database(new_postgres), Database(new_postgres)
    job = submit(Store(second))
    with pytest.raises(QueueError, match="idle-in-transaction timeout"):
        with first.writing() as connection:
            connection.execute(sa.select(tables.jobs).with_for_update()).all()
            assert Store(second).cancel(job.id).state == "cancelled"  # waits for the lock
            connection.execute(sa.select(tables.jobs))
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("queue", "is not a URL"),
        ("mysql://host/x", "is 'mysql'; use sqlite"),
        ("sqlite:///", "needs a file"),
        ("sqlite:////nowhere/x.sqlite", "cannot be used .*unable to open"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"postgresql://me:\*\*\*@127.0.0.1:1/x cannot"),
    ],
)
def test_databases_that_cannot_be_used(url, message):
    with pytest.raises(UserError, match=message) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "x").write_text("text " * 1000)
    with pytest.raises(UserError, match="cannot be used .*not a database"):
        Database(f"sqlite:///{tmp_path / 'x'}")
