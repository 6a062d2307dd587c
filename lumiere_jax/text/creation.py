"""How a config names a text encoder, and where its parts run."""

import dataclasses
import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lumiere_jax.runtime import distributed
from lumiere_jax.runtime.config_section import ConfigSection
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text.encoder import Embeddings, Mask, TextEncoder
from lumiere_jax.text.hashed import HashedTextEncoder
from lumiere_jax.text.t5 import T5TextEncoder

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(ConfigSection):
    """The text encoder of a stage."""

    name: str = "hashed"  # or "t5"
    dim: int = 64
    max_length: int = 24  # tokens of a prompt
    folder: str = ""  # t5: weights and tokenizer, as Hugging Face lays them out
    dtype: str = "bfloat16"  # t5: or "float32"
    weights: str = ""  # t5: their fingerprint, which training fills in
    lowercase: bool = False  # t5: prompts in lower case, without spaces around them
    keep_padding: bool = False  # t5: networks see the embeddings of padding, as DeepFloyd IF


_ENCODERS: dict[str, type[TextEncoder]] = {"hashed": HashedTextEncoder, "t5": T5TextEncoder}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TextConfig)}
"""Every config has these fields; with these values, an encoder without weights ignores them."""

_created: weakref.WeakValueDictionary[tuple, TextEncoder] = weakref.WeakValueDictionary()


def create(config: Mapping[str, Any]) -> TextEncoder:
    """Builds the encoder that `config` describes, or finds the one that is in use.

    Stages that ask for the same encoder share it: its weights may take gigabytes. `name` picks the
    encoder; all other fields are its arguments, and a wrong one is a `UserError`.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in _ENCODERS:
        raise UserError(
            f"unknown text encoder {name!r} in text.name; known are: {', '.join(_ENCODERS)}"
        )
    known = inspect.signature(_ENCODERS[name]).parameters
    for argument, value in dict(arguments).items():
        if argument not in known and _DEFAULTS.get(argument) == value:
            del arguments[argument]
        elif argument not in known:
            raise UserError(
                f"the text encoder {name!r} has no setting text.{argument}; "
                f"it has: {', '.join(known)}"
            )
    key = (name, *sorted(arguments.items()))
    encoder = _created.get(key)
    if encoder is None:
        encoder = _created[key] = _ENCODERS[name](**arguments)
    return encoder


def pin_weights(config: ConfigDict) -> None:
    """Writes into a config which weights its encoder has, so that checkpoints know of them.

    `config.text` of an encoder without weights is left as it is; so is that of one without a folder
    whose `weights` are known, as they are with embeddings that were computed before. A folder that
    is missing, has other weights, or is not the same on all processes, is a `UserError`.
    """
    encoder = create(config)
    if not isinstance(encoder, T5TextEncoder) or (config.weights and not config.folder):
        return
    weights = encoder.weights
    if not distributed.is_same_everywhere(weights):
        raise UserError(
            f"text.folder={config.folder} does not hold the same text encoder on all hosts; copy "
            "one to all of them."
        )
    config.weights = weights


def move_folder(config: ConfigDict, folder: str | Path | None, place: str | Path) -> None:
    """Puts a folder of this machine in place of the one that a checkpoint was trained with.

    `config` is `config.text` of the checkpoint; no folder leaves it as it is. `place` is the
    checkpoint's, for messages. If its encoder has no weights, that is a `UserError`.
    """
    if not folder:
        return
    if "folder" not in inspect.signature(_ENCODERS[config.name]).parameters:
        raise UserError(
            f"--text_folder={folder}: {place} was trained with the text encoder {config.name!r}, "
            "which has no weights; leave the flag out."
        )
    config.folder = str(folder)


class _Tokens(TextEncoder):
    """The part of an encoder that needs no device: token numbers in place of embeddings."""

    def __init__(self, encoder: T5TextEncoder):
        super().__init__(1, encoder.max_length)
        self._encoder = encoder

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def __call__(self, prompts: Sequence[str]) -> tuple[Embeddings, Mask]:
        tokens, mask = self._encoder.tokens(prompts)
        return tokens[..., None].astype(np.float32), mask  # exact: there are less than 2^24


def host_part(encoder: TextEncoder) -> TextEncoder:
    """The part of an encoder that may run in a thread during a training step.

    Programs of several devices must be started in one order on all of them, so only one thread
    may start them. An encoder that runs on devices is split: here its tokens, which look like
    embeddings of size 1; `device_part` makes embeddings of them.
    """
    return _Tokens(encoder) if isinstance(encoder, T5TextEncoder) else encoder


def device_part(batches: Iterator[Batch], encoder: TextEncoder) -> Iterator[Batch]:
    """Batches with embeddings in "text", from those that were made with `host_part`.

    Rows of "text" that are embeddings already stay; among these, rows of tokens have them in the
    first channel and NaN after it. The encoder is the whole one. Devices get the work for a batch
    when the one before is asked for, so nobody who takes a batch while they do a step waits for it.
    """
    if not isinstance(encoder, T5TextEncoder):
        yield from batches
        return
    ahead: _Started | None = None
    for batch in batches:
        ready, ahead = ahead, _Started(batch, encoder)
        if ready:
            yield ready.batch()
    if ahead:
        yield ahead.batch()


class _Started:
    """A batch whose tokens are on their way to become embeddings."""

    def __init__(self, batch: Batch, encoder: T5TextEncoder):
        self._batch, self._encoder, text = batch, encoder, batch["text"]
        self._is_tokens = np.isnan(text[:, 0, -1]) | (text.shape[-1] == 1)
        self._parts: list[jax.Array] = []
        if self._is_tokens.any():
            tokens = text[self._is_tokens, :, 0].astype(np.int32)
            self._parts = encoder.start(tokens, batch["text_mask"][self._is_tokens])

    def batch(self) -> Batch:
        """The batch with embeddings, once they are there."""
        if not self._parts:
            return self._batch
        text = self._batch["text"]
        text = np.array(np.broadcast_to(text, (*text.shape[:2], self._encoder.dim)))
        text[self._is_tokens] = self._encoder.gather(self._parts, self._is_tokens.sum())
        return self._batch | {"text": text}
