"""One warm Python for the pages that a test process runs."""

import pytest

from lumiere_jax.checkpoints.exporting import export
from tests.docs import session as sessions


@pytest.fixture(name="session", scope="module")
def fixture_session(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    shipped = ("t2i", "stunet", "ssr", "stunet_conditional", "style")
    export([str(cascade[stage]) for stage in shipped], folder / "small")
    with sessions.session(folder) as session:
        yield session
