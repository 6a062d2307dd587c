"""Databases, bundles and servers for the tests of serving."""

import contextlib
from pathlib import Path

import pytest

from tests.serving.live import LiveServer
from tests.serving.postgres import Missing, new_database, running


@pytest.fixture(name="bundle", scope="session")
def fixture_bundle(cascade, tmp_path_factory):
    from lumiere_jax.checkpoints.exporting import export

    folder = tmp_path_factory.mktemp("serving") / "bundle"
    stages = ("t2i", "stunet", "stunet_conditional", "t2i_ssr", "ssr", "style")
    export([str(cascade[stage]) for stage in stages], folder, license="MIT")
    return folder


@pytest.fixture(name="postgres", scope="session")
def fixture_postgres():
    """Address of a PostgreSQL server without databases of ours."""
    with contextlib.ExitStack() as started:
        try:
            address = started.enter_context(running())
        except Missing as reason:
            pytest.skip(str(reason))
        yield address


@pytest.fixture(name="new_postgres")
def fixture_new_postgres(postgres):
    """URL of an empty database."""
    return new_database(postgres)


@pytest.fixture(name="url", params=["sqlite", "postgres"])
def fixture_url(request, tmp_path):
    """URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.sqlite'}"
    return request.getfixturevalue("new_postgres")


@pytest.fixture(name="database")
def fixture_database(url):
    from lumiere_jax.serving.database import Database

    database = Database(url)
    yield database
    database.close()


@pytest.fixture(name="store")
def fixture_store(database):
    from lumiere_jax.serving.store import Store

    return Store(database)


@pytest.fixture(name="site")
def fixture_site(bundle, tmp_path):
    from tests.serving.site import Site

    site = Site(bundle, tmp_path)
    yield site
    site.database.close()


@pytest.fixture(name="shared_site", scope="module")
def fixture_shared_site(bundle, tmp_path_factory):
    """One site for all cases of a file that leave it usable."""
    from tests.serving.site import Site

    site = Site(bundle, tmp_path_factory.mktemp("site"), queue=1000, queue_per_client=1000)
    yield site
    site.database.close()


@pytest.fixture(name="start_server")
def fixture_start_server(bundle, tmp_path):
    """Starts `python -m lumiere_jax.serve`, as often as asked; the data folder stays the same."""
    with contextlib.ExitStack() as started:

        def start(*flags: str, data: Path = tmp_path / "data", **more) -> LiveServer:
            server = LiveServer(bundle, data, *flags, **more)
            started.callback(server.kill)
            return server

        yield start
