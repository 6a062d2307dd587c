import jax
import pytest

from lumiere_jax.runtime import devices


@pytest.mark.parametrize(
    ("backend", "named", "expected"),
    [
        ("cpu", None, None),
        ("cpu", "/named", "/named"),
        ("tpu", "/named", "/named"),
        ("tpu", None, str(devices.CACHE.expanduser())),
    ],
)
def test_where_compiled_programs_are_kept(monkeypatch, backend, named, expected):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    try:
        jax.config.update("jax_compilation_cache_dir", named)
        assert devices.keep_compiled_programs() == expected
        assert jax.config.jax_compilation_cache_dir == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
