"""Zero-shot text-to-video on UCF101: which videos a protocol asks for."""

import dataclasses

from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.evaluation.generation import Request
from lumiere_jax.runtime.errors import UserError

_SEEDS_A_CLASS = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """What a paper's protocol generates."""

    prompts: str  # "pyoco" or "class_names"
    counts: str  # column of the list, see `ActionClass.counts`
    source: str  # where the protocol is described


PRESETS = {
    "lumiere": Preset(prompts="pyoco", counts="videos_of_10000_by_train_split1",
        source="2401.12945 names the protocols of Blattmann et al. and Ge et al. and no more"),
    "make_a_video": Preset(prompts="pyoco", counts="videos_of_10000_by_train_split1",
        source="2209.14792; its prompts, one sentence a class, are not published"),
    "svd": Preset(prompts="class_names", counts="clips_total", source="2311.15127, appendix E.4"),
}  # fmt: skip


def requests(preset: str, seed: int = 0, most: int | None = None) -> list[Request]:
    """The videos of a protocol, class after class; at most `most` per class, for a trial.

    The seed is of the whole set; every video has a seed of its own. A `UserError` if it is not from
    0 to 39, or for an unknown preset.
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
