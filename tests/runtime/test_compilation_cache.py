import jax
import pytest

from lumiere_jax.runtime import compilation_cache


@pytest.mark.parametrize(
    ("backend", "named", "expected"),
    [("cpu", None, None), ("cpu", "/named", "/named"), ("tpu", "/named", "/named")],
)
def test_the_folder_is_the_named_one_or_none_on_the_cpu(monkeypatch, backend, named, expected):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    try:
        jax.config.update("jax_compilation_cache_dir", named)
        assert compilation_cache.use() == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_an_accelerator_keeps_its_programs(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        folder = compilation_cache.use()
        assert folder.endswith(".cache/lumiere_jax/compiled") and "~" not in folder
        assert jax.config.jax_compilation_cache_dir == folder
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
