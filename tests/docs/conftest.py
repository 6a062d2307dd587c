"""A folder in which the pages of a file of tests are run."""

import pytest

from lumiere_jax.checkpoints.exporting import export
from tests.docs.session import make_session


@pytest.fixture(name="session", scope="module")
def fixture_session(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    shipped = ("t2i", "stunet", "ssr", "stunet_conditional", "style")
    export([str(cascade[stage]) for stage in shipped], folder / "small")
    return make_session(folder)
