"""What `python -m lumiere_jax.study` does for each of its modes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumiere_jax.metrics.user_study import Study, merge, summarize
from lumiere_jax.runtime import web_server
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page import folder as study_folder


def make_or_load(
    folder: Path,
    *,
    ours: str | None,
    baselines: Sequence[str],
    prompts_file: str | None,
    **settings: Any,
) -> Study:
    """The study of a folder; made from folders of videos if they are given, see `making.make`."""
    given = {"--ours": ours, "--baseline": baselines, "--prompts": prompts_file}
    if not any(given.values()):
        return study_folder.load(folder)
    if not ours or not baselines or not prompts_file:
        missing = " and ".join(flag for flag, value in given.items() if not value)
        raise UserError(f"{missing} must be given too, or none of {', '.join(given)}")
    from lumiere_jax.study_page import making  # PyAV, which serving does not need

    return making.make(
        folder,
        ours=Path(ours),
        baselines=[Path(path) for path in baselines],
        prompts_file=Path(prompts_file),
        **settings,
    )


def serve(study: Study, folder: Path, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    from lumiere_jax.study_page import server
    from lumiere_jax.study_page.store import Store

    store = Store(folder / study_folder.ANSWERS_FILE, study)
    listening = web_server.listen(host, port)
    running = web_server.make_server(server.make_app(study, folder, store))
    web_server.end_by_signal(running)
    where = web_server.address(host, listening.getsockname()[1])
    checks = sum(pair.is_check for pair in study.pairs)
    print(f"{len(study.pairs) - checks} pairs and {checks} attention checks at {where}")
    running.run(sockets=[listening])


def evaluate(study: Study, folder: Path, answers: Sequence[Path], max_wrong_checks: int) -> None:
    """Prints and writes the results of stored and of sent answers; a `UserError` without any."""
    from lumiere_jax.study_page import answers_file, report
    from lumiere_jax.study_page.store import Store

    judgements = answers_file.read_all(answers, study)
    path = folder / study_folder.ANSWERS_FILE
    if path.exists():
        judgements += Store(path, study).judgements()
    if not judgements:
        raise UserError(
            f"there are no answers yet in {folder}; serve the study, or give --answers=FILES"
        )
    summary = summarize(study, merge(judgements), max_wrong_checks)
    print(report.table(summary))
    for written in report.write(folder, summary):
        print(written)
