"""From prompts to token numbers: SentencePiece, as T5 has it, and the bytes of ByT5."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int32

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text.encoder import cut
from lumiere_jax.text.t5_folder import tokenizer_folders

PAD, END = 0, 1
"""Numbers of padding and of the end of text, the same for every T5."""

_SPECIAL_BYTES = 3  # numbers before the first byte: padding, end and unknown


class Tokenizer(Protocol):
    """Splits a prompt."""

    size: int  # all numbers are below it
    fingerprint: str  # names the function from prompts to numbers

    def __call__(self, prompt: str) -> list[int]:
        """Numbers of the tokens, without the end of text."""


class SentencePieceTokenizer:
    """A `spiece.model` (arXiv 1808.06226).

    What looks like a special token in a prompt, as "</s>", is text like any other.
    """

    def __init__(self, path: Path):
        """Reads the model; a `UserError` if the file is missing or another."""
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            model = path.read_bytes()
            self._pieces.LoadFromSerializedProto(model)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{path} cannot be read as a SentencePiece model ({_first_line(error)}); copy it "
                "again."
            ) from error
        ids = (self._pieces.pad_id(), self._pieces.eos_id())
        if ids != (PAD, END):
            raise UserError(
                f"{path} numbers padding and end of text {ids}, and T5 has {(PAD, END)}; it is the "
                "tokenizer of another model."
            )
        self.size = self._pieces.get_piece_size()
        self.fingerprint = "sentencepiece " + hashlib.sha256(model).hexdigest()

    def __call__(self, prompt: str) -> list[int]:
        """See `Tokenizer`."""
        return self._pieces.encode(_utf8(prompt))


class ByteTokenizer:
    """Every byte of UTF-8 is a token (ByT5, arXiv 2105.13626)."""

    size = 256 + _SPECIAL_BYTES
    fingerprint = "bytes"

    def __call__(self, prompt: str) -> list[int]:
        """See `Tokenizer`."""
        return [byte + _SPECIAL_BYTES for byte in _utf8(prompt)]


def find(folder: Path) -> Tokenizer:
    """The tokenizer that belongs to the encoder in a folder; a `UserError` if there is none.

    It is `spiece.model`, there or beside it, as pipelines of diffusers have it (`tokenizer_2` for
    `text_encoder_2`); ByT5 needs none.
    """
    for place in tokenizer_folders(folder):
        if (path := place / "spiece.model").is_file():
            return SentencePieceTokenizer(path)
    if any(_says_bytes(folder / name) for name in ("tokenizer_config.json", "config.json")):
        return ByteTokenizer()
    raise UserError(
        f"{folder} has no spiece.model, T5's tokenizer; copy it there from where the weights are "
        "from (a tokenizer.json does not replace it). ByT5, which needs none, is known by "
        '"tokenizer_class": "ByT5Tokenizer" in its config.json or tokenizer_config.json.'
    )


def encode(
    tokenizer: Tokenizer, prompts: Sequence[str], max_length: int
) -> tuple[Int32[np.ndarray, "prompts {max_length}"], Bool[np.ndarray, "prompts {max_length}"]]:
    """Numbers of the tokens of prompts, and the mask, which is False at padding.

    Each prompt ends with the end of text, also if it is cut.
    """
    numbers = np.full((len(prompts), max_length), PAD, np.int32)
    mask = np.zeros((len(prompts), max_length), bool)
    for row, prompt in enumerate(prompts):
        tokens = [*cut(tokenizer(prompt), max_length, prompt, "tokens"), END]
        numbers[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
    return numbers, mask


def _says_bytes(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found.get("tokenizer_class") == "ByT5Tokenizer"
    except (OSError, ValueError, AttributeError):
        return False


def _utf8(prompt: str) -> bytes:
    """UTF-8, with a question mark for what is no text: half of a surrogate pair, from a shell."""
    return prompt.encode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
