"""The interface against its own schema, with requests that schemathesis makes up."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
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


@pytest.fixture(name="web_schema", scope="module")
def fixture_web_schema(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    given = Settings(
        bundle=bundle, database=f"sqlite:///{folder / 'q'}", scratch=folder, limits=Limits(queue=20)
    )
    app = make_app(Store(Database(given.database)), Models.read(bundle), given)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


schema = schemathesis.pytest.from_fixture("web_schema")


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_what_the_schema_says(case):
    reply = case.call()
    # Without workers the server is not ready, and says so.
    assert reply.status_code < 500 or case.path == "/api/v1/health"
    case.validate_response(
        reply,
        checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
    )
