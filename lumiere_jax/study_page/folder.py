"""The folder of a study: what is in it, and reading it."""

import json
from pathlib import Path

from lumiere_jax.metrics.user_study import Study
from lumiere_jax.runtime.errors import UserError

STUDY_FILE = "study.json"
VIDEOS = "videos"
ANSWERS_FILE = "answers.sqlite"
OURS = "ours"


def load(folder: Path) -> Study:
    """The study in a folder; a `UserError` if there is none, or a video of it is gone."""
    study = read(folder / STUDY_FILE)
    for pair in study.pairs:
        for video in pair.videos:
            if not (folder / VIDEOS / video).is_file():
                raise UserError(
                    f"{folder / VIDEOS / video} is gone; give --ours, --baseline and --prompts "
                    "again to make the study again"
                )
    return study


def read(path: Path) -> Study:
    """The study in a file; a `UserError` if it is missing or damaged."""
    try:
        return Study.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(
            f"there is no study in {path.parent}; make one with --ours, --baseline and --prompts"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the file of a study ({error!r})") from error
