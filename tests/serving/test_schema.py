"""The interface against its own schema, with requests that schemathesis makes up."""

import collections
import contextlib

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lumiere_jax.serving.app import make_app
from lumiere_jax.serving.database import Database
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.settings import Limits, Settings
from lumiere_jax.serving.store import Store

_CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(name="web_schema", scope="module")
def fixture_web_schema(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    given = Settings(
        bundle=bundle, database=f"sqlite:///{folder / 'q'}", scratch=folder, limits=Limits(queue=20)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lumiere_jax.serving.app._load_page", lambda *args: FastAPI())
        app = make_app(Store(Database(given.database)), Models.read(bundle), given)
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


# Not by schemathesis' own fixture for pytest, which asks for an older pytest.
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_what_the_schema_says(web_schema, mode):
    counts = collections.Counter()

    for operation in (result.ok() for result in web_schema.get_all_operations()):

        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            reply = case.call()
            counts[case.operation.label] += 1
            # Without workers the server is not ready, and says so.
            assert reply.status_code < 500 or case.path == "/api/v1/health"
            case.validate_response(reply, checks=_CHECKS)

        with contextlib.suppress(Unsatisfiable):  # not every one can be asked wrongly
            ask()
    wrong = {"POST /api/v1/jobs", "GET /api/v1/jobs", "GET /api/v1/jobs/{job_id}"}
    assert len(counts) == 17 if mode.is_positive else wrong <= set(counts)
