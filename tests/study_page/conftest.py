"""Servers and a browser for the tests of the study."""

import threading

import pytest
from playwright.sync_api import expect

from lumiere_jax.runtime import web_server
from lumiere_jax.study_page.folder import ANSWERS_FILE
from lumiere_jax.study_page.server import make_app
from lumiere_jax.study_page.store import Store
from tests.study_page.videos import make_study

expect.set_options(timeout=20_000)  # as for all that a page waits for


class Served:
    """A study that a server in this process serves."""

    def __init__(self, folder, study):
        self.folder, self.study = folder, study
        self.store = Store(folder / ANSWERS_FILE, study)
        listening = web_server.listen("127.0.0.1", 0)
        self.url = web_server.address(*listening.getsockname())
        self._server = web_server.make_server(make_app(study, folder, self.store))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()

    def close(self):
        self._server.should_exit = True
        self._thread.join()

    def answers(self, rater: str | None = None) -> dict[tuple[str, str, str], str]:
        """What is stored: (rater, pair, question) -> chosen video."""
        judgements = self.store.judgements(rater)
        return {(j.rater, j.pair, j.question): j.chosen for j in judgements}


@pytest.fixture(name="served")
def fixture_served(tmp_path):
    served = Served(*make_study(tmp_path))
    yield served
    served.close()
