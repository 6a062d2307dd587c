"""What a check-up found: a figure, what to think of it, and what helps."""

import dataclasses
import textwrap
from collections.abc import Iterable
from typing import Literal

Verdict = Literal["ok", "look", "wrong", "-"]
"""Nothing to do; better look at it; the run would be wasted; nothing to judge it by."""

_WIDTH = 100  # characters of a line


@dataclasses.dataclass(frozen=True)
class Finding:
    """One row of a check-up."""

    name: str
    figure: str
    verdict: Verdict
    advice: str = ""  # what helps; not shown where the verdict is "ok"


def at_least(value: float, ok: float, look: float) -> Verdict:
    """The verdict on a figure of which more is better: from where on it is ok, or to look at."""
    if value >= ok:
        return "ok"
    return "look" if value >= look else "wrong"


def at_most(value: float, ok: float, look: float) -> Verdict:
    """The verdict on a figure of which less is better."""
    return at_least(-value, -ok, -look)


def table(findings: Iterable[Finding]) -> str:
    """A heading that counts the verdicts, and a row for each finding, with its advice below."""
    rows = list(findings)
    wrong, look, ok = (sum(row.verdict == kind for row in rows) for kind in ("wrong", "look", "ok"))
    width = max((len(row.name) for row in rows), default=0)
    lines = [f"check-up: {wrong} wrong, {look} to look at, {ok} ok"]
    for row in rows:
        lines += _wrapped(f"  {row.name:<{width}}  {row.verdict:<5}  ", row.figure)
        if row.advice and row.verdict != "ok":
            lines += _wrapped(" " * (width + 11), f"→ {row.advice}")
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    """Lines of a text beside its head."""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
