"""A T5 encoder small enough for tests, written as Hugging Face lays one out."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers

SIZES = {
    "vocab_size": 400,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
WORDS = "a large small red blue größer Dreieck circle square moving up right on plain black of"


def write_tiny_t5(
    folder: Path, *, seed: int = 0, tokenizer: str = "sentencepiece", shards: bool = False,
    dtype: torch.dtype = torch.float32, **sizes: Any,
) -> transformers.T5EncoderModel:  # fmt: skip
    """Writes `config.json`, safetensors and the tokenizer of an encoder with random weights.

    Args:
      folder: to make.
      seed: of the weights.
      tokenizer: "sentencepiece" or "bytes".
      shards: whether the weights are split over several files with an index.
      dtype: of the weights.
      **sizes: fields of `config.json`, in place of `SIZES`.

    Returns:
      The model itself, to compare with, in evaluation mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(seed, **sizes).to(dtype)
    model.save_pretrained(folder, max_shard_size="8KB" if shards else "1GB")
    if tokenizer == "bytes":
        text = json.dumps({"tokenizer_class": "ByT5Tokenizer"})
        (folder / "tokenizer_config.json").write_text(text)
    else:
        (folder / "spiece.model").write_bytes(trained_pieces())
    return model


def random_model(seed: int = 0, **sizes: Any) -> transformers.T5EncoderModel:
    """An encoder whose every layer matters: weights and biases of distance are large."""
    torch.manual_seed(seed)
    config = transformers.T5Config(**(SIZES | sizes), dropout_rate=0.0)
    model = transformers.T5EncoderModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif "shared" in name or "relative" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
    return model


@functools.cache
def trained_pieces() -> bytes:
    """A SentencePiece model of a few words, with T5's numbers for padding and end of text."""
    words, model = WORDS.split(), io.BytesIO()
    lines = [" ".join(words[(i * k) % len(words)] for k in range(1, 9)) for i in range(1, 300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=120, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, model_type="unigram", minloglevel=2,
    )  # fmt: skip
    return model.getvalue()
