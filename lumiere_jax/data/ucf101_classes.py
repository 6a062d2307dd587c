"""The classes of UCF101 and a prompt for each.

The prompts are PYoCo's, as other papers quote them; the class names are those of the TFDS builder
`ucf101`. Their original spellings ("haircuting") are kept.
"""

import csv
import dataclasses
import functools
import importlib.resources
import re


@dataclasses.dataclass(frozen=True)
class ActionClass:
    """A class of UCF101.

    `counts` are videos by the column of the list, such as "clips_total" (those of the data set) or
    "videos_of_10000_by_train_split1" (shares of 10,000, by largest remainder).
    """

    name: str  # as TFDS spells it, "ApplyEyeMakeup"
    prompt: str  # PYoCo's
    counts: dict[str, int]

    @property
    def words(self) -> str:
        """The name as a prompt: "apply eye makeup"."""
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", self.name)
        return spaced.lower()


@functools.cache
def classes() -> tuple[ActionClass, ...]:
    """The 101 classes, in the order of TFDS."""
    file = importlib.resources.files(__package__).joinpath("ucf101_prompts.csv")
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    columns = [column for column in rows[0] if column.startswith(("clips_", "videos_"))]
    return tuple(
        ActionClass(row["class"], row["prompt"], {c: int(row[c]) for c in columns}) for row in rows
    )
