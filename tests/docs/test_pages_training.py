"""All code blocks of the pages that train."""

import pytest

from tests.docs.page_table import TRAINING


@pytest.mark.parametrize("path", TRAINING)
def test_blocks_run(session, cascade, path):
    session.run(path, TRAINING[path], cascade)
