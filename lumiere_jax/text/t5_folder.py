"""Where in the folders of Hugging Face a T5 encoder and its tokenizer are."""

import json
import re
from pathlib import Path

KINDS = ("t5", "mt5")  # UMT5 has a relative bias in every block


def find_encoder(folder: Path) -> Path:
    """The folder of the encoder: the given one, or in a pipeline of diffusers its only T5.

    A pipeline may have several encoders: Stable Diffusion 3 has T5 in `text_encoder_3`, Flux in
    `text_encoder_2`, DeepFloyd IF in `text_encoder`. Without any T5 it is the given one.
    """
    if (folder / "config.json").is_file():
        return folder
    found = _encoders_in(folder)
    return found[0] if len(found) == 1 else folder


def encoder_beside(folder: Path) -> Path | None:
    """A T5 in the same pipeline, where a folder holds another encoder."""
    return next(iter(_encoders_in(folder.parent)), None)


def tokenizer_folders(folder: Path) -> list[Path]:
    """Where the tokenizer of an encoder may be: there, or as `tokenizer_2` for `text_encoder_2`."""
    number = re.fullmatch(r"text_encoder(_\d+)?", folder.name)
    own = f"tokenizer{number[1] or ''}" if number else "tokenizer"
    beside = [folder.parent / name for name in dict.fromkeys((own, "tokenizer"))]
    return [folder, folder / "tokenizer", *beside]


def _encoders_in(folder: Path) -> list[Path]:
    return [
        path.parent for path in sorted(folder.glob("text_encoder*/config.json")) if _is_t5(path)
    ]


def _is_t5(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model_type"] in KINDS
    except (OSError, ValueError, KeyError, TypeError):
        return False
