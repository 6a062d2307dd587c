"""The page that raters see: one HTML text with what it has to know of the study.

It is served, or exported as a folder of static files for any web server or the file system.
"""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

from lumiere_jax.metrics.user_study import Study
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.study_page.folder import VIDEOS

EXPORT_FOLDER = "page"
ASSETS = Path(__file__).with_name("assets")
RATER_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # also in study.js


def render(study: Study, **settings: Any) -> str:
    """The page of a study; `settings`, in terms of JSON, are what else the scripts have to know."""
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


def _for_export(study: Study, post_url: str | None) -> str:
    """The page that needs no server: it holds all pairs, and not which method made what."""
    pairs = [
        {"key": p.key, "prompt": p.prompt, "videos": list(p.videos), "everyRater": p.is_check}
        for p in study.pairs
    ]
    drawing = {"seed": study.seed, "pairsPerRater": study.pairs_per_rater}
    return render(study, mode="export", pairs=pairs, **drawing, postUrl=post_url)


def export(study: Study, folder: Path, post_url: str | None = None) -> Path:
    """Writes `page/` into the folder of a study, last of all the `index.html` that is returned.

    With `post_url` the page sends the answers there at the end (JSON, by POST). A `UserError` if
    the folder cannot be written.
    """
    target = folder / EXPORT_FOLDER
    scripts = [path for path in sorted(ASSETS.iterdir()) if path.suffix in (".js", ".css")]
    videos = sorted({video for pair in study.pairs for video in pair.videos})
    try:
        for name in (VIDEOS, "assets"):
            (target / name).mkdir(parents=True, exist_ok=True)
        for path in [*scripts, *(folder / VIDEOS / name for name in videos)]:
            with written(target / path.parent.name / path.name) as temporary:
                shutil.copyfile(path, temporary)
        write_text(target / "index.html", _for_export(study, post_url))
    except OSError as error:
        raise UserError(f"the page cannot be written to {target} ({error})") from error
    return target / "index.html"
