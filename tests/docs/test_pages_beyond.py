"""All code blocks of the pages that evaluate, bring weights, or start jobs elsewhere."""

import pytest

from tests.docs.page_table import BEYOND
from tests.docs.session import Page


@pytest.mark.parametrize("path", BEYOND)
def test_blocks_run(session, cascade, path):
    session.run(path, BEYOND[path], cascade)


MISTAKES = {
    "a program that is not there": ("    no_such_program", "no_such_program"),
    "a flag that is not there": ("    python -m lumiere_jax.plan --slice=v5p:2x2x1", "'slice'"),
    "a field that is not there": (
        "    python -m lumiere_jax.main --config=configs/t2i.py:full --workdir=x --config.tex=1",
        "'tex'",
    ),
    "a target that is not there": ("    make coffee", "coffee"),
    "a mistake in a launch": ("    launch/local_pod.sh --process=2 -- --config=x", "--process"),
    "Python that fails": ("```python\nimport lumiere_jack\n```", "lumiere_jack"),
    "a language that is not run": ("```ruby\nputs 1\n```", "'ruby' is none of"),
    "a file that is not there": ("```text\ndocs/none.md   nothing\n```", "docs/none.md"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_block_fails(session, cascade, name):
    block, message = MISTAKES[name]
    with pytest.raises(AssertionError) as failure:
        session.run_text(name, f"A page.\n\n{block}\n", Page(), cascade)
    assert message in str(failure.value)
