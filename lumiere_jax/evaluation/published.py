"""Zero-shot UCF101 as papers report it, and how their protocols differ from a card's."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What a paper reports."""

    name: str  # of the model
    fvd: float | None  # as printed in table 2 of 2401.12945; None where it has a dash
    inception_score: float | None = None  # likewise
    num_generated: int | None = None  # videos that were scored, where it is known
    prompts: str = ""  # "pyoco", "class_names", "own" (not published) or "" (not known)
    note: str = ""  # what else is known of the protocol


ROWS = (
    Row(name="MagicVideo", fvd=655.00),
    Row(name="Emu Video", fvd=606.20, inception_score=42.70),
    Row(name="Video LDM", fvd=550.61, inception_score=33.45, num_generated=10_100,
        prompts="class_names", note="100 videos a class"),
    Row(name="Show-1", fvd=394.46, inception_score=35.42, num_generated=2_048, prompts="own",
        note="FVD of 2,048 videos, IS of 10,000; squashed to a square"),
    Row(name="Make-A-Video", fvd=367.23, inception_score=33.00, num_generated=10_000,
        prompts="own", note="classes as in the training split"),
    Row(name="PYoCo", fvd=355.19, inception_score=47.76, num_generated=10_000, prompts="pyoco",
        note="64×64 pixels"),
    Row(name="SVD", fvd=242.02, num_generated=13_320, prompts="class_names",
        note="every class as often as in UCF101; 16 frames at 25 fps; StyleGAN-V's I3D"),
    Row(name="Lumiere", fvd=332.49, inception_score=37.54,
        note="'the protocols of Blattmann et al. and Ge et al.', no more is said"),
)  # fmt: skip


def differences(row: Row, protocol: dict[str, Any]) -> list[str]:
    """What is known to differ between a paper's protocol and `card["protocol"]`."""
    told = []
    counts = sorted({part["videos"] for part in protocol["generated"]})
    if row.num_generated is None:
        told.append("its number of videos is not known")
    elif counts != [row.num_generated]:
        told.append(f"{row.num_generated:,} videos, here {', '.join(f'{n:,}' for n in counts)}")
    if not row.prompts:
        told.append("its prompts are not known")
    elif row.prompts != protocol.get("prompts"):
        told.append(f"prompts '{row.prompts}', here '{protocol.get('prompts', 'none')}'")
    if row.note:
        told.append(row.note)
    return told
