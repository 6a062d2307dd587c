"""Whoever reads the log cannot read the jobs."""

import logging
import uuid

import pytest
import sqlalchemy as sa

from lumiere_jax.serving.database import Database
from lumiere_jax.serving.log import Concealing, conceal, short


@pytest.fixture(name="formatted")
def fixture_formatted():
    def formatted(message, *arguments, error=None):
        info = (type(error), error, None) if error else None
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, message, arguments, info)
        return Concealing("%(message)s").format(record)

    return formatted


def test_ids_are_short_hashes(formatted):
    job = str(uuid.uuid4())
    text = formatted("job %s goes back", job, error=ValueError(f"no {job.upper()} here"))
    assert job not in text.lower() and text.count(short(job)) == 2
    assert short(job) == short(job.replace("-", "")) != short(str(uuid.uuid4()))
    assert conceal("step 12 of 40") == "step 12 of 40"


def test_values_of_a_row_are_left_out():
    text = "duplicate key value\nDETAIL:  Key (prompt)=(a secret) already exists."
    assert conceal(text) == "duplicate key value\nDETAIL: (left out)"


def test_errors_of_the_database_hold_no_parameters(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    with pytest.raises(sa.exc.SQLAlchemyError) as caught, database._engine.begin() as connection:
        connection.execute(sa.text("select * from nowhere where id = :id"), {"id": "a secret"})
    assert "a secret" not in str(caught.value)
    database.close()
