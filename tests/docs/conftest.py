"""One warm Python for the pages that a test process runs."""

import pytest

from lumiere_jax.exporting import export
from tests.docs import session as sessions


@pytest.fixture(name="session", scope="module")
def fixture_session(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    export([str(cascade[stage]) for stage in ("t2i", "stunet", "ssr")], folder / "small")
    with sessions.session(folder) as session:
        yield session
