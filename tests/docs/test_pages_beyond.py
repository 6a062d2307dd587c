"""All code blocks of the pages that evaluate, bring weights, or start jobs elsewhere."""

import pytest

from tests.docs.page_table import BEYOND


@pytest.mark.parametrize("path", BEYOND)
def test_blocks_run(run_page, path):
    run_page(path, BEYOND[path])
