"""Makes the folder of a study from folders of videos."""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lumiere_jax.metrics.user_study import QUESTIONS, Pair, Study, draw
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.study_page import prompts, showing
from lumiere_jax.study_page.folder import OURS, STUDY_FILE, VIDEOS, read

_NAMES_TOLD = 8


def make(
    folder: Path,
    *,
    ours: Path,
    baselines: Sequence[Path],
    baseline_names: Sequence[str] = (),
    prompts_file: Path,
    title: str,
    seed: int = 0,
    num_checks: int = 3,
    pairs_per_rater: int | None = None,
) -> Study:
    """Makes the folder of a study, or makes sure that it already is that study.

    Videos that every browser plays are copied; others become MP4 (H.264). A `UserError` if a prompt
    is missing, a video cannot be read, or the folder holds another study.

    Args:
      folder: of the study; created if missing.
      ours: folder with the videos of this model.
      baselines: folders with the videos of the others, under the same relative names.
      baseline_names: what the results call them; the names of the folders if empty.
      prompts_file: see `prompts.read`.
      title: heading of the page.
      seed: of sides, orders and attention checks.
      num_checks: attention checks: a video beside a still picture of noise.
      pairs_per_rater: how many pairs one rater gets at most; None for all.
    """
    names = _method_names(baselines, baseline_names)
    texts = prompts.read(prompts_file)
    ours_found = showing.find_videos(ours)
    writers: dict[str, Callable[[Path], None]] = {}  # in the order in which they have to run

    def shown(method: str, path: Path) -> str:
        video, writers[video] = showing.shown_as(path, seed, method)
        return video

    pairs = []
    for baseline, where in zip(names, baselines, strict=True):
        others = showing.find_videos(where)
        for name in _common_names(ours, ours_found, where, others):
            if name not in texts:
                raise UserError(f"{prompts_file} has no prompt for the video {name}; add it")
            videos = shown(OURS, ours_found[name]), shown(baseline, others[name])
            key = _key(seed, baseline, name)
            pairs.append(Pair(key, name, baseline, texts[name], *videos))
    pairs += _checks(pairs, num_checks, seed, writers)
    pairs.sort(key=lambda pair: pair.key)
    study = Study(title, seed, (OURS, *names), QUESTIONS, tuple(pairs), pairs_per_rater)
    _write(folder, study, writers)
    return study


def _checks(
    pairs: Sequence[Pair], num_checks: int, seed: int, writers: dict[str, Callable[[Path], None]]
) -> list[Pair]:
    """Attention checks with the videos of some pairs; adds what writes the broken ones."""
    checks = []
    by_chance = sorted(pairs, key=lambda pair: draw("checks", seed, pair.key))
    for i, pair in enumerate(by_chance[:num_checks]):
        # Both methods take their turns, so that neither is seen more often.
        intact = (pair.ours, pair.other)[i % 2]
        broken, writers[broken] = showing.noise_like(intact, seed)
        key = _key(seed, "check", i, intact)
        checks.append(Pair(key, pair.name, None, pair.prompt, intact, broken))
    return checks


def _key(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def _method_names(baselines: Sequence[Path], given: Sequence[str]) -> list[str]:
    """What the results call the baselines."""
    if not baselines:
        raise UserError("--baseline names no folder; give at least one to compare with")
    names = list(given) or [path.resolve().name for path in baselines]
    if len(names) != len(baselines):
        raise UserError(f"{len(names)} names for {len(baselines)} baselines in --baseline_names")
    if len({OURS, *names}) <= len(names):
        raise UserError(
            f"the baselines are called {', '.join(names)}: give names that differ from each other "
            f"and from {OURS!r} in --baseline_names"
        )
    return names


def _common_names(
    ours: Path, found: dict[str, Path], baseline: Path, others: dict[str, Path]
) -> list[str]:
    """Names that both folders have; the others are listed on stderr."""
    common = sorted(found.keys() & others.keys())
    unmatched = [
        f"only in {folder}: {_some(names)}"
        for folder, names in ((ours, found.keys() - others), (baseline, others.keys() - found))
        if names
    ]
    if not common:
        raise UserError(
            f"{ours} and {baseline} have no videos of the same name; {'; '.join(unmatched)}"
        )
    if unmatched:
        print(f"left out, {'; '.join(unmatched)}", file=sys.stderr)
    return common


def _some(names: set[str]) -> str:
    told = sorted(names)[:_NAMES_TOLD]
    more = len(names) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def _write(folder: Path, study: Study, writers: dict[str, Callable[[Path], None]]) -> None:
    """Writes videos and then the study, unless another study is there."""
    if (folder / STUDY_FILE).exists() and read(folder / STUDY_FILE).key != study.key:
        raise UserError(
            f"{folder} holds another study (other videos, prompts, seed or checks); give another "
            "--output, or continue it by leaving out --ours, --baseline and --prompts"
        )
    try:
        (folder / VIDEOS).mkdir(parents=True, exist_ok=True)
        missing = [name for name in writers if not (folder / VIDEOS / name).exists()]
        if missing:
            print(f"writing {len(missing)} videos to {folder / VIDEOS}", file=sys.stderr)
        for name in missing:
            writers[name](folder / VIDEOS / name)
        text = json.dumps(study.to_dict(), indent=1, ensure_ascii=False)
        write_text(folder / STUDY_FILE, text + "\n")
    except OSError as error:
        raise UserError(f"the study cannot be written to {folder} ({error})") from error
