"""Servers and a browser for the tests of the study."""

import shutil
import threading

import pytest

from lumiere_jax.study_page import server
from lumiere_jax.study_page.folder import ANSWERS_FILE
from lumiere_jax.study_page.store import Store
from tests.study.videos import make_study


class Served:
    """A study that a server in this process serves."""

    def __init__(self, folder, study):
        self.folder, self.study = folder, study
        self.store = Store(folder / ANSWERS_FILE, study)
        app = server.make_app(study, folder, self.store)
        self._server = server.make_server(app, "127.0.0.1", 0)
        self.url = server.address("127.0.0.1", self._server.effective_port)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def answers(self, rater: str | None = None) -> dict[tuple[str, str, str], str]:
        """What is stored: (rater, pair, question) -> chosen video."""
        judgements = self.store.judgements(rater)
        return {(j.rater, j.pair, j.question): j.chosen for j in judgements}


@pytest.fixture(name="served")
def fixture_served(tmp_path):
    return Served(*make_study(tmp_path))


@pytest.fixture(name="browser", scope="module")
def fixture_browser():
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="open_page")
def fixture_open_page(browser):
    """Opens an address as a new person would; errors of its scripts fail the test."""
    contexts, errors = [], []

    def open_page(url: str, **options):
        context = browser.new_context(**({"viewport": {"width": 1000, "height": 700}} | options))
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors
