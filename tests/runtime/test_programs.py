"""Compiled programs, and the folder that keeps them."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from lumiere_jax.runtime import cache_folder, program_key
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.made_ahead import MadeAhead
from lumiere_jax.runtime.programs import Programs

X = np.arange(3, dtype=np.float32)


def double(folder, about="double", x=X, factor=2.0):
    """What the program of a new process returns, and how often it was compiled."""
    compiled = []
    programs = Programs(folder)
    program = programs.get(lambda x: factor * x, (x,), about, lambda: compiled.append(1))
    assert programs.get(None, (x,), about) is program
    return np.asarray(program(x)).tolist(), len(compiled)


def test_a_program_is_compiled_once_for_all_processes(tmp_path):
    folder = CacheFolder(tmp_path / "own" / "programs")
    assert os.stat(tmp_path / "own" / "programs").st_mode & 0o777 == 0o700
    assert double(folder) == ([0, 2, 4], 1)
    # Another function that claims to be the same shows that nothing is traced.
    assert double(folder, factor=5.0) == ([0, 2, 4], 0)
    assert double(folder, about="another", factor=5.0) == ([0, 5, 10], 1)
    assert double(folder, x=X[:2]) == ([0, 2], 1) and double(folder, x=np.int32([4])) == ([8], 1)


def test_what_jax_has_read_from_its_own_cache_is_not_kept(tmp_path):
    """Where XLA's programs for CPUs are read, they lack what it takes to write them again."""
    for number in range(3):  # the first writes into JAX's own folder, or it is there already
        programs = Programs(CacheFolder(tmp_path) if number else None)
        programs.get(jnp.sort, (X,), "sort")
    program = Programs(CacheFolder(tmp_path)).get(None, (X,), "sort")
    assert np.asarray(program(X[::-1])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty"])
def test_what_is_damaged_is_made_again(tmp_path, damage):
    folder = CacheFolder(tmp_path)
    double(folder)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    if damage == "foreign":  # whole, but no program
        folder.write(path.name, b"something else")
    else:
        changed = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"cut": data[: len(data) // 2], "changed": changed, "empty": b""}[damage])
    assert double(folder) == ([0, 2, 4], 1)
    assert double(folder) == ([0, 2, 4], 0)


def test_what_others_may_have_written_is_not_run(tmp_path):
    folder = CacheFolder(tmp_path / "programs")
    folder.write("key", b"mine")
    path = tmp_path / "programs" / "key"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert folder.read("key") is None
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    assert folder.read("key") == b"mine"
    path.chmod(0o666)
    assert folder.read("key") is None
    (tmp_path / "programs").chmod(0o777)
    with pytest.raises(UserError, match="others can write.*chmod go-w.*LUMIERE_CACHE"):
        CacheFolder(tmp_path / "programs")


def test_the_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    CacheFolder(tmp_path / "programs")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(UserError, match="belongs to another user"):
        CacheFolder(tmp_path / "programs")


def test_where_the_folder_is(tmp_path, monkeypatch, caplog):
    for name, value, expected in (
        ("LUMIERE_CACHE", str(tmp_path / "named"), tmp_path / "named"),
        ("XDG_CACHE_HOME", str(tmp_path / "xdg"), tmp_path / "xdg" / "lumiere_jax" / "programs"),
        ("HOME", str(tmp_path), tmp_path / ".cache" / "lumiere_jax" / "programs"),
    ):
        for other in ("LUMIERE_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, value)
        CacheFolder.of_user().write("key", b"")
        assert (expected / "key").is_file()
    monkeypatch.setenv("LUMIERE_CACHE", "")
    assert CacheFolder.of_user() is None and not caplog.records
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUMIERE_CACHE", str(tmp_path / "file" / "programs"))
    assert CacheFolder.of_user() is None and "cannot be kept there" in caplog.text


def test_the_longest_unused_goes_first(tmp_path):
    folder = CacheFolder(tmp_path, most_bytes=400)
    for number, key in enumerate("abc"):
        folder.write(key, bytes(80))
        os.utime(tmp_path / key, (number, number))
    (tmp_path / ".d-unfinished").touch()
    (tmp_path / ".e-left-over").touch()
    os.utime(tmp_path / ".e-left-over", (1, 1))
    assert folder.read("a") == bytes(80)  # it is used again
    folder.write("f", bytes(80))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "f", ".d-unfinished"}


def _write(path):
    folder = CacheFolder(path)
    for number in range(50):
        folder.write("key", bytes([number]) * 100_000)
        assert folder.read("key") in {bytes([n]) * 100_000 for n in range(50)}


def made_ahead(folder, x=X, about="double"):
    """What a program by the name "doubling" returns, and how often it was compiled."""
    compiled = []
    programs = Programs(made_ahead=MadeAhead(str(folder)))
    program = programs.get(
        lambda x: 2 * x, (x,), about, lambda: compiled.append(1), name="doubling"
    )
    return np.asarray(program(x)).tolist(), len(compiled)


def test_what_was_made_ahead_is_loaded_or_the_log_says_why_not(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "programs"
    assert made_ahead(folder) == ([0, 2, 4], 1)
    (path,) = folder.iterdir()
    said = capsys.readouterr().out
    assert f"compiled, since {folder} has none that fits (there is no doubling)" in said
    assert f"the doubling is kept in {path}" in said
    assert made_ahead(folder) == ([0, 2, 4], 0)
    assert f"the doubling was made ahead: loaded {path}" in capsys.readouterr().out

    whole = path.read_bytes()
    foreign = b"{}\nnothing"
    for damaged, reason in ((whole[:-9], "it is damaged"), (foreign, "sha256"), (b"", "Expecting")):
        path.write_bytes(damaged)
        assert made_ahead(folder) == ([0, 2, 4], 1)  # and it is written again
        lines = [line for line in capsys.readouterr().out.splitlines() if "none that fits" in line]
        assert len(lines) == 1 and f"{path.name} cannot be used: " in lines[0]
        assert reason in lines[0]

    monkeypatch.setattr(program_key, "_LIBRARIES", ("jax",))
    assert made_ahead(folder, about="triple") == ([0, 2, 4], 1)
    said = capsys.readouterr().out
    assert (
        "(what differs: libraries (jax 0" in said and ", jaxlib 0" in said and ", config)" in said
    )
    assert len(list(folder.iterdir())) == 2


def test_a_folder_that_anyone_can_write_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder of compiled programs"):
        MadeAhead(str(tmp_path / "file"))
    tmp_path.chmod(0o777)
    with pytest.raises(UserError, match="anyone can write.*chmod o-w"):
        MadeAhead(str(tmp_path))


def test_several_write_at_once(tmp_path):
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(_write, [tmp_path] * 3))
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_full_disk_costs_the_next_compilation_alone(tmp_path, monkeypatch, caplog):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_folder, "written", full)
    assert double(CacheFolder(tmp_path)) == ([0, 2, 4], 1) and "No space left" in caplog.text
