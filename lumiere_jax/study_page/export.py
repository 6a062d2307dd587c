"""The study as a folder of static files, which any web server or the file system serves."""

import shutil
from pathlib import Path

from lumiere_jax.metrics.user_study import Study
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written
from lumiere_jax.study_page import page
from lumiere_jax.study_page.folder import VIDEOS

FOLDER = "page"


def export(study: Study, folder: Path, post_url: str | None = None) -> Path:
    """Writes `page/` into the folder of a study.

    Args:
      study: the study.
      folder: of the study, with its videos.
      post_url: where the page sends the answers at the end (JSON, by POST); None for nowhere.

    Returns:
      The path of `page/index.html`, which is written last.

    Raises:
      UserError: the folder cannot be written.
    """
    target = folder / FOLDER
    scripts = [path for path in sorted(page.ASSETS.iterdir()) if path.suffix in (".js", ".css")]
    videos = sorted({video for pair in study.pairs for video in pair.videos})
    try:
        for name in (VIDEOS, "assets"):
            (target / name).mkdir(parents=True, exist_ok=True)
        for path in [*scripts, *(folder / VIDEOS / name for name in videos)]:
            with written(target / path.parent.name / path.name) as temporary:
                shutil.copyfile(path, temporary)
        write_text(target / "index.html", page.for_export(study, post_url))
    except OSError as error:
        raise UserError(f"the page cannot be written to {target} ({error})") from error
    return target / "index.html"
