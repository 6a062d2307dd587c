"""The hashed text encoder: the same everywhere, and telling words and their order apart."""

import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from absl import logging
from hypothesis import given
from hypothesis import strategies as st

from lumiere_jax import text
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import HashedTextEncoder
from lumiere_jax.text.hashed import tokenize

# Any code point, lone surrogates included: prompts come from files and shells.
ANY_TEXT = st.text(st.characters(), max_size=40)


def reference_positions(length: int, dim: int) -> np.ndarray:
    angles = np.arange(length)[:, None] / 10_000.0 ** (np.arange(dim // 2) / (dim // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def word_vectors(words: list[str], dim: int = 64) -> np.ndarray:
    """Embeddings [words, dim] of single words, freed of their position."""
    embeddings, _ = HashedTextEncoder(dim, max_length=2)(words)
    return embeddings[:, 0] - reference_positions(1, dim)[0]


def test_golden_values():
    # Frozen when the encoder was written: if they change, every checkpoint is worthless.
    red = [-0.40297340, -1.56177140, 0.55306538, 0.26936358]
    end_of_text = [-0.95168751, -1.67892920, -1.15501637, -1.10372394]
    embeddings, mask = HashedTextEncoder(dim=4, max_length=3)(["Red"])
    expected = np.array([red, end_of_text]) + reference_positions(2, 4)
    np.testing.assert_allclose(embeddings[0, :2], expected, atol=1e-6)
    np.testing.assert_array_equal(embeddings[0, 2], np.zeros(4))
    np.testing.assert_array_equal(mask, [[True, True, False]])
    assert embeddings.dtype == np.float32 and mask.dtype == bool


def test_other_process_gives_the_same_bits():
    prompts = ["A red circle moves up.", "", "zwei blaue Dreiecke, größer"]
    program = (
        "import sys; from lumiere_jax.text import HashedTextEncoder;"
        f"sys.stdout.buffer.write(HashedTextEncoder()({prompts!r})[0].tobytes())"
    )
    expected = HashedTextEncoder()(prompts)[0].tobytes()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        assert subprocess.run(command, env=environment, stdout=-1).stdout == expected


@given(st.lists(ANY_TEXT, max_size=4))
def test_any_text_is_embedded(prompts):
    encoder = HashedTextEncoder(dim=8, max_length=6)
    embeddings, mask = encoder(prompts)
    assert embeddings.shape == (len(prompts), 6, 8) and mask.shape == (len(prompts), 6)
    assert np.isfinite(embeddings).all()
    assert mask[:, 0].all()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()  # Tokens first, then padding.
    assert not embeddings[~mask].any()
    for index, prompt in enumerate(prompts):  # Independent of the rest of the batch.
        np.testing.assert_array_equal(encoder([prompt])[0][0], embeddings[index])


@given(ANY_TEXT)
def test_how_a_prompt_is_written_does_not_matter(prompt):
    tokens = tokenize(prompt)
    assert tokenize(f" \t{prompt}\n") == tokens
    for form in ("NFC", "NFD", "NFKC"):
        assert tokenize(unicodedata.normalize(form, prompt)) == tokens
    assert all(tokens) and not any(character.isspace() for t in tokens for character in t)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("", []),
        (" \n", []),
        ("A red circle.", ["a", "red", "circle", "."]),
        ("ＲＥＤ Straße", ["red", "strasse"]),
        ("up-left, 2x", ["up", "-", "left", ",", "2x"]),
        ("soft\u00adhyphen e\u0301", ["softhyphen", "\u00e9"]),
        ("हिन्दी 👍👍", ["हिन्दी", "👍", "👍"]),
        ("</s>", ["<", "/", "s", ">"]),
    ],
)
def test_tokenize(prompt, tokens):
    assert tokenize(prompt) == tokens


def test_words_have_unit_variance_and_are_nearly_orthogonal():
    dim, words = 1024, [f"word{i}" for i in range(200)]
    vectors = word_vectors(words, dim)
    gram = vectors @ vectors.T / dim
    # A component of variance 1 and kurtosis 1.8, as the uniform distribution has: the mean of
    # its square over `dim` has deviation sqrt(0.8 / dim), a product of two, 1 / sqrt(dim).
    assert np.abs(np.diag(gram) - 1).max() < 5 * np.sqrt(0.8 / dim)
    off_diagonal = gram[~np.eye(len(words), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5.5 / np.sqrt(dim)
    np.testing.assert_allclose(off_diagonal.std(), 1 / np.sqrt(dim), rtol=0.05)
    assert abs(vectors.mean()) < 5 / np.sqrt(vectors.size)


def test_word_is_the_same_at_every_place_but_for_the_position():
    embeddings, _ = HashedTextEncoder()(["red over blue", "blue over red"])
    words = embeddings[:, :3] - reference_positions(3, 64)
    np.testing.assert_allclose(words[0], words[1, ::-1], atol=1e-6)
    assert np.abs(embeddings[0, :3] - embeddings[1, :3]).max(axis=-1).min() == 0  # "over"
    assert np.abs(embeddings[0, 0] - embeddings[1, 0]).max() > 1
    positions = embeddings[0, 0] - embeddings[1, 2]
    np.testing.assert_allclose(
        positions, reference_positions(3, 64)[0] - reference_positions(3, 64)[2], atol=1e-6
    )


def test_long_prompt_is_cut_and_keeps_its_end(monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "log_first_n", lambda *arguments: warnings.append(arguments))
    encoder = HashedTextEncoder(max_length=4)
    embeddings, mask = encoder(["a b c", "a b c d e"])
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    assert mask.all()
    end_of_text = encoder([""])[0][0, 0] - reference_positions(1, 64)[0]
    np.testing.assert_allclose(
        embeddings[1, 3] - reference_positions(4, 64)[3], end_of_text, atol=1e-6
    )
    assert len(warnings) == 1 and "a b c d e" in warnings[0]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [("a red circle", "list of strings"), ([b"red"], "number 0"), (["red", None], "NoneType")],
)
def test_what_is_not_a_prompt_is_refused(prompts, message):
    with pytest.raises(UserError, match=message):
        HashedTextEncoder()(prompts)


@pytest.mark.parametrize("arguments", [{"dim": 0}, {"dim": 7}, {"max_length": 0}])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        HashedTextEncoder(**arguments)


def test_create():
    encoder = text.create({"name": "hashed", "dim": 32, "max_length": 8})
    assert (encoder.dim, encoder.max_length) == (32, 8)
    assert encoder.fingerprint == HashedTextEncoder(32, 8).fingerprint
    assert encoder.fingerprint != HashedTextEncoder(32, 9).fingerprint
    with pytest.raises(UserError, match="'word2vec'.*known are: hashed"):
        text.create({"name": "word2vec"})
    with pytest.raises(UserError, match="no setting text.depth"):
        text.create({"name": "hashed", "depth": 3})
