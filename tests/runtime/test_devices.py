import importlib.metadata
import importlib.util
import os
from pathlib import Path

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


@pytest.mark.parametrize(
    ("cores", "batch_size", "expected"),
    [(1, 8, 1), (2, 8, 2), (3, 16, 2), (8, 4, 4), (8, 12, 4), (8, 5, 1), (64, 48, 8)],
)
def test_devices_of_a_cpu_divide_the_batch_and_the_user_has_the_last_word(
    monkeypatch, cores, batch_size, expected
):
    monkeypatch.setattr(devices, "num_cores", lambda: cores)
    monkeypatch.setenv("XLA_FLAGS", "--theirs")
    devices.split_cpu(batch_size)
    flag = f"--xla_force_host_platform_device_count={expected}"
    assert os.environ["XLA_FLAGS"].split() == [flag, "--theirs"]


@pytest.mark.parametrize(
    ("environment", "installed", "files", "plugins", "expected"),
    [
        ({}, ["libtpu"], [], [], "cpu"),
        ({}, [], [], [], None),
        ({}, ["libtpu"], ["/dev/accel0"], [], None),
        ({}, ["libtpu"], [], ["cuda"], None),
        ({"TPU_NAME": "local"}, ["libtpu"], [], [], None),
        ({"JAX_PLATFORMS": "tpu,cpu"}, ["libtpu"], [], [], "tpu,cpu"),
    ],
)
def test_a_tpu_is_looked_for_where_one_may_be(
    monkeypatch, environment, installed, files, plugins, expected
):
    for name in [name for name in os.environ if name.startswith(("TPU_", "JAX_PLATFORMS"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: files)
    told = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: told.append(setting))
    devices.leave_out_missing_tpu()
    assert os.environ.get("JAX_PLATFORMS") == expected
    assert told == ([("jax_platforms", "cpu")] if expected == "cpu" else [])
