"""What is added to the commands of pages so that they run in seconds, and which only check flags.

Added flags come last, so that they win over a page's own.
"""

import os
import re
import sys

from tests.tiny_runs import overrides

WITHOUT_SAMPLES = {"train.checkpoint_every": 4, "train.eval_every": 0, "train.sample_every": 0}
DISTILLATION = {
    "train.num_steps": 1,
    "distillation.start_steps": 2,
    "distillation.steps": (1,),
}

ADDED = {
    "lumiere_jax.prepare_data": ["--workers=1"],
    "lumiere_jax.eval": ["--num_frames=9", "--bootstrap=0", "--batch_size=2"],
    "lumiere_jax.export_programs": ["--platforms=cpu"],
    "benchmarks/distillation.py": ["--quick"],
    "benchmarks/ssr_full_size.py": ["--frames=9", "--size=32", "--factor=2", "--steps=1"],
}
"""What is added to the flags of a command, beside training."""

TOO_LARGE = {
    "lumiere_jax.serve": r"",  # never ends; the page's commands talk to another one
    "lumiere_jax.plan": r"",  # compiles for half an hour
    # What is made of imported weights takes a minute to compile: tests/open_weights runs it.
    "lumiere_jax.main": r":(full|if_xl)\b|gs://|from=runs/if_",
    "lumiere_jax.sample": r"--base=runs/if_stunet\b",
    "lumiere_jax.prepare_data": r"--beam\b|:full\b",
    "lumiere_jax.eval": r"--task=",
}
"""Commands of which the flags and the config are read and nothing is done, by what they hold."""


def shrunk(program: str, arguments: list[str]) -> list[str]:
    """The arguments of a command of a page, with more of them.

    Where the command is too large, it is made to end after reading them.
    """
    too_large = program in TOO_LARGE and re.search(TOO_LARGE[program], " ".join(arguments))
    if too_large or "ONLY_FLAGS" in os.environ:
        _stop_after_flags()
        return arguments
    if program == "lumiere_jax.main":
        return _training(arguments)
    return [*arguments, *ADDED.get(program, [])]


def _training(arguments: list[str]) -> list[str]:
    """Shrinks a training run to the tiny stages of the tests, for a few steps."""
    config = next(a for a in arguments if a.startswith("--config="))
    stage = re.fullmatch(r"--config=configs/(\w+)\.py:\S+", config)[1]
    if stage == "distill":
        fields = DISTILLATION
    else:
        fields = overrides(stage)  # the programs of the cascade, which are compiled once
    if "WITH_SAMPLES" not in os.environ:
        fields = fields | WITHOUT_SAMPLES
    added = {f"--config.{name}": value for name, value in fields.items()}
    # A tuple that is given twice is put together from both.
    tuples = {name for name, value in added.items() if isinstance(value, tuple)}
    kept = [a for a in arguments if a.partition("=")[0] not in tuples]
    return [*kept, *(f"{name}={value}" for name, value in added.items())]


def _stop_after_flags() -> None:
    """Lets a binary end with 0 where its flags and config can be read."""
    from lumiere_jax.runtime import errors

    def read_flags(main):
        del main
        errors._parse_flags(sys.argv)
        print("flags are right")
        sys.exit(0)

    errors.run = read_flags
