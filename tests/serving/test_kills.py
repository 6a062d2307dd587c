"""Servers and workers that are killed or stopped under load: each accepted job ends once, right."""

import functools
import itertools
import json
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from lumiere_jax.serving import tables
from tests.serving.kills import Fleet
from tests.serving.queue import count
from tests.serving.stand_in_server import video
from tests.warm_python import REPOSITORY

ROUNDS = 12  # each victim by each signal, twice
SECONDS = 1.0  # at most between them


class Witness:
    """Follows all jobs, and sees that none ends twice."""

    def __init__(self, store, accepted):
        self._store, self._accepted = store, accepted
        self.ended = {}

    def look(self) -> list[str]:
        """The jobs that were accepted so far."""
        accepted = self._accepted.read_text().split()
        jobs = self._store.get_many(accepted)
        assert len(jobs) == len(accepted), "an accepted job is lost"
        for job in jobs:
            if job.is_finished:
                end = job.state, job.finished_at
                assert self.ended.setdefault(job.id, end) == end, "a job ended twice"
        return accepted

    def wait_for(self, is_so) -> None:
        until = time.monotonic() + 200
        while not is_so(self.look()):
            assert time.monotonic() < until, "jobs are stuck"
            time.sleep(0.1)


@pytest.fixture(name="start")
def fixture_start(url, tmp_path):
    """Starts a stand-in; on SQLite there is one, which has the queue to itself."""
    settings = {"bundle": tmp_path, "database": url, "scratch": tmp_path, "batch_wait": 0.05}
    settings |= {"lease": 2.0, "is_alone": url.startswith("sqlite"), "max_batch": 2}
    first_seeds = itertools.count(0, 1000)

    def start(num_workers) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.serving.stand_in_server"]
        command += [json.dumps(settings, default=str), str(num_workers), str(next(first_seeds))]
        with (tmp_path / "accepted").open("ab") as told, (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=REPOSITORY, stdout=told, stderr=log, start_new_session=True
            )

    return start


def test_every_accepted_job_ends_once_with_the_result_of_its_seed(
    url, store, database, start, tmp_path
):
    nums_workers = [2] if url.startswith("sqlite") else [1, 1]
    fleet = Fleet(*[functools.partial(start, number) for number in nums_workers])
    try:
        witness = Witness(store, tmp_path / "accepted")
        witness.wait_for(lambda _: witness.ended)
        for strike in fleet.strikes(ROUNDS, seed=0, pause=SECONDS):
            before = len(witness.ended)
            print(f"{strike}, after {before} of {len(witness.look())} jobs have ended")
            witness.wait_for(lambda _, before=before: len(witness.ended) > before)
        (tmp_path / "enough").touch()
        witness.wait_for(lambda jobs: len(jobs) == len(witness.ended) and is_idle(store))
        assert fleet.end() == [0] * len(nums_workers)
    finally:
        fleet.kill()
        print((tmp_path / "log").read_text())
    jobs = all_jobs(store, database)
    for job in jobs:
        if job.state == "failed":
            assert job.attempts == 2 and "the worker was lost 2 times" in job.error
        else:
            assert (job.state, store.video(job.id)) == ("done", video(job.options["seed"]))
    assert len({job.options["seed"] for job in jobs}) == len(jobs)
    assert sum(job.state == "done" for job in jobs) > len(jobs) / 2
    assert count(database, tables.inputs) == 0


def is_idle(store) -> bool:
    counts = store.counts()
    return counts["queued"] + counts["running"] == 0


def all_jobs(store, database):
    """Also those that a server accepted and could tell nobody."""
    with database.reading() as connection:
        ids = list(connection.scalars(sa.select(tables.jobs.c.id)))
    return store.get_many(ids)
