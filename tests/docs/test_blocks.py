"""No code block is left out of the tests of pages."""

from tests.docs.blocks import REPOSITORY, Block, blocks, pages
from tests.docs.page_table import PAGES


def test_every_page_with_blocks_is_run():
    with_blocks = {path for path in pages() if blocks((REPOSITORY / path).read_text())}
    assert with_blocks == set(PAGES)


def test_blocks_are_found():
    page = "a\n\n    one\n\n    two\n\nb\n```python\nx = 1\n\n```\n- c\n  d\n\n```\nplain\n```\n"
    assert blocks(page) == [
        Block(3, "sh", "one\n\ntwo\n"),
        Block(9, "python", "x = 1\n"),
        Block(16, "", "plain\n"),
    ]
