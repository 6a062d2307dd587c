"""What every text encoder offers, and how a config names one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from lumiere_jax.errors import UserError
from lumiere_jax.text import hashed


class TextEncoder(Protocol):
    """Turns prompts into the sequences of vectors that the networks attend to.

    An encoder is frozen: the same prompt always gives the same embedding, whatever else is in
    the batch. The empty prompt is the null text of classifier-free guidance.
    """

    @property
    def dim(self) -> int:
        """The size D of one embedding vector."""

    @property
    def max_length(self) -> int:
        """The number L of vectors of every prompt, padding included."""

    @property
    def fingerprint(self) -> str:
        """Names the function from prompts to embeddings.

        A checkpoint stores it: networks trained with one encoder mean nothing with another.
        """

    def __call__(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeds N prompts.

        Args:
            prompts: The prompts. One that is too long is cut.

        Returns:
            Embeddings, float32 [N, L, D], zero where the mask is False; and the mask, bool
            [N, L], True at tokens and False at padding. No row of the mask is all False.

        Raises:
            UserError: If `prompts` is not a sequence of strings.
        """


_ENCODERS: dict[str, Callable[..., TextEncoder]] = {"hashed": hashed.HashedTextEncoder}


def create(config: Mapping[str, Any]) -> TextEncoder:
    """Builds the encoder that `config` describes.

    Args:
        config: `name` picks the encoder; all other fields are its arguments.

    Raises:
        UserError: If the name or an argument is not known, or has a wrong value.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in _ENCODERS:
        raise UserError(
            f"unknown text encoder {name!r} in text.name; known are: {', '.join(_ENCODERS)}"
        )
    known = inspect.signature(_ENCODERS[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise UserError(
                f"the text encoder {name!r} has no setting text.{argument}; "
                f"it has: {', '.join(known)}"
            )
    return _ENCODERS[name](**arguments)
