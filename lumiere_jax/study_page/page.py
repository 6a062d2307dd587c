"""The page that raters see, as one HTML text with what it has to know of the study."""

import html
import json
import re
from pathlib import Path
from typing import Any

from lumiere_jax.metrics.user_study import Study

ASSETS = Path(__file__).with_name("assets")
RATER_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # also in study.js


def render(study: Study, **settings: Any) -> str:
    """The page of a study.

    Args:
      study: the study.
      **settings: what else the scripts have to know, in terms of JSON.
    """
    known = {
        "study": study.key,
        "questions": [{"name": q.name, "text": q.text} for q in study.questions],
        "numPairs": study.num_pairs_per_rater,
        **settings,
    }
    template = (ASSETS / "index.html").read_text(encoding="utf-8")
    # "</script>" in a prompt must not end the script.
    data = json.dumps(known, ensure_ascii=False).replace("<", "\\u003c")
    values = {"title": html.escape(study.title), "data": data}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def for_export(study: Study, post_url: str | None) -> str:
    """The page that needs no server: it holds all pairs, and not which method made what."""
    pairs = [
        {"key": p.key, "prompt": p.prompt, "videos": list(p.videos), "everyRater": p.is_check}
        for p in study.pairs
    ]
    return render(
        study,
        mode="export",
        pairs=pairs,
        seed=study.seed,
        pairsPerRater=study.pairs_per_rater,
        postUrl=post_url,
    )
