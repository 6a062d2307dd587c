"""Tokenizers against those of `transformers`."""

import json

import numpy as np
import pytest
import sentencepiece
import transformers
from absl import logging
from hypothesis import given
from hypothesis import strategies as st

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import tokenizers
from tests.text.tiny_t5 import trained_pieces

PROMPTS = [
    "",
    " ",
    "a large red circle",
    "  a   large\tred\ncircle ",
    "größer Dreieck",
    "gro\u0308ßer",  # combining
    "ＲＥＤ ﬁ ½ …",  # compatibility forms
    "日本語の円 👍🏽 हिन्दी",
    "soft\u00adhyphen zero\u200bwidth no\u00a0break",
    "a large red circle moving up " * 60,
]


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "spiece.model").write_bytes(trained_pieces())
    return folder


@pytest.mark.parametrize("max_length", [1, 5, 128])
def test_sentencepiece_is_that_of_transformers(folder, max_length):
    theirs = transformers.T5Tokenizer.from_pretrained(folder)
    expected = theirs(PROMPTS, padding="max_length", truncation=True, max_length=max_length)
    numbers, mask = tokenizers.encode(tokenizers.find(folder), PROMPTS, max_length)
    np.testing.assert_array_equal(numbers, expected["input_ids"])
    np.testing.assert_array_equal(mask, np.array(expected["attention_mask"], bool))
    assert numbers.dtype == np.int32 and mask.dtype == bool and mask[:, 0].all()


@pytest.mark.parametrize("max_length", [1, 5, 128])
def test_bytes_are_those_of_transformers(tmp_path, max_length):
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    theirs = transformers.ByT5Tokenizer()
    expected = theirs(PROMPTS, padding="max_length", truncation=True, max_length=max_length)
    numbers, mask = tokenizers.encode(tokenizers.find(tmp_path), PROMPTS, max_length)
    np.testing.assert_array_equal(numbers, expected["input_ids"])
    np.testing.assert_array_equal(mask, np.array(expected["attention_mask"], bool))


@given(st.text(st.characters(), max_size=30))
def test_any_text_is_tokenized(prompt):
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained_pieces())
    for tokenizer in (_Fixed(pieces), tokenizers.ByteTokenizer()):
        numbers, mask = tokenizers.encode(tokenizer, [prompt], 200)
        tokens = numbers[0][mask[0]]
        assert tokens[-1] == tokenizers.END and not numbers[0][~mask[0]].any()
        assert (tokens < 384).all() and (tokens[:-1] > tokenizers.END).all()


class _Fixed(tokenizers.SentencePieceTokenizer):
    """One that was trained in memory."""

    def __init__(self, pieces):
        self._pieces = pieces


def test_what_looks_like_a_special_token_is_text(folder):
    tokenizer = tokenizers.find(folder)
    assert tokenizers.END not in tokenizer("a </s> b") and tokenizers.PAD not in tokenizer("<pad>")


def test_long_prompt_warns_once(monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "log_first_n", lambda *arguments: warnings.append(arguments))
    tokenizers.encode(tokenizers.ByteTokenizer(), ["abc"], 4)
    assert not warnings
    tokenizers.encode(tokenizers.ByteTokenizer(), ["abcd"], 4)
    assert len(warnings) == 1 and "abcd" in warnings[0]


def test_tokenizer_beside_the_encoder(tmp_path):
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(trained_pieces())
    found = tokenizers.find(tmp_path / "text_encoder")
    assert found.fingerprint.startswith("sentencepiece ")


def test_no_tokenizer(tmp_path):
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=r"has no spiece.model.*tokenizer.json does not.*ByT5"):
        tokenizers.find(tmp_path)


def test_model_that_is_damaged_or_of_another_family(tmp_path):
    path = tmp_path / "spiece.model"
    for damaged in (b"", b"no model", trained_pieces()[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="spiece.model (cannot be read|numbers)"):
            tokenizers.find(tmp_path)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["red circle"] * 9), model_prefix=str(tmp_path / "spiece"),
        vocab_size=30, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"\(-1, 2\), and T5 has \(0, 1\); it is the tokenizer of"):
        tokenizers.find(tmp_path)
