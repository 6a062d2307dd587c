"""What every text encoder offers."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Array, Bool, Float32

from lumiere_jax.runtime.errors import UserError

Embeddings = Float32[np.ndarray, "prompts length dim"]
Mask = Bool[np.ndarray, "prompts length"]
"""True at tokens and False at padding."""


class TextEncoder(abc.ABC):
    """Turns prompts into the sequences of vectors that the networks attend to.

    An encoder is frozen: the same prompt always gives the same embedding, whatever else is in
    the batch. The empty prompt is the null text of classifier-free guidance.

    Attributes:
      dim: size of an embedding vector.
      max_length: vectors of a prompt, end of text and padding included.
    """

    def __init__(self, dim: int, max_length: int) -> None:
        self.dim = dim
        self.max_length = max_length

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Names the function from prompts to embeddings.

        A checkpoint stores it: networks trained with one encoder mean nothing with another.
        """

    @abc.abstractmethod
    def __call__(self, prompts: Sequence[str]) -> tuple[Embeddings, Mask]:
        """Embeds prompts; one that is too long is cut.

        The embeddings are zero where the mask is False; it is True at least once in every row.
        Anything but a sequence of strings is a `UserError`.
        """


class ShapesOnly(TextEncoder):
    """Stands in for an encoder where only shapes are asked for; every embedding is zero."""

    fingerprint = "shapes only"

    def __call__(self, prompts: Sequence[str]) -> tuple[Embeddings, Mask]:
        """Zeros, and a mask that is True everywhere."""
        shape = (len(prompts), self.max_length)
        return np.zeros((*shape, self.dim), np.float32), np.ones(shape, bool)


class EmptyPrompt(TextEncoder):
    """Knows the empty prompt alone, as arguments of a program, which then is of any encoder."""

    fingerprint = "the empty prompt"

    def __init__(self, text: Float32[Array, "1 length dim"], mask: Bool[Array, "1 length"]) -> None:
        super().__init__(text.shape[2], text.shape[1])
        self._text, self._mask = text, mask

    def __call__(self, prompts: Sequence[str]) -> tuple[Any, Any]:
        """What was given."""
        assert list(prompts) == [""]
        return self._text, self._mask


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises `UserError` unless `prompts` is a sequence of strings."""
    if isinstance(prompts, str | bytes):
        raise UserError(f"prompts must be a list of strings; write [{prompts!r}] for a single one")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise UserError(
                f"prompts must be strings, but number {index} is {prompt!r} "
                f"of type {type(prompt).__name__}"
            )


def cut(tokens: list[Any], max_length: int, prompt: str, kind: str) -> list[Any]:
    """The tokens of a prompt that leave room for the end of text; the first loss is a warning."""
    if len(tokens) >= max_length:
        logging.log_first_n(
            logging.WARNING,
            "The prompt %r has %d %s; only the first %d are used (text.max_length = %d). Further "
            "prompts are cut without a warning.",
            1, prompt, len(tokens), kind, max_length - 1, max_length,
        )  # fmt: skip
    return tokens[: max_length - 1]
