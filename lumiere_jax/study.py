"""A user study of generated videos, as a web page: makes, serves, exports and evaluates it.

    python -m lumiere_jax.study --mode=serve --output=STUDY --ours=DIR --baseline=DIR --prompts=FILE
    python -m lumiere_jax.study --mode=results --output=STUDY

The folder of the study remembers what it was made from, so that --ours, --baseline and --prompts
are needed only the first time. Ctrl-C ends the server; the same command continues.
"""

from pathlib import Path

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import define_path, define_paths

_MODE = flags.DEFINE_enum(
    "mode", "serve", ["serve", "export", "results"], "Serve, write static files, or evaluate."
)
_OUTPUT = define_path("output", None, "Folder of the study; created if missing.", required=True)
_OURS = define_path("ours", None, "Folder with the videos of this model.")
_BASELINE = define_paths("baseline", [], "Folders with videos of the same names.")
_BASELINE_NAMES = flags.DEFINE_list(
    "baseline_names", [], "Names in the results; by default those of the folders."
)
_PROMPTS = define_path(
    "prompts", None, "CSV or JSONL with name and prompt, or text, one prompt a line (0000, 0001 …)."
)
_TITLE = flags.DEFINE_string("title", "Which video is better?", "Heading of the page.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of sides, orders and attention checks.")
_CHECKS = flags.DEFINE_integer("checks", 3, "Attention checks for each rater.", lower_bound=0)
_PAIRS_PER_RATER = flags.DEFINE_integer(
    "pairs_per_rater", None, "Pairs per rater at most; by default all.", lower_bound=1
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve at; 0.0.0.0 for all interfaces.")
_PORT = flags.DEFINE_integer("port", 8000, "Port to serve at.", lower_bound=0, upper_bound=65535)
_POST_URL = flags.DEFINE_string("post_url", None, "Where an exported page sends its answers.")
_ANSWERS = define_paths("answers", [], "Files of answers, or folders of them, for results.")
_MAX_WRONG_CHECKS = flags.DEFINE_integer(
    "max_wrong_checks", 1, "Raters with more wrong answers to checks are left out.", lower_bound=0
)

_FIXED = ("baseline_names", "title", "seed", "checks", "pairs_per_rater")


def main(argv: list[str]) -> None:
    """Does what the flags ask for."""
    del argv
    from lumiere_jax.study_page import command, page

    _refuse_ignored_flags()
    folder = Path(_OUTPUT.value)
    study = command.make_or_load(
        folder,
        ours=_OURS.value,
        baselines=_BASELINE.value,
        baseline_names=_BASELINE_NAMES.value,
        prompts_file=_PROMPTS.value,
        title=_TITLE.value,
        seed=_SEED.value,
        num_checks=_CHECKS.value,
        pairs_per_rater=_PAIRS_PER_RATER.value,
    )
    if _MODE.value == "serve":
        command.serve(study, folder, _HOST.value, _PORT.value)
    elif _MODE.value == "export":
        print(page.export(study, folder, _POST_URL.value))
    else:
        answers = [Path(path) for path in _ANSWERS.value]
        command.evaluate(study, folder, answers, _MAX_WRONG_CHECKS.value)


def _refuse_ignored_flags() -> None:
    """Refuses what a study that is already made would not follow."""
    given = [f"--{name}" for name in _FIXED if flags.FLAGS[name].present]
    if given and _OURS.value is None:
        raise UserError(
            f"{', '.join(given)} is fixed when a study is made: give --ours, --baseline and "
            "--prompts too"
        )


if __name__ == "__main__":
    errors.run(main)
