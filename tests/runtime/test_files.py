"""Files and folders that are there as a whole or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from lumiere_jax.runtime import files
from lumiere_jax.runtime.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_there_when_it_is_done(tmp_path):
    place = tmp_path / "above" / "made"
    with files.written_folder(place) as folder:
        (folder / "a").write_text("1")
        assert not place.exists()
    assert names(place.parent) == ["made"] and names(place) == ["a"]
    assert place.stat().st_mode & 0o777 == 0o755


def test_a_folder_takes_the_place_of_a_former_one(tmp_path):
    place = tmp_path / "made"
    for name in ("former", "present"):
        with files.written_folder(place) as folder:
            (folder / name).write_text(name)
            if name == "present":
                assert names(place) == ["former"]
    assert names(tmp_path) == ["made"] and names(place) == ["present"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_of_a_broken_off_folder_nothing_is_left(tmp_path, error):
    place = tmp_path / "made"
    place.mkdir()
    (place / "former").write_text("1")
    with pytest.raises(error), files.written_folder(place) as folder:
        (folder / "half").write_text("1")
        raise error
    assert names(tmp_path) == ["made"] and names(place) == ["former"]


def test_of_a_broken_off_file_nothing_is_left(tmp_path):
    place = tmp_path / "a.txt"
    place.write_text("former")
    with pytest.raises(ValueError), files.written(place) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert names(tmp_path) == ["a.txt"] and place.read_text() == "former"
    files.write_text(place, "whole")
    assert names(tmp_path) == ["a.txt"] and place.read_text() == "whole"


def test_what_cannot_be_written_is_told(tmp_path):
    place = tmp_path / "made"
    place.mkdir()
    with pytest.raises(UserError, match=r"made cannot be written .*No space left"):
        with files.written_folder(place):
            raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["made"]


TERMINATED = """
import os, signal, sys
from lumiere_jax.runtime import files
before = signal.getsignal(signal.SIGTERM)
with files.written_folder(sys.argv[1]) as folder:
    (folder / "a").write_text("1")
assert signal.getsignal(signal.SIGTERM) is before
with files.written_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("1")
    os.kill(os.getpid(), signal.SIGTERM)
    print("not reached")
"""


def test_of_a_folder_that_is_broken_off_by_sigterm_nothing_is_left(tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 128 + signal.SIGTERM and not done.stdout, done.stderr
    assert names(tmp_path) == ["made"] and names(tmp_path / "made") == ["a"]


def test_other_files_are_kept(tmp_path):
    former, folder = tmp_path / "former", tmp_path / "new"
    (former / "deep" / "er").mkdir(parents=True)
    (former / "deep" / "er" / "x").write_text("x")
    (former / "link").symlink_to("nowhere")
    for name in ("own", "new", "mine"):
        (former / name).write_text("former")
    folder.mkdir()
    (folder / "new").write_text("new")
    files.keep_others(former, folder, ["own"])
    assert names(folder) == ["deep", "link", "mine", "new"]
    assert os.readlink(folder / "link") == "nowhere"
    assert (folder / "new").read_text() == "new" and (folder / "deep/er/x").read_text() == "x"
    os.mkfifo(former / "pipe")
    with pytest.raises(UserError, match="pipe is neither a file nor a folder"):
        files.keep_others(former, folder, ["own"])
