"""All code blocks of the pages that make videos and pages of them."""

import pytest

from tests.docs.page_table import MAKING


@pytest.mark.parametrize("path", MAKING)
def test_blocks_run(session, cascade, path):
    session.run(path, MAKING[path], cascade)
