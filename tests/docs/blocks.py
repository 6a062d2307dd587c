"""The code blocks of a page: fenced ones by their language, indented ones are commands."""

import dataclasses
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SHELL = ("sh", "bash", "console")


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
      line: of the page where its text begins, from 1.
      language: "sh" where it is indented, else what its fence says.
      text: without indentation or fence, with a newline at its end.
    """

    line: int
    language: str
    text: str


def pages() -> list[str]:
    """Every page whose blocks are accounted for, by its path from the top of the repository."""
    found = [*REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "weights" / "small" / "README.md"]
    found += [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    found += [
        REPOSITORY / name / "README.md" for name in ("launch", "benchmarks", "benchmarks/serving")
    ]
    references = REPOSITORY / "docs" / "reference"  # generated from docstrings, no blocks
    return sorted(str(p.relative_to(REPOSITORY)) for p in found if references not in p.parents)


def blocks(text: str) -> list[Block]:
    """All code blocks of a page, in their order."""
    lines = text.split("\n")
    found: list[Block] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.lstrip().startswith("```"):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            found.append(_block(number + 1, line.strip(" `"), lines[number + 1 : end]))
            number = end
        elif line.startswith("    ") and (number == 0 or not lines[number - 1].strip()):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            found.append(_block(number, "sh", [part[4:] for part in lines[number:end]]))
            number = end - 1
        number += 1
    return found


def _block(start: int, language: str, lines: list[str]) -> Block:
    return Block(start + 1, language, "\n".join(lines).rstrip("\n") + "\n")
