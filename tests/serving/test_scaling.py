"""The number by which a cluster starts and ends workers."""

import sqlalchemy as sa
import yaml

from launch.gke.serving import Serving
from lumiere_jax.serving.leases import Leases
from tests.serving.queue import submit


def scaling_query() -> str:
    serving = Serving(
        name="x", image="x", bundle="x", domain="x.org", accelerator="nvidia-l4", secret="x"
    )
    objects = yaml.safe_load_all(serving.manifest())
    (scaled,) = [found["spec"] for found in objects if found["kind"] == "ScaledObject"]
    return scaled["triggers"][0]["metadata"]["query"]


def test_jobs_that_wait_or_run_ask_for_workers(database, store):
    def asked_for():
        with database.reading() as connection:
            return connection.scalar(sa.text(scaling_query()))

    assert asked_for() == 0
    worker = Leases(database, "w", 30)
    jobs = [submit(store) for _ in range(4)]
    assert asked_for() == 4
    assert worker.finish(worker.claim(), b"x")
    worker.fail([worker.claim()], "no")
    assert worker.claim() and asked_for() == 2  # one waits, and one runs
    store.cancel(jobs[3].id)
    assert asked_for() == 1
    worker.sign_off()  # as one that is taken away: its job waits again
    assert asked_for() == 1
