"""A text encoder without weights: every word is a fixed pseudo-random vector.

It knows no meaning, so "crimson" is as far from "red" as "square" is. But distinct words are
nearly orthogonal, which is all that a network needs to learn a small vocabulary; and
nothing is downloaded. For open vocabulary, the paper's family of models uses a frozen T5.
"""

import functools
import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text.encoder import Embeddings, Mask, TextEncoder, check_prompts, cut

_END_OF_TEXT = "</s>"  # No prompt contains this word: `tokenize` would split it at its punctuation.


class HashedTextEncoder(TextEncoder):
    """Embeds a prompt as the vectors of its words, plus their positions.

    A prompt ends with an end-of-text token, also if it is empty or was cut, and is padded with
    zeros after it.
    """

    def __init__(self, dim: int = 64, max_length: int = 24) -> None:
        if dim < 2 or dim % 2:
            raise UserError(f"text.dim must be even and at least 2, but is {dim}")
        if max_length < 1:
            raise UserError(f"text.max_length must be at least 1, but is {max_length}")
        super().__init__(dim, max_length)
        self._positions = _sinusoidal_positions(max_length, dim)

    @property
    def fingerprint(self) -> str:
        """See `TextEncoder`."""
        return f"hashed-v1(dim={self.dim}, max_length={self.max_length})"

    def __call__(self, prompts: Sequence[str]) -> tuple[Embeddings, Mask]:
        """See `TextEncoder`."""
        check_prompts(prompts)
        embeddings = np.zeros((len(prompts), self.max_length, self.dim), np.float32)
        mask = np.zeros((len(prompts), self.max_length), bool)
        for row, prompt in enumerate(prompts):
            words = self._words(prompt)
            vectors = [_word_vector(word, self.dim) for word in words]
            embeddings[row, : len(words)] = vectors + self._positions[: len(words)]
            mask[row, : len(words)] = True
        return embeddings, mask

    def _words(self, prompt: str) -> list[str]:
        """The words of a prompt and the end of text, at most `max_length` in all."""
        return [*cut(tokenize(prompt), self.max_length, prompt, "words and marks"), _END_OF_TEXT]


def tokenize(prompt: str) -> list[str]:
    """Splits a prompt into words and single marks, the same for all ways to write it.

    Compatibility forms and case are folded (Unicode NFKC, casefold). A word is a run of
    letters, digits, combining marks and underscores; spaces and control characters only
    separate, and invisible format characters (such as soft hyphens) are dropped.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    return text.translate(_SPACING).split()


class _Spacing(dict[int, str]):
    """Replacement of each code point, so that tokens are what stands between spaces."""

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        category = unicodedata.category(character)
        if category == "Cf":
            spaced = ""
        elif category[0] in "LMN" or character == "_":
            spaced = character
        else:
            spaced = " " if category[0] in "ZC" else f" {character} "
        self[code_point] = spaced
        return spaced


_SPACING = _Spacing()


@functools.lru_cache(maxsize=1 << 16)
def _word_vector(word: str, dim: int) -> Float32[np.ndarray, " {dim}"]:
    """The vector of a word: independent components of mean 0 and variance 1.

    They are uniform, scaled from the bits of SHAKE-256, so that they are the same to the last
    bit on every machine and with every version of NumPy.
    """
    digest = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(4 * dim)
    uniform = (np.frombuffer(digest, "<u4") + 0.5) / 2.0**32  # In (0, 1).
    vector = ((uniform - 0.5) * np.sqrt(12.0)).astype(np.float32)
    vector.flags.writeable = False  # It is shared by all who ask for this word.
    return vector


def _sinusoidal_positions(length: int, dim: int) -> Float32[np.ndarray, "{length} {dim}"]:
    """Sine and cosine of the position at `dim / 2` wavelengths.

    The encoding of "Attention Is All You Need" (arXiv 1706.03762), section 3.5, with all sines
    before all cosines.
    """
    frequencies = 10_000.0 ** (-np.arange(dim // 2) / (dim // 2))
    angles = np.arange(length)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
