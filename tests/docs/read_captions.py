"""Checks that a file is a table of captions."""

import sys
from pathlib import Path

from lumiere_jax.data.captions import read_captions_file

if __name__ == "__main__":
    found = read_captions_file(Path(sys.argv[1]))
    assert found and all(listed.captions for listed in found.values()), found
