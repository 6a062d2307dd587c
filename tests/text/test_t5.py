"""T5 as a text encoder of the project: settings, batches, folders, checkpoints."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
import pytest
import torch

from lumiere_jax import text
from lumiere_jax.cascade.config import default_config, set_full_scale
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import T5TextEncoder, t5
from tests.text.tiny_t5 import write_tiny_t5

PROMPTS = ["a large red circle", "", "größer Dreieck 日本", "a small square " * 20]


@pytest.fixture(name="model", scope="module")
def fixture_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    return folder, write_tiny_t5(folder)


@pytest.fixture(name="encoder", scope="module")
def fixture_encoder(model):
    return T5TextEncoder(str(model[0]), 16, 24, "float32")


def test_embeddings_are_those_of_transformers(model, encoder):
    embeddings, mask = encoder(PROMPTS)
    assert embeddings.shape == (4, 24, 16) and embeddings.dtype == np.float32
    assert mask.dtype == bool and mask[:, 0].all() and mask[3].all() and mask[1].sum() == 1
    tokens, token_mask = encoder.tokens(PROMPTS)
    np.testing.assert_array_equal(mask, token_mask)
    with torch.no_grad():
        expected = model[1](
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        ).last_hidden_state.numpy()
    np.testing.assert_allclose(embeddings[mask], expected[mask], atol=1e-4)
    assert not embeddings[~mask].any()


@pytest.mark.parametrize("batch", [1, 3])
def test_embedding_does_not_depend_on_the_other_prompts(encoder, monkeypatch, batch):
    monkeypatch.setattr(t5, "_prompts_a_device", lambda: batch)
    encoder = T5TextEncoder(encoder.folder, 16, 24, "float32")
    embeddings, _ = encoder(PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(encoder([prompt])[0][0], embeddings[index])
    np.testing.assert_array_equal(encoder(PROMPTS[::-1])[0], embeddings[::-1])
    assert encoder([])[0].shape == (0, 24, 16)


def test_bytes(tmp_path):
    model = write_tiny_t5(tmp_path, tokenizer="bytes", vocab_size=384)
    encoder = T5TextEncoder(str(tmp_path), 16, 40, "float32")
    embeddings, mask = encoder(["größer"])
    tokens = [byte + 3 for byte in "größer".encode()] + [1]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens])).last_hidden_state.numpy()[0]
    np.testing.assert_allclose(embeddings[0][mask[0]], expected, atol=1e-4)


def test_settings_are_known_without_a_folder():
    config = default_config("t2i")
    set_full_scale(config, resolution=64, num_frames=1)
    encoder = text.create(config.text)
    assert isinstance(encoder, T5TextEncoder)
    assert (encoder.dim, encoder.max_length) == (4096, 128)
    for call in (
        lambda: encoder(["a"]),
        lambda: encoder.tokens(["a"]),
        lambda: encoder.fingerprint,
    ):
        with pytest.raises(UserError, match=r"give --config.text.folder=DIR .*T5 v1.1 XXL encoder"):
            call()
    with pytest.raises(UserError, match="give --config.text.folder=DIR"):
        text.pin_weights(config.text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "text.dim=0"),
        ({"max_length": 0}, "text.max_length=0"),
        ({"dtype": "float16"}, "text.dtype 'float16' is unknown.*bfloat16"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        T5TextEncoder(**settings)


@pytest.mark.parametrize(
    ("prompts", "message"), [("a red circle", "list of strings"), ([b"red"], "number 0")]
)
def test_what_is_not_a_prompt_is_refused(encoder, prompts, message):
    with pytest.raises(UserError, match=message):
        encoder(prompts)
    with pytest.raises(UserError, match=message):
        encoder.tokens(prompts)


def test_folder_that_does_not_fit(model, tmp_path):
    with pytest.raises(
        UserError, match=r"text.dim=32, but .* d_model=16; set --config.text.dim=16"
    ):
        T5TextEncoder(str(model[0]), 32)([""])
    with pytest.raises(UserError, match="config.json cannot be read"):
        T5TextEncoder(str(tmp_path / "absent"), 16)([""])
    write_tiny_t5(tmp_path, vocab_size=20)
    with pytest.raises(UserError, match=r"tokenizer of .* tokens, and the encoder 20 embeddings"):
        T5TextEncoder(str(tmp_path), 16)([""])
    (tmp_path / "model.safetensors").unlink()
    write_tiny_t5(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="neither model.safetensors nor"):
        T5TextEncoder(str(tmp_path), 16)([""])


def test_weights_are_compared_with_those_asked_for(model, encoder):
    with pytest.raises(UserError, match=r"holds another text encoder \(weights [0-9a-f]{16}\).*"
                       "text.weights=0123456789abcdef.*--text_folder"):  # fmt: skip
        T5TextEncoder(str(model[0]), 16, weights="0123456789abcdef").tokens(["a"])
    known = T5TextEncoder(str(model[0]), 16, 24, "float32", encoder.weights)
    assert known.fingerprint == encoder.fingerprint
    away = T5TextEncoder("", 16, 24, "float32", encoder.weights)
    assert away.fingerprint == encoder.fingerprint
    for other in ({"max_length": 25}, {"dtype": "bfloat16"}):
        settings = {"dim": 16, "max_length": 24, "dtype": "float32"} | other
        assert T5TextEncoder(str(model[0]), **settings).fingerprint != encoder.fingerprint


def t5_config(folder, **fields):
    config = default_config("t2i")
    config.text.update({"name": "t5", "folder": str(folder), "dim": 16, "max_length": 24, **fields})
    return config


def test_weights_are_written_into_a_config(model, encoder):
    config = t5_config(model[0])
    text.pin_weights(config.text)
    assert config.text.weights == encoder.weights
    text.pin_weights(config.text)  # again, as when a run is resumed
    config.text.folder = ""  # embeddings that were computed before need no folder
    text.pin_weights(config.text)
    assert config.text.weights == encoder.weights
    hashed = default_config("t2i")
    text.pin_weights(hashed.text)
    assert hashed.text.weights == ""


def test_hosts_with_different_weights(model, monkeypatch):
    monkeypatch.setattr(text.creation.distributed, "is_same_everywhere", lambda weights: False)
    with pytest.raises(UserError, match="does not hold the same text encoder on all hosts"):
        text.pin_weights(t5_config(model[0]).text)


def test_stages_share_an_encoder(model):
    config = t5_config(model[0]).text
    first = text.create(config)
    assert text.create(config) is first
    config.max_length = 25
    assert text.create(config) is not first


def test_folder_of_another_machine():
    config = t5_config("/there").text
    text.move_folder(config, None, "runs/t2i")
    assert config.folder == "/there"
    text.move_folder(config, "/here", "runs/t2i")
    assert config.folder == "/here"
    hashed = default_config("t2i").text
    text.move_folder(hashed, "", "runs/t2i")
    with pytest.raises(UserError, match="--text_folder=/here: runs/t2i .*'hashed'.*leave the flag"):
        text.move_folder(hashed, "/here", "runs/t2i")


def test_setting_of_t5_for_an_encoder_without_weights():
    config = default_config("t2i").text
    text.create(config)
    config.folder = "/there"
    with pytest.raises(UserError, match="'hashed' has no setting text.folder"):
        text.create(config)


def test_null_text_is_known_while_a_function_is_traced(encoder):
    expected, _ = encoder([""])
    encoder([""])[0][:] = 7  # what is handed out is a copy

    @jax.jit
    def function(x):
        return x + encoder([""])[0]

    np.testing.assert_allclose(function(1.0), 1 + expected, atol=1e-6)


def test_embedding_in_two_halves_is_the_same(encoder, monkeypatch):
    """Tokens from a thread beside the training step, embeddings from the main one."""
    expected, mask = encoder(PROMPTS)
    host = text.host_part(encoder)
    assert host.max_length == 24 and host.fingerprint.endswith(encoder.fingerprint)
    with ThreadPoolExecutor(1) as pool:
        tokens, token_mask = pool.submit(host, PROMPTS).result()
    assert tokens.shape == (4, 24, 1)
    with_tokens = {"text": tokens, "text_mask": token_mask}
    computed_before = {"text": expected, "text_mask": mask}
    calls = []

    def noted(name, method, *arguments):
        calls.append(name)
        return method(*arguments)

    for name in ("start", "gather"):
        monkeypatch.setattr(encoder, name, partial(noted, name, getattr(encoder, name)))
    given = iter([with_tokens, with_tokens, computed_before])
    for batch in text.device_part(given, encoder):
        calls += ["taken"]
        np.testing.assert_array_equal(batch["text"], expected)
        np.testing.assert_array_equal(batch["text_mask"], mask)
    # The second is started before anybody waits for the first.
    assert calls == ["start", "start", "gather", "taken", "gather", "taken", "taken"]
    hashed = text.HashedTextEncoder()
    assert text.host_part(hashed) is hashed


@pytest.mark.parametrize("number", ["", "_2", "_3"])
def test_the_t5_of_a_pipeline_is_found(tmp_path, number):
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "clip_text_model"}')
    folder = tmp_path / f"text_encoder{number}"
    write_tiny_t5(folder)
    (tmp_path / f"tokenizer{number}").mkdir()
    (folder / "spiece.model").rename(tmp_path / f"tokenizer{number}" / "spiece.model")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    weights = T5TextEncoder(str(folder), dim=16).weights
    assert T5TextEncoder(str(tmp_path), dim=16).weights == weights
    other = tmp_path / ("text_encoder_2" if number != "_2" else "text_encoder")
    with pytest.raises(UserError, match=f"'clip_text_model'; .*of this pipeline is in {folder}"):
        _ = T5TextEncoder(str(other), dim=16).weights
