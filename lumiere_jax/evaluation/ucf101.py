"""Zero-shot text-to-video on UCF101: which videos a protocol asks for.

The prompts are PYoCo's, one a class, as other papers quote them; the class names are those of the
TFDS builder `ucf101`. Their original spellings ("haircuting") are kept.
"""

import csv
import dataclasses
import functools
import importlib.resources
import re

from lumiere_jax.errors import UserError
from lumiere_jax.evaluation.generation import Request

_FILE = "ucf101_prompts.csv"
_SEEDS_A_CLASS = 2**20


@dataclasses.dataclass(frozen=True)
class ActionClass:
    """A class of UCF101.

    Attributes:
      name: as TFDS spells it, "ApplyEyeMakeup".
      prompt: PYoCo's.
      counts: number of videos by the column of the list, such as "clips_total" (those of the data
        set) or "videos_of_10000_by_train_split1" (shares of 10,000, by largest remainder).
    """

    name: str
    prompt: str
    counts: dict[str, int]

    @property
    def words(self) -> str:
        """The name as a prompt: "apply eye makeup"."""
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", self.name)
        return spaced.lower()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """What a paper's protocol generates.

    Attributes:
      prompts: "pyoco" or "class_names".
      counts: column of the list, see `ActionClass.counts`.
      source: where the protocol is described.
    """

    prompts: str
    counts: str
    source: str


PRESETS = {
    "lumiere": Preset(
        prompts="pyoco",
        counts="videos_of_10000_by_train_split1",
        source="2401.12945 names the protocols of Blattmann et al. and Ge et al. and no more",
    ),
    "make_a_video": Preset(
        prompts="pyoco",
        counts="videos_of_10000_by_train_split1",
        source="2209.14792; its prompts, one sentence a class, are not published",
    ),
    "svd": Preset(prompts="class_names", counts="clips_total", source="2311.15127, appendix E.4"),
}


@functools.cache
def classes() -> tuple[ActionClass, ...]:
    """The 101 classes, in the order of TFDS."""
    text = importlib.resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    columns = [column for column in rows[0] if column.startswith(("clips_", "videos_"))]
    return tuple(
        ActionClass(row["class"], row["prompt"], {c: int(row[c]) for c in columns}) for row in rows
    )


def requests(preset: str, seed: int = 0, most: int | None = None) -> list[Request]:
    """The videos of a protocol, class after class.

    Args:
      preset: a name of `PRESETS`.
      seed: of the whole set; every video has a seed of its own.
      most: at most so many a class, for a trial.

    Raises:
      UserError: for an unknown preset, or a seed that leaves no room.
    """
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown; choose from {', '.join(PRESETS)}.")
    first = seed * len(classes()) * _SEEDS_A_CLASS
    if not 0 <= first <= 2**32 - len(classes()) * _SEEDS_A_CLASS:
        raise UserError(f"seed={seed} must be between 0 and 39.")
    wanted = PRESETS[preset]
    made = []
    for label, action in enumerate(classes()):
        count = action.counts[wanted.counts]
        prompt = action.prompt if wanted.prompts == "pyoco" else action.words
        for index in range(count if most is None else min(count, most)):
            video_seed = first + label * _SEEDS_A_CLASS + index
            made.append(Request(f"{action.name}/{index:05d}_{seed}", prompt, video_seed))
    return made
