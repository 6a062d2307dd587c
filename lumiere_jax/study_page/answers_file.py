"""Files of answers that raters of an exported study send back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumiere_jax.data.finding import is_hidden
from lumiere_jax.metrics.user_study import Judgement, Study, left_video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page.page import RATER_PATTERN

FORMAT = "lumiere_jax study answers 1"  # also in local_answers.js


def read_all(paths: Sequence[Path], study: Study) -> list[Judgement]:
    """The answers in files, and in all .json files of folders, which must be those of the study."""
    judgements: list[Judgement] = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.glob("*.json") if not is_hidden(file.name))
        if not files:
            raise UserError(f"{path} has no .json file of answers")
        for file in files:
            judgements.extend(read(file, study))
    return judgements


def read(path: Path, study: Study) -> list[Judgement]:
    """The answers in one file; a `UserError` if it is missing, damaged or of another study."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the answers {path} cannot be read ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a file of answers")
    if content.get("study") != study.key:
        raise UserError(f"{path} has the answers of another study; leave it out")
    rater, answers = content.get("rater"), content.get("answers")
    if not (isinstance(rater, str) and RATER_PATTERN.fullmatch(rater)):
        raise UserError(f"{path} is damaged: it names no rater")
    if not isinstance(answers, list):
        raise UserError(f"{path} is damaged: it has no list of answers")
    return [_judgement(path, study, rater, fields) for fields in answers]


def _judgement(path: Path, study: Study, rater: str, fields: Any) -> Judgement:
    """One answer, looked at field by field, as anyone can write such a file."""
    if not isinstance(fields, dict):
        raise UserError(f"{path} is damaged: an answer is {fields!r}")
    pair, question = study.pair(str(fields.get("pair"))), fields.get("question")
    if pair is None or question not in [known.name for known in study.questions]:
        raise UserError(f"{path} is damaged: no such pair or question in {fields}")
    left = left_video(study, rater, pair)
    if fields.get("chosen") not in pair.videos or fields.get("left") != left:
        raise UserError(f"{path} is damaged: no such videos or sides as in {fields}")
    time = fields.get("answered_at")
    if not isinstance(time, int) or isinstance(time, bool):
        raise UserError(f"{path} is damaged: no time in {fields}")
    return Judgement(rater, pair.key, question, fields["chosen"], left, time)
