"""Puts the sections of all claims that were measured into `benchmarks/claims/README.md`.

    python benchmarks/claims/write_readme.py

Nothing is measured here. A claim is a module of this folder with a function `section(output)`,
which makes its Markdown from the JSON files in `OUTPUT/NAME/`; a new one needs its name in `CLAIMS`
and no more. Claims without results are left out, and named at the end.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text

CLAIMS = (
    "initialization",
    "temporal_downsampling",
    "key_frames",
    "window_overlap",
    "style_interpolation",
    "frozen_images",
)
"""Modules of this folder, in the order of the document."""

INTRODUCTION = """# Claims of the paper, measured

What Lumiere ([arXiv 2401.12945](https://arxiv.org/abs/2401.12945)) claims about its parts, measured
with small networks of this project on procedural clips. A claim that does not hold here is reported
as such, which says nothing about the paper's scale.
`python benchmarks/claims/write_readme.py` writes this page from the JSON files in `results/`; each
section names the command that measures it.
"""


def document(output: Path, names: Sequence[str] = CLAIMS) -> str:
    """The whole document.

    Args:
      output: folder of the results; the document is for the folder above it.
      names: of the claims.

    Raises:
      UserError: if no claim has results.
    """
    measured = [name for name in names if any((output / name).glob("*.json"))]
    if not measured:
        raise UserError(f"--output={output} holds no results; run a script of this folder first.")
    parts = [INTRODUCTION, *(importlib.import_module(n).section(output) for n in measured)]
    missing = [f"`{name}`" for name in names if name not in measured]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def main(argv: list[str]) -> None:
    """Writes the document beside the folder of the results."""
    del argv
    output = Path(flags.FLAGS.output)
    path = output.parent / "README.md"
    write_text(path, document(output))
    print(path)


if __name__ == "__main__":
    flags.DEFINE_string("output", "benchmarks/claims/results", "Folder of the results.")
    errors.run(main)
