"""Prompts are read as DeepFloyd IF's pipelines read them."""

import numpy as np
import transformers

from lumiere_jax import text
from lumiere_jax.cascade.config import default_config, set_imported
from tests.open_weights import deepfloyd

PROMPTS = ["  A Red CIRCLE moving right ", "x", ""]


def test_embeddings_are_those_of_the_pipeline(tmp_path):
    encoder = deepfloyd.write_text_encoder(tmp_path / "text_encoder")
    pipeline = deepfloyd.stage_one()
    pipeline.register_modules(text_encoder=encoder, tokenizer=transformers.ByT5Tokenizer())
    expected, null = pipeline.encode_prompt(PROMPTS, clean_caption=False)
    config = default_config("t2i")
    set_imported(config)
    config.text.update({"name": "t5", "dim": deepfloyd.TEXT_DIM, "dtype": "float32"})
    config.text.folder = str(tmp_path / "text_encoder")
    embeddings, mask = text.create(config.text)(PROMPTS)
    assert embeddings.shape == (3, 77, deepfloyd.TEXT_DIM) and np.all(mask)
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(embeddings[2], null[0].numpy(), atol=1e-4)
    assert np.abs(embeddings[1, 5:]).max() > 0.1, "padding has no embeddings"
